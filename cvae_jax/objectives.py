"""Training objectives: from a model and a batch to a loss per example, and its terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from cvae_jax.config import Hparams
from cvae_jax.cvae import CVAE, decode, encode
from cvae_jax.losses import beta_elbo, reparameterize, standard_normal_kl

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree


class Terms(NamedTuple):
    """What one objective says of a batch, per example, in nats.

    Attributes:
      loss: what training minimizes, −(log p(x|z,c) − β·rate), shape (b,).
      distortion: −log p(x|z,c) for z ~ q, shape (b,).
      rate: KL(q(z|x,c) ‖ p(z)), unweighted, shape (b,).
    """

    loss: Float[Array, " b"]
    distortion: Float[Array, " b"]
    rate: Float[Array, " b"]


class Objective(Protocol):
    """A training objective: the signature of `negative_beta_elbo`."""

    def __call__(
        self,
        model: CVAE,
        params: PyTree,
        x: Float[Array, "b H W C"],
        c: Int[Array, " b"],
        keys: Key[Array, " b"],
        hparams: Hparams,
        beta: Float[Array, ""],
    ) -> Terms:
        """Loss and terms per example."""
        ...


def warmed_up_beta(hparams: Hparams, step: Int[Array, ""]) -> Float[Array, ""]:
    """β of a step: rising linearly from 0 over `warmup_steps`, then constant.

    Args:
      hparams: `beta` and `warmup_steps` are read.
      step: number of updates made so far.

    Returns:
      Scalar, in [0, beta].

    References:
      Sønderby et al., Ladder Variational Autoencoders, 2016, section 3.
    """
    t = step.astype(jnp.float32)
    return hparams.beta * jnp.where(t < hparams.warmup_steps, t / jnp.maximum(hparams.warmup_steps, 1.0), 1.0)


def negative_beta_elbo(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    keys: Key[Array, " b"],
    hparams: Hparams,
    beta: Float[Array, ""],
) -> Terms:
    """The loss of a β-VAE, from one draw of z per example.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ N(0, I)),  z ~ q(z|x,c)

    Args:
      model: encoder, decoder and likelihood.
      params: the model's variables.
      x: data, shape (b, H, W, C).
      c: labels, shape (b,).
      keys: one key per example, shape (b,).
      hparams: `latent_mask` is read.
      beta: weight of the rate.

    Returns:
      Loss, distortion and rate per example, nats.

    References:
      Higgins et al., β-VAE, 2017; Sohn, Lee & Yan, 2015, equation 4.
    """
    q = encode(model, params, x, c, hparams.latent_mask)
    z = jax.vmap(reparameterize)(keys, q.mean, q.logvar)
    output = decode(model, params, z, c, hparams.latent_mask)
    log_likelihood = jax.vmap(model.likelihood.log_prob)(output, x)
    rate = jax.vmap(standard_normal_kl)(q.mean, q.logvar)
    return Terms(loss=-beta_elbo(log_likelihood, rate, beta), distortion=-log_likelihood, rate=rate)
