"""The objective of FactorVAE: total correlation by a discriminator that trains in the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.draws import draw
from cvae_jax.hparams import Hparams
from cvae_jax.losses import beta_elbo
from cvae_jax.model import CVAE
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import FromLatents
from cvae_jax.objectives.terms import Terms
from cvae_jax.rng import Stream, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree

_LAYERS = 6
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Tells latents of the aggregate posterior from latents whose dependence was broken by permutation.

    Its logit estimates log q(z) − Σᵢ log q(zᵢ).

    Attributes:
      width: of its six layers.
    """

    width: int

    @nn.compact
    def __call__(self, z: Float[Array, "b z"], latent_mask: Bool[Array, " z"]) -> Float[Array, " b"]:
        """The logit of a batch of latents, shape (b,)."""
        h = FromLatents(self.width)(jnp.where(latent_mask, z, 0.0), latent_mask)
        for _ in range(_LAYERS - 1):
            h = Dense(self.width)(nn.leaky_relu(h, _SLOPE))
        return Dense(1)(nn.leaky_relu(h, _SLOPE))[:, 0]


def init_discriminator(model: CVAE, hparams: Hparams) -> PyTree:
    """The discriminator's parameters before the first step: the variables `discriminator` of a training."""
    key = stream(hparams.key, Stream.DISCRIMINATOR)
    z = jnp.zeros((1, model.capacity))
    return _discriminator(model).init(key, z, hparams.latent_mask)["params"]


def _discriminator(model: CVAE) -> Discriminator:
    return Discriminator(model.config.discriminator_width)


def permute_latents(key: Key[Array, ""], z: Float[Array, "b z"]) -> Float[Array, "b z"]:
    """Shuffle each latent over the batch by itself: a draw from the product of the batch's marginals.

    Args:
      key: latent i is shuffled by `fold_in(key, i)`.
      z: latents, shape (b, z).

    Returns:
      Shape (b, z), every column a permutation of its own.

    References:
      Kim & Mnih, Disentangling by Factorising, 2018, algorithm 1.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(z.shape[1]))
    return jax.vmap(jax.random.permutation, (0, 1), 1)(keys, z)


def density_ratio_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss of FactorVAE, whose gradient trains the discriminator, too.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ p(z)) + γ logit D(z)

    The discriminator sees z without its gradient and minimizes its cross entropy between z and permuted z, reported
    as the part `discriminator_loss`: log 2 for one that guesses. The logit is the part `total_correlation`. The
    value of `loss` is the autoencoder's alone; the permuted latents are those of the same batch, where the paper
    draws a second one.

    Args:
      model, x, c, keys: see `negative_beta_elbo`.
      params: the model's variables, and the discriminator's in `discriminator`.
      hparams: `beta`, `tc_weight` (γ), `latent_mask` and, for the permutation, `key` are read.

    Returns:
      Loss, distortion, rate and the two parts per example, nats.

    References:
      Kim & Mnih, Disentangling by Factorising, 2018, equation 2 and algorithm 2.
    """
    mask = hparams.latent_mask
    _, z, log_likelihood, rate = draw(model, params, x, c, keys, mask)

    def logit(weights: PyTree, z: Float[Array, "b z"]) -> Float[Array, " b"]:
        return cast("Array", _discriminator(model).apply({"params": weights}, z, mask))

    weights, fixed_z = params["discriminator"], jax.lax.stop_gradient(z)
    total_correlation = logit(jax.lax.stop_gradient(weights), z)
    permuted = permute_latents(hparams.key, fixed_z)
    cross_entropy = 0.5 * (
        jax.nn.softplus(-logit(weights, fixed_z)) + jax.nn.softplus(logit(weights, permuted))
    )
    loss = hparams.tc_weight * total_correlation - beta_elbo(log_likelihood, rate, hparams.beta)
    parts = {"total_correlation": total_correlation, "discriminator_loss": cross_entropy}
    gradient_alone = cross_entropy - jax.lax.stop_gradient(cross_entropy)
    return Terms(loss + gradient_alone, -log_likelihood, rate, parts)
