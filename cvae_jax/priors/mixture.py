"""A prior of several Gaussians that a network makes from the condition."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import ToLatents, masked
from cvae_jax.options import COUNT, static
from cvae_jax.priors.base import Prior, PriorContext
from cvae_jax.priors.gaussian_mixture import GaussianMixture, MixtureModule

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Mixture(Prior):
    """A mixture of Gaussians made from the condition: a mixture density network.

    For conditions that several very different x go with: one Gaussian would lie between them.

    References:
      Bishop, Mixture Density Networks, 1994.
    """

    mixture_parts: int = static(16, bounds=COUNT, help="Number of Gaussians in the mixture.")

    needs_condition: ClassVar[bool] = True

    def module(self, context: PriorContext) -> MixturePrior:
        """The flax module."""
        return MixturePrior(context.capacity, self.mixture_parts, dtype=context.dtype)


class MixturePrior(MixtureModule):
    """Two dense layers from the condition's embedding to K Gaussians and their weights.

    Attributes:
      capacity: number of latents there is room for.
      parts: K.
      width: of the dense layers.
      dtype: of the matrix products.

    References:
      Bishop, Mixture Density Networks, 1994, equations 22 to 26, with a variance for each latent.
    """

    capacity: int
    parts: int
    width: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]) -> GaussianMixture:
        """p(z|c) of a batch; latents that are not in use are N(0, 1)."""
        assert e is not None  # `Mixture` needs a condition.
        h = nn.silu(Dense(self.width, dtype=self.dtype)(e.astype(self.dtype)))
        h = nn.silu(Dense(self.width, dtype=self.dtype)(h))
        each = nn.vmap(
            ToLatents,
            in_axes=None,  # pyright: ignore[reportArgumentType]  every component reads the same h
            out_axes=1,
            axis_size=self.parts,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        parts = jax.vmap(masked, (0, None))(each(self.capacity, name="to_latents")(h), latent_mask)
        scores = Dense(self.parts, dtype=self.dtype)(h).astype(jnp.float32)
        return GaussianMixture(jax.nn.log_softmax(scores), parts)
