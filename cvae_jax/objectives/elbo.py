"""The evidence lower bound with a weight of the KL, and losses that change how the KL counts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp

from cvae_jax.draws import draw
from cvae_jax.losses import beta_elbo
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.objectives.base import STANDARD_PRIOR, Batch, Objective, Terms
from cvae_jax.options import WEIGHT, traced

if TYPE_CHECKING:
    from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class Elbo(Objective):
    """The loss of a β-VAE, from one draw of z per example.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ p(z|c)),  z ~ q(z|x,c)

    References:
      Higgins et al., β-VAE, 2017; Sohn, Lee & Yan, 2015, equation 4.
    """

    beta: float = traced(
        1.0, bounds=WEIGHT, help="Weight of the KL, in a loss summed over pixels and latents."
    )

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion and rate per example, nats."""
        _, log_likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)
        return Terms(-beta_elbo(log_likelihood, rate, self.beta), -log_likelihood, rate)


@dataclasses.dataclass(frozen=True)
class FreeBits(Elbo):
    """The loss of a β-VAE in which a latent costs nothing up to a floor of its batch-mean KL.

    loss = −log p(x|z,c) + β Σᵢ max(λ, E_batch[KLᵢ])

    The rate stays the true KL: the floor is part of the loss alone.

    References:
      Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, equation 15.
    """

    free_bits: float = traced(0.0, bounds=WEIGHT, help="λ, nats of KL per latent that cost nothing.")
    needs_flat_latents = True
    needs = (STANDARD_PRIOR,)

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion and rate per example, nats."""
        inference, log_likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)
        mask = require_flat_latents(model, "free bits").latent_mask(params)
        counts = mask & (jnp.mean(inference.kl, axis=0) > self.free_bits)
        floor = jnp.where(mask, self.free_bits, 0.0)
        paid = jnp.sum(jnp.where(counts, inference.kl, floor), axis=1)
        return Terms(-beta_elbo(log_likelihood, paid, self.beta), -log_likelihood, rate)


@dataclasses.dataclass(frozen=True)
class Capacity(Objective):
    """The loss that holds the batch-mean KL at a target, which a warm-up raises.

    loss = −log p(x|z,c) + β |E_batch[KL] − C|

    References:
      Burgess et al., Understanding Disentangling in β-VAE, 2018, equation 8, there γ for β.
    """

    beta: float = traced(1.0, bounds=WEIGHT, help="Weight of the KL's distance to its target.")
    kl_target: float = traced(
        0.0, bounds=WEIGHT, help="C, the target of the KL at the end of training, nats."
    )
    annealed = "kl_target"

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion and rate per example, nats."""
        _, log_likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)
        distance = jnp.abs(jnp.mean(rate) - self.kl_target)
        return Terms(self.beta * distance - log_likelihood, -log_likelihood, rate)
