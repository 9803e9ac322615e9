"""The objective of β-TCVAE: the KL as three terms, each with a weight of its own."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from cvae_jax.draws import draw
from cvae_jax.losses import gaussian_log_density
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives.base import STANDARD_PRIOR, Batch, Objective, Terms
from cvae_jax.options import WEIGHT, static, traced

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, PyTree


class KLParts(NamedTuple):
    """Three terms whose mean over the data is KL(q(z|x,c) ‖ p(z)), per example.

    Attributes:
      mutual_information: log q(z|x,c) − log q(z), shape (b,), nats.
      total_correlation: log q(z) − Σᵢ log q(zᵢ), shape (b,), nats.
      marginal_kl: Σᵢ log q(zᵢ) − log p(zᵢ), shape (b,), nats.
    """

    mutual_information: Float[Array, " b"]
    total_correlation: Float[Array, " b"]
    marginal_kl: Float[Array, " b"]


def log_batch_weights(batch_size: int, num_examples: int, *, stratified: bool) -> Float[Array, "b b"]:
    """Logarithms of the weights that estimate q(z) from the posteriors of a batch.

    q(zᵢ) ≈ Σⱼ wᵢⱼ q(zᵢ|xⱼ,cⱼ), where zᵢ was drawn from the posterior of example i.

    Minibatch-weighted: wᵢⱼ = 1/(BN), which is biased. Stratified, with M = B − 1: 1/N for j = i, (N − M)/(NM) for
    one other j, and 1/M for the rest, which is an unbiased estimate of q(zᵢ) given that i is in the batch; its
    rows sum to 1.

    Args:
      batch_size: B, ≥ 2.
      num_examples: N, of the training split, ≥ B.
      stratified: which of the two.

    Returns:
      Shape (B, B).

    Example:
      >>> weights = jnp.exp(log_batch_weights(3, 10, stratified=True))
      >>> [round(float(w), 3) for w in weights[0]]
      [0.1, 0.4, 0.5]

    References:
      Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, appendix C.
    """
    if not stratified:
        return jnp.full((batch_size, batch_size), -math.log(batch_size * num_examples))
    others = batch_size - 1
    own = jnp.eye(batch_size, dtype=bool)
    next_one = jnp.roll(own, 1, axis=1)
    one_other = math.log((num_examples - others) / (num_examples * others))
    rest = jnp.where(next_one, one_other, -math.log(others))
    return jnp.where(own, -math.log(num_examples), rest)


def decompose_kl(
    z: Float[Array, "b z"], q: Gaussian, log_weights: Float[Array, "b b"], latent_mask: Bool[Array, " z"]
) -> KLParts:
    """Split log q(z|x,c) − log p(z) into three terms, with q(z) estimated from the batch.

    Args:
      z: one draw from each posterior, shape (b, z).
      q: the posteriors, shapes (b, z).
      log_weights: see `log_batch_weights`.
      latent_mask: the latents in use, shape (z,); the others count for nothing.

    Returns:
      Three terms per example, nats, that sum to log q(z|x,c) − log p(z).

    References:
      Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, equation 2.
    """

    def log_density(z: Array, mean: Array, logvar: Array) -> Array:
        return jnp.where(latent_mask, gaussian_log_density(mean, z, logvar), 0.0)

    own = jnp.sum(log_density(z, q.mean, q.logvar), axis=1)
    prior = jnp.sum(log_density(z, jnp.zeros_like(z), jnp.zeros_like(z)), axis=1)
    pairs = jax.vmap(log_density, (0, None, None))(z, q.mean, q.logvar)  # (draw, posterior, latent)
    joint = jax.nn.logsumexp(log_weights + jnp.sum(pairs, axis=2), axis=1)
    each = jax.nn.logsumexp(log_weights[:, :, None] + pairs, axis=1)
    marginals = jnp.sum(jnp.where(latent_mask, each, 0.0), axis=1)
    return KLParts(own - joint, joint - marginals, marginals - prior)


@dataclasses.dataclass(frozen=True)
class TotalCorrelation(Objective):
    """The loss of β-TCVAE, which weighs the dependence between latents and their information separately.

    loss = −log p(x|z,c) + α (log q(z|x,c) − log q(z)) + β (log q(z) − Σᵢ log q(zᵢ)) + γ (Σᵢ log q(zᵢ) − log p(zᵢ))

    The three terms are reported as `mutual_information`, `total_correlation` and `marginal_kl`; the rate stays the
    KL in closed form.

    References:
      Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, equation 4.
    """

    beta: float = traced(1.0, bounds=WEIGHT, help="Weight of the total correlation.")
    mi_weight: float = traced(1.0, bounds=WEIGHT, help="α, the weight of the mutual information.")
    marginal_weight: float = traced(1.0, bounds=WEIGHT, help="γ, the weight of the KL of the marginals.")
    stratified: bool = static(
        True, help="Estimate q(z) by minibatch stratified sampling, else by minibatch weighted sampling."
    )
    part_names = ("mutual_information", "total_correlation", "marginal_kl")
    smallest_batch = 2
    needs_flat_latents = True
    needs = (STANDARD_PRIOR,)

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion, rate and the three terms per example, nats."""
        inference, log_likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)
        assert inference.q is not None
        weights = log_batch_weights(batch.x.shape[0], batch.num_examples, stratified=self.stratified)
        latent_mask = require_flat_latents(model, "β-TCVAE").latent_mask(params)
        parts = decompose_kl(inference.z, inference.q, weights, latent_mask)
        loss = (
            self.mi_weight * parts.mutual_information
            + self.beta * parts.total_correlation
            + self.marginal_weight * parts.marginal_kl
            - log_likelihood
        )
        return Terms(loss, -log_likelihood, rate, parts._asdict())
