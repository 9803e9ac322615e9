"""The objective of FactorVAE: total correlation by a discriminator that trains in the same step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cvae_jax.draws import draw
from cvae_jax.losses import beta_elbo
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import FromLatents
from cvae_jax.objectives.base import STANDARD_PRIOR, Batch, Terms
from cvae_jax.objectives.elbo import Elbo
from cvae_jax.options import COUNT, POSITIVE, WEIGHT, static, traced
from cvae_jax.rng import Stream, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree

_LAYERS = 6
_SLOPE = 0.2


class Discriminator(nn.Module):
    """A classifier of latents of the aggregate posterior against latents permuted over the batch.

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


@dataclasses.dataclass(frozen=True)
class FactorVae(Elbo):
    """The loss of FactorVAE, whose gradient trains the discriminator, too.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ p(z)) + γ logit D(z)

    The discriminator receives z without its gradient and minimizes its cross entropy between z and permuted z, reported
    as the part `discriminator_loss`: log 2 for one that guesses. The logit is the part `total_correlation`. The
    value of `loss` is the autoencoder's alone; the permuted latents are those of the same batch, where the paper
    draws a second one.

    References:
      Kim & Mnih, Disentangling by Factorising, 2018, equation 2 and algorithm 2.
    """

    tc_weight: float = traced(10.0, bounds=WEIGHT, help="γ, the weight of the total correlation.")
    discriminator_learning_rate: float = traced(
        1e-4, bounds=POSITIVE, help="Learning rate of the discriminator's optimizer, Adam."
    )
    discriminator_width: int = static(
        1000, bounds=COUNT, help="Width of each of the discriminator's six layers."
    )
    part_names = ("total_correlation", "discriminator_loss")
    smallest_batch = 2
    needs_flat_latents = True
    needs = (STANDARD_PRIOR,)

    def init(self, model: Model, key: Key[Array, ""], latent_mask: Bool[Array, " z"]) -> dict[str, PyTree]:
        """The discriminator's parameters."""
        z = jnp.zeros((1, model.capacity))
        variables = Discriminator(self.discriminator_width).init(
            stream(key, Stream.DISCRIMINATOR), z, latent_mask
        )
        return {"discriminator": variables["params"]}

    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """The discriminator's, from appendix A of the paper."""
        adam, rate = optax.scale_by_adam(b1=0.5, b2=0.9), self.discriminator_learning_rate
        return {"discriminator": optax.chain(adam, optax.scale_by_learning_rate(rate))}

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion, rate and the two parts per example, nats."""
        mask = require_flat_latents(model, "FactorVAE").latent_mask(params)
        inference, log_likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)

        def logit(weights: PyTree, z: Float[Array, "b z"]) -> Float[Array, " b"]:
            return cast("Array", Discriminator(self.discriminator_width).apply({"params": weights}, z, mask))

        weights, fixed_z = params["discriminator"], jax.lax.stop_gradient(inference.z)
        total_correlation = logit(jax.lax.stop_gradient(weights), inference.z)
        permuted = permute_latents(batch.key, fixed_z)
        cross_entropy = 0.5 * (
            jax.nn.softplus(-logit(weights, fixed_z)) + jax.nn.softplus(logit(weights, permuted))
        )
        loss = self.tc_weight * total_correlation - beta_elbo(log_likelihood, rate, self.beta)
        parts = {"total_correlation": total_correlation, "discriminator_loss": cross_entropy}
        gradient_alone = cross_entropy - jax.lax.stop_gradient(cross_entropy)
        return Terms(loss + gradient_alone, -log_likelihood, rate, parts)
