"""The objectives of DIP-VAE: the covariance of the inferred latents is drawn towards the identity."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp

from cvae_jax.draws import draw
from cvae_jax.losses import beta_elbo, bounded_exp
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives.base import STANDARD_PRIOR, Batch, Terms
from cvae_jax.objectives.elbo import Elbo
from cvae_jax.options import WEIGHT, traced

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, PyTree


# Variances beyond e³⁰ grow linearly with their logarithm, so that their squares stay finite.
_MOST_LOGVAR = 30.0


def latent_covariance(q: Gaussian, *, of_aggregate: bool) -> Float[Array, "z z"]:
    """Covariance of the posterior means over a batch, or of the aggregate posterior.

    Cov[mean], or by the law of total variance Cov[z] = Cov[mean] + E[diag(exp(logvar))].

    Args:
      q: the posteriors of a batch, shapes (b, z).
      of_aggregate: whether the posteriors' own variance counts.

    Returns:
      Shape (z, z); moments divide by b.
    """
    centred = q.mean - jnp.mean(q.mean, axis=0)
    covariance = centred.T @ centred / q.mean.shape[0]
    return (
        covariance + jnp.diag(jnp.mean(bounded_exp(q.logvar, _MOST_LOGVAR), axis=0))
        if of_aggregate
        else covariance
    )


def covariance_penalty(
    covariance: Float[Array, "z z"],
    latent_mask: Bool[Array, " z"],
    *,
    off_diagonal: Float[Array, ""] | float,
    diagonal: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """Squared distance of a covariance to the identity, over the latents in use.

    λ_od Σ_{i≠j} Cᵢⱼ² + λ_d Σᵢ (Cᵢᵢ − 1)²

    Args:
      covariance: C, shape (z, z).
      latent_mask: the latents in use, shape (z,).
      off_diagonal: λ_od.
      diagonal: λ_d.

    Returns:
      Scalar, added to a loss in nats per example.

    Example:
      >>> c = jnp.array([[3.0, 0.5], [0.5, 1.0]])
      >>> covariance_penalty(c, jnp.ones(2, bool), off_diagonal=10.0, diagonal=1.0).item()
      9.0
      >>> covariance_penalty(c, jnp.array([True, False]), off_diagonal=10.0, diagonal=1.0).item()
      4.0

    References:
      Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
      Observations, 2018, equations 6 and 7.
    """
    own = jnp.eye(covariance.shape[0], dtype=bool)
    weights = jnp.where(own, diagonal, off_diagonal)
    squares = weights * jnp.square(covariance - own.astype(covariance.dtype))
    return jnp.sum(jnp.where(latent_mask[:, None] & latent_mask, squares, 0.0))


class _MomentMatching(Elbo):
    """The β-VAE's loss, and a penalty on the latents' covariance over the batch.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ p(z)) + λ_od Σ_{i≠j} Cᵢⱼ² + λ_d Σᵢ (Cᵢᵢ − 1)²

    Attributes:
      of_aggregate: whether C is the covariance of the aggregate posterior, else that of the posterior means.
    """

    of_aggregate: ClassVar[bool]
    part_names = ("penalty",)
    smallest_batch = 2
    needs_flat_latents = True
    needs = (STANDARD_PRIOR,)
    dip_off_diagonal: float
    dip_diagonal: float

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion, rate and the part `penalty`, the same for all examples, nats."""
        inference, log_likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)
        assert inference.q is not None
        penalty = covariance_penalty(
            latent_covariance(inference.q, of_aggregate=self.of_aggregate),
            require_flat_latents(model, "DIP-VAE").latent_mask(params),
            off_diagonal=self.dip_off_diagonal,
            diagonal=self.dip_diagonal,
        )
        loss = penalty - beta_elbo(log_likelihood, rate, self.beta)
        return Terms(loss, -log_likelihood, rate, {"penalty": jnp.broadcast_to(penalty, loss.shape)})


_OFF_DIAGONAL = "λ_od, the weight of the squared covariances."
_DIAGONAL = "λ_d, the weight of the variances' squared distance to 1."


@dataclasses.dataclass(frozen=True)
class DipVaeI(_MomentMatching):
    """The loss of DIP-VAE-I, of the covariance of the posterior means.

    References:
      Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
      Observations, 2018, equation 6.
    """

    dip_off_diagonal: float = traced(10.0, bounds=WEIGHT, help=_OFF_DIAGONAL)
    dip_diagonal: float = traced(10.0, bounds=WEIGHT, help=_DIAGONAL)
    of_aggregate = False


@dataclasses.dataclass(frozen=True)
class DipVaeII(_MomentMatching):
    """The loss of DIP-VAE-II, of the covariance of the aggregate posterior.

    References:
      Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
      Observations, 2018, equation 7.
    """

    dip_off_diagonal: float = traced(10.0, bounds=WEIGHT, help=_OFF_DIAGONAL)
    dip_diagonal: float = traced(10.0, bounds=WEIGHT, help=_DIAGONAL)
    of_aggregate = True
