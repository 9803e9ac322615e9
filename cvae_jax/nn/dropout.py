"""Dropout: one key per example and layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import struct

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key


@struct.dataclass
class Dropout:
    """The key and the rate with which an encoder or a decoder drops units.

    Attributes:
      key: of the masks of one step.
      rate: probability that a unit is dropped, 0 ≤ rate < 1.
    """

    key: Key[Array, ""]
    rate: Float[Array, ""]

    def of(self, part: int) -> Dropout:
        """The same rate with a key of its own for one part of the model."""
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, part))


def drop(h: Float[Array, "b *hw f"], dropout: Dropout | None, layer: int) -> Float[Array, "b *hw f"]:
    """Zero each unit with probability p and divide the others by 1 − p, so that the expectation stays.

    A unit of a feature map is a channel: neighbouring pixels are much alike and would replace a dropped one. Row i
    draws from `fold_in(fold_in(key, layer), i)`.

    Args:
      h: activations, shape (b, ..., f).
      dropout: None drops nothing.
      layer: number of the layer, a different one for each call with the same key.

    Returns:
      Shape and type of `h`; `h` itself, bit for bit, at a rate of 0.

    Example:
      >>> drop(jnp.ones((2, 3)), None, 0).tolist()
      [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]

    References:
      Srivastava et al., Dropout, 2014, section 4; Tompson et al., Efficient Object Localization Using Convolutional
      Networks, 2015, section 3.2 (whole channels).
    """
    if dropout is None:
        return h
    keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout.of(layer).key, jnp.arange(h.shape[0]))
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - dropout.rate, h.shape[-1:]))(keys)
    kept = jnp.expand_dims(kept, tuple(range(1, h.ndim - 1)))
    return jnp.where(kept, h / (1.0 - dropout.rate).astype(h.dtype), 0)
