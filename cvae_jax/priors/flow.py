"""A prior that is a normalizing flow."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import FromLatents, ToLatents, log_density
from cvae_jax.priors.base import Prior, PriorContext, PriorModule

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float

# Of a coupling's log-scale: no layer stretches a latent more than e-fold.
_MOST_LOG_SCALE = 1.0


@dataclasses.dataclass(frozen=True)
class Flow(Prior):
    """A normalizing flow of affine couplings, which read the condition if there is one.

    References:
      Dinh, Sohl-Dickstein & Bengio, Density Estimation Using Real NVP, 2017.
    """

    def module(self, context: PriorContext) -> FlowPrior:
        """The flax module."""
        return FlowPrior(context.capacity, dtype=context.dtype)


class Coupling(nn.Module):
    """Shift and log-scale of every latent, from some of the latents and the condition.

    Attributes:
      capacity: number of latents there is room for.
      width: of the dense layers.
      dtype: of the matrix products.
    """

    capacity: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, kept: Bool[Array, " z"]
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Read the latents that the layer keeps, for a batch."""
        h = FromLatents(self.width)(jnp.where(kept, z, 0.0), kept)
        if e is not None:
            h = h + Dense(self.width, use_bias=False, dtype=self.dtype)(e.astype(self.dtype))
        h = nn.silu(Dense(self.width, dtype=self.dtype)(nn.silu(h.astype(self.dtype))))
        shift, log_scale = ToLatents(self.capacity, name="to_latents")(h)
        return shift, _MOST_LOG_SCALE * jnp.tanh(log_scale)


class FlowPrior(PriorModule):
    """Affine couplings between z and standard normal noise.

    Layer i keeps the latents of the parity of i and moves the others by a shift and a scale that it computes from the
    kept ones: both directions cost the same.

    Attributes:
      capacity: number of latents there is room for.
      layers: number of couplings.
      width: of their dense layers.
      dtype: of the matrix products.

    References:
      Dinh, Sohl-Dickstein & Bengio, Density Estimation Using Real NVP, 2017, equations 7 and 8.
    """

    capacity: int
    layers: int = 4
    width: int = 128
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Build the couplings."""
        self.couplings = [Coupling(self.capacity, self.width, self.dtype) for _ in range(self.layers)]

    def _parts(
        self, layer: int, latent_mask: Bool[Array, " z"]
    ) -> tuple[Bool[Array, " z"], Bool[Array, " z"]]:
        kept = latent_mask & (jnp.arange(self.capacity) % 2 == layer % 2)
        return kept, latent_mask & ~kept

    def _invert(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> tuple[Float[Array, "b z"], Float[Array, " b"]]:
        """The noise that z is made of, and the log-determinant of the map to it."""
        noise, log_det = z, jnp.zeros(z.shape[0])
        for layer, coupling in enumerate(self.couplings):
            kept, moved = self._parts(layer, latent_mask)
            shift, log_scale = coupling(noise, e, kept)
            noise = jnp.where(moved, (noise - shift) * jnp.exp(-log_scale), noise)
            log_det = log_det - jnp.sum(jnp.where(moved, log_scale, 0.0), axis=1)
        return noise, log_det

    def log_prob(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """log p(z|c) of one z per condition, nats."""
        noise, log_det = self._invert(z, e, latent_mask)
        zeros = jnp.zeros_like(z)
        return log_density(noise, zeros, zeros, latent_mask) + log_det

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The noise through all couplings."""
        z = noise
        for layer, coupling in reversed(list(enumerate(self.couplings))):
            kept, moved = self._parts(layer, latent_mask)
            shift, log_scale = coupling(z, e, kept)
            z = jnp.where(moved, z * jnp.exp(log_scale) + shift, z)
        return z

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`."""
        return self._invert(z, e, latent_mask)[0]
