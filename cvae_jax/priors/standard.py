"""The standard normal prior."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp

from cvae_jax.losses import standard_normal_kl_per_latent
from cvae_jax.nn.latent import Gaussian, log_density
from cvae_jax.priors.base import Prior, PriorContext, PriorModule

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Standard(Prior):
    """N(0, I), the same for every condition."""

    reads_condition: ClassVar[bool] = False
    standard: ClassVar[bool] = True

    def module(self, context: PriorContext) -> StandardPrior:
        """The flax module, without parameters."""
        return StandardPrior()


class StandardPrior(PriorModule):
    """N(0, I), the same for every condition."""

    def log_prob(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """log p(z) of one z per condition, nats."""
        zeros = jnp.zeros_like(z)
        return log_density(z, zeros, zeros, latent_mask)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The noise itself."""
        return noise

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z itself."""
        return z

    def kl(
        self,
        q: Gaussian,
        z: Float[Array, "b z"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
    ) -> Float[Array, "b z"]:
        """KL(q ‖ p) per latent in closed form, nats."""
        return jax.vmap(standard_normal_kl_per_latent)(q.mean, q.logvar)
