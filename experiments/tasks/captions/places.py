"""From the words of a text to a feature map: every word goes to places of the image that it is about."""

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

# Added to the mean square of a map that is normalized to a mean square of 1.
_LEAST_SQUARE = 1e-3
# Standard deviation of a stamp's parts, in positions of the map; neighbouring parts have a distance of one position.
_PART_WIDTH = 0.6
# Places a side, on an even grid.
SIDE = 5


class Places(nn.Module):
    """Features of each place, by attention of the places to the words of a text.

    Keys are made of a word's context, values of the word itself.

    Attributes:
      width: features of a place.
      heads: of the attention; each gives a part of the features.
    """

    width: int
    heads: int = 8
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, text: Words, shift: Float[Array, "b n"] | None = None) -> Float[Array, "b p f"]:
        """Features of a batch of texts.

        Args:
          text: the words, b texts.
          shift: added to the attention's scores, one number for each head and place, shape (b, heads * places).

        Returns:
          Shape (b, places, width).
        """
        about, words, present = text
        each = self.width // self.heads
        places = self.param("places", nn.initializers.normal(1.0), (SIDE**2, self.width))
        query, key, value = (
            Dense(self.width, dtype=self.dtype)(a.astype(self.dtype)).reshape(*a.shape[:-1], self.heads, each)
            for a in (places, about, words)
        )
        scores = jnp.einsum("qhf,bkhf->bhkq", query, key).astype(jnp.float32) / math.sqrt(each)
        if shift is not None:
            scores = scores + shift.reshape(-1, self.heads, 1, SIDE**2)
        # Some words name a thing, others only its place: those have a gate near 0.
        gate = nn.sigmoid(Dense(self.heads, dtype=self.dtype)(words)) * present[..., None].astype(self.dtype)
        chosen = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        received = jnp.einsum("bhkq,bkhf->bqhf", chosen, gate[..., None] * value)
        return nn.silu(Dense(self.width, dtype=self.dtype)(received.reshape(-1, SIDE**2, self.width)))


class TextMap(nn.Module):
    """A map on which the features of each place are stamped, by one network for all places.

    Where the text does not determine a word's place, z does, by a shift of the scores. Places are points of the map, at
    first on an even grid, which training moves. All places share the network, so that a word is drawn alike at a place
    at which training never had it. The map's mean square is 1.

    Attributes:
      places: the features of each place.
      grid: height and width of the map.
      span: positions of the map to a side of a stamp.
      channels: of a stamp.

    References:
      Eslami et al., Attend, Infer, Repeat: Fast Scene Understanding with Generative Models, 2016, section 2, of objects
      drawn alike at every place.
    """

    places: Places
    grid: tuple[int, int]
    span: int = 5
    channels: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, text: Words, z: Float[Array, "b z"], latent_mask: Bool[Array, " z"] | None = None
    ) -> Float[Array, "b h w f"]:
        """The maps of a batch of texts."""
        features = self.places(text, FromLatents(self.places.heads * SIDE**2)(z, latent_mask))
        stamps = Dense(self.span**2 * self.channels, dtype=self.dtype)(features)
        rows, columns = (
            self._reach(name, size) for name, size in zip(("rows", "columns"), self.grid, strict=True)
        )
        # One product over every part of every stamp: axis by axis it would be a fifth of the work, and slower.
        reach = jnp.einsum("pyi,qxj->yxpqij", rows, columns).reshape(*self.grid, -1)
        stamped = nn.silu(
            jnp.einsum("yxk,bkf->byxf", reach, stamps.reshape(len(features), -1, self.channels))
        )
        stamped = Dense(features.shape[-1], dtype=self.dtype)(stamped).astype(jnp.float32)
        # Without a bound it would grow until z no longer counts beside it in the decoder.
        size = jnp.sqrt(jnp.mean(jnp.square(stamped), axis=(1, 2, 3), keepdims=True) + _LEAST_SQUARE)
        return (stamped / size).astype(self.dtype)

    def _reach(self, name: str, size: int) -> Float[Array, "p y i"]:
        """How much part i of a stamp at each place gives to each position along one axis."""
        even = (jnp.arange(SIDE, dtype=jnp.float32) + 0.5) * (size / SIDE) - 0.5
        middle = even + self.param(name, nn.initializers.zeros, (SIDE,))
        part = middle[:, None] + jnp.arange(self.span, dtype=jnp.float32) - 0.5 * (self.span - 1)
        away = jnp.arange(size, dtype=jnp.float32)[:, None] - part[:, None]
        return jnp.exp(-0.5 * jnp.square(away / _PART_WIDTH)).astype(self.dtype)
