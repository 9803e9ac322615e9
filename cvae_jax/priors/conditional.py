"""A Gaussian prior that a network makes from the condition."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.losses import gaussian_kl_per_latent, standard_deviation
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import Gaussian, ToLatents, log_density, masked
from cvae_jax.priors.base import Prior, PriorContext, PriorModule

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Conditional(Prior):
    """A diagonal Gaussian whose mean and variances are made from the condition.

    References:
      Sohn, Lee & Yan, Learning Structured Output Representation Using Deep Conditional Generative Models, 2015,
      section 4.1.
    """

    needs_condition: ClassVar[bool] = True
    gaussian: ClassVar[bool] = True

    def module(self, context: PriorContext) -> ConditionalPrior:
        """The flax module."""
        return ConditionalPrior(context.capacity, dtype=context.dtype)


class ConditionalPrior(PriorModule):
    """Two dense layers from the condition's embedding to a Gaussian p(z|c).

    Attributes:
      capacity: number of latents there is room for.
      width: of the dense layers.
      dtype: of the matrix products.
    """

    capacity: int
    width: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]) -> Gaussian:
        """p(z|c) of a batch; latents that are not in use are N(0, 1)."""
        assert e is not None  # `Conditional` needs a condition.
        h = nn.silu(Dense(self.width, dtype=self.dtype)(e.astype(self.dtype)))
        h = nn.silu(Dense(self.width, dtype=self.dtype)(h))
        return masked(ToLatents(self.capacity, name="to_latents")(h), latent_mask)

    def log_prob(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """log p(z|c) of one z per condition, nats."""
        return log_density(z, *self(e, latent_mask), latent_mask)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The mean of p(z|c) and its standard deviation times the noise."""
        mean, logvar = self(e, latent_mask)
        return mean + standard_deviation(logvar) * noise

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`: z in standard deviations from the mean of p(z|c)."""
        mean, logvar = self(e, latent_mask)
        return (z - mean) * standard_deviation(-logvar)

    def kl(
        self,
        q: Gaussian,
        z: Float[Array, "b z"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
    ) -> Float[Array, "b z"]:
        """KL(q ‖ p) per latent in closed form, nats."""
        return jax.vmap(gaussian_kl_per_latent)(*q, *self(e, latent_mask))
