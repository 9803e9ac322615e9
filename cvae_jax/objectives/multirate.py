"""The objective of the Multi-Rate VAE: one network for a whole range of β."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.draws import draw
from cvae_jax.hparams import Hparams
from cvae_jax.losses import beta_elbo
from cvae_jax.model import CVAE
from cvae_jax.objectives.terms import Terms

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key, PyTree


def at_beta(params: PyTree, beta: Float[Array, "*b"] | float) -> PyTree:
    """The variables of a multi-rate model, set to a β.

    Args:
      params: the model's variables.
      beta: > 0, a scalar, or shape (b,) for one of each example.

    Returns:
      The same variables but for the β that the gates of every layer see.
    """
    return {**params, "setting": {"log_beta": jnp.log(jnp.asarray(beta, jnp.float32))}}


def multirate_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss of a β-VAE, each example under a β of its own that gates every layer.

    loss = −log p(x|z,c,β) + β KL(q(z|x,c,β) ‖ p(z)),  log β uniform between log β_min and log β_max

    Args:
      model, x, c, keys: see `negative_beta_elbo`.
      params: the model's variables; the β they are set to is not read.
      hparams: `beta_min`, `beta_max`, `latent_mask` and, for β, `key` are read.

    Returns:
      Loss, distortion and rate per example, nats, each at its own β.

    References:
      Bae et al., Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve, 2022, equations 5 to 7.
    """
    low, high = jnp.log(hparams.beta_min), jnp.log(hparams.beta_max)
    beta = jnp.exp(low + (high - low) * jax.random.uniform(hparams.key, (x.shape[0],)))
    _, _, log_likelihood, rate = draw(model, at_beta(params, beta), x, c, keys, hparams.latent_mask)
    return Terms(-beta_elbo(log_likelihood, rate, beta), -log_likelihood, rate)
