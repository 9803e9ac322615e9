"""Gaussians over latents, and linear maps onto latents and from them that start the same whatever the capacity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.losses import gaussian_log_density
from cvae_jax.nn.dense import matmul

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


class Gaussian(NamedTuple):
    """A batch of diagonal Gaussians over latents.

    Attributes:
      mean: shape (b, z).
      logvar: logarithm of the variance, shape (b, z).
    """

    mean: Float[Array, "b z"]
    logvar: Float[Array, "b z"]


def masked(q: Gaussian, latent_mask: Bool[Array, " z"]) -> Gaussian:
    """The same Gaussians, but N(0, 1) in the latents that are not in use."""
    return Gaussian(jnp.where(latent_mask, q.mean, 0.0), jnp.where(latent_mask, q.logvar, 0.0))


def log_density(
    z: Float[Array, "*b z"],
    mean: Float[Array, "*b z"],
    logvar: Float[Array, "*b z"],
    latent_mask: Bool[Array, " z"],
) -> Float[Array, "*b"]:
    """log N(z; mean, e^logvar) over the latents in use.

    Args:
      z: latents, shape (z,), or (b, z) of a batch.
      mean: of the Gaussian of each z, shape (z,) or (b, z).
      logvar: logarithms of its variances, likewise.
      latent_mask: the latents in use, shape (z,).

    Returns:
      Scalar or shape (b,), nats.

    Example:
      >>> zeros, mask = jnp.zeros(3), jnp.array([True, True, False])
      >>> round(log_density(jnp.ones(3), zeros, zeros, mask).item(), 4)  # −1 − log 2π
      -2.8379
    """
    each = gaussian_log_density(mean, z, logvar)
    return jnp.sum(jnp.where(latent_mask, each, 0.0), axis=-1)


class ToLatents(nn.Module):
    """Two linear maps onto the latents, giving `mean` and `logvar`.

    Column i of the initial kernels depends on the key and i alone, so that latent i starts the same whatever
    the capacity.
    """

    capacity: int

    @nn.compact
    def __call__(self, h: Float[Array, "b f"]) -> Gaussian:
        """Map a batch of features, in float32."""
        fan_in = h.shape[-1]

        def kernel(key: Array) -> Array:
            return _per_latent_normal(key, self.capacity, fan_in).T / math.sqrt(fan_in)

        def head(name: str) -> Array:
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (self.capacity,))
            return matmul(h.astype(jnp.float32), self.param(f"{name}_kernel", kernel)) + bias

        return Gaussian(head("mean"), head("logvar"))


class FromLatents(nn.Module):
    """A linear map from the latents in use.

    Row i of the initial kernel depends on the key and i alone, scaled by the number of latents in use rather than
    by the capacity.
    """

    features: int

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], latent_mask: Bool[Array, " z"] | None = None
    ) -> Float[Array, "b f"]:
        """Map a batch of latents, in float32; without a mask all are in use."""
        in_use = jnp.ones(z.shape[-1], bool) if latent_mask is None else latent_mask

        def kernel(key: Array) -> Array:
            fan_in = jnp.sum(in_use, dtype=jnp.float32)
            return _per_latent_normal(key, z.shape[-1], self.features) * jax.lax.rsqrt(
                jnp.maximum(fan_in, 1.0)
            )

        h = matmul(z, self.param("kernel", kernel))
        return h + self.param("bias", nn.initializers.zeros, (self.features,))


def _per_latent_normal(key: Array, capacity: int, features: int) -> Float[Array, "z f"]:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(capacity))
    return jax.vmap(lambda k: jax.random.normal(k, (features,)))(keys)
