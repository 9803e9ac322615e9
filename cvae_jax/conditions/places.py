"""From the words of a text to a map of what it says of each place, as a decoder of images is told it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import FromLatents

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float

    from cvae_jax.nn.embedding import Words

# Added to the mean square of a map that is brought to a mean square of 1.
_LEAST_SQUARE = 1e-3
# Deviation of a stamp's parts, in positions of the map, which they stand apart.
_PART_WIDTH = 0.6
# Of the even grid of places.
SIDE = 5


class Places(nn.Module):
    """What a text says of each of its places: every word goes to places of its own choice.

    Where a word goes depends on what stands about it.

    Attributes:
      width: of what a place is told.
      heads: choices of places that each word has, for a part of what it says each.
    """

    width: int
    heads: int = 8
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, said: Words, leaning: Float[Array, "b n"] | None = None) -> Float[Array, "b p f"]:
        """Read a batch of texts, leaning towards some places, by how much for each of them and of the heads."""
        about, words, present = said
        each = self.width // self.heads
        places = self.param("places", nn.initializers.normal(1.0), (SIDE**2, self.width))
        query, key, value = (
            Dense(self.width, dtype=self.dtype)(a.astype(self.dtype)).reshape(*a.shape[:-1], self.heads, each)
            for a in (places, about, words)
        )
        scores = jnp.einsum("qhf,bkhf->bhkq", query, key).astype(jnp.float32) / math.sqrt(each)
        if leaning is not None:
            scores = scores + leaning.reshape(-1, self.heads, 1, SIDE**2)
        # Some words say what there is, others only where.
        drawn = nn.sigmoid(Dense(self.heads, dtype=self.dtype)(words)) * present[..., None].astype(self.dtype)
        chosen = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        told = jnp.einsum("bhkq,bkhf->bqhf", chosen, drawn[..., None] * value)
        return nn.silu(Dense(self.width, dtype=self.dtype)(told.reshape(-1, SIDE**2, self.width)))


class TextMap(nn.Module):
    """A map on which what each place is told is stamped, by one network for all places.

    What a text leaves open of where its words belong, z decides. Places are points of the map, at first on an even
    grid, which training moves. What training never saw at a place is drawn as elsewhere. The map's mean square is 1.

    Attributes:
      places: what tells them.
      grid: height and width of the map.
      span: positions of the map to a side of a stamp.
      channels: of a stamp.

    References:
      Eslami et al., Attend, Infer, Repeat: Fast Scene Understanding with Generative Models, 2016, section 2, of things
      drawn alike wherever they stand.
    """

    places: Places
    grid: tuple[int, int]
    span: int = 5
    channels: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, said: Words, z: Float[Array, "b z"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b h w f"]:
        """Stamp a batch of texts."""
        told = self.places(said, FromLatents(self.places.heads * SIDE**2)(z, latent_mask))
        stamps = Dense(self.span**2 * self.channels, dtype=self.dtype)(told)
        rows, columns = (
            self._reach(name, size) for name, size in zip(("rows", "columns"), self.grid, strict=True)
        )
        # One product over every part of every stamp: axis by axis it would be a fifth of the work, and slower.
        reach = jnp.einsum("pyi,qxj->yxpqij", rows, columns).reshape(*self.grid, -1)
        stamped = nn.silu(jnp.einsum("yxk,bkf->byxf", reach, stamps.reshape(len(told), -1, self.channels)))
        stamped = Dense(told.shape[-1], dtype=self.dtype)(stamped).astype(jnp.float32)
        # Left to grow, it would drown z in the decoder that is told of it.
        size = jnp.sqrt(jnp.mean(jnp.square(stamped), axis=(1, 2, 3), keepdims=True) + _LEAST_SQUARE)
        return (stamped / size).astype(self.dtype)

    def _reach(self, name: str, size: int) -> Float[Array, "p y i"]:
        """How much part i of a stamp at each place gives to each position along one axis."""
        even = (jnp.arange(SIDE, dtype=jnp.float32) + 0.5) * (size / SIDE) - 0.5
        middle = even + self.param(name, nn.initializers.zeros, (SIDE,))
        part = middle[:, None] + jnp.arange(self.span, dtype=jnp.float32) - 0.5 * (self.span - 1)
        away = jnp.arange(size, dtype=jnp.float32)[:, None] - part[:, None]
        return jnp.exp(-0.5 * jnp.square(away / _PART_WIDTH)).astype(self.dtype)
