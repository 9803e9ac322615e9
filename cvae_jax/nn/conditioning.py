"""How a condition enters the layers of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.nn.dense import Dense, matmul
from cvae_jax.nn.dropout import Dropout
from cvae_jax.nn.embedding import ByClass, Tokens, Words

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float


class Context(NamedTuple):
    """Conditioning inputs: what every layer of an encoder or decoder receives beside its input.

    Attributes:
      e: embedding of the condition, shape (b, e), or the table that it is made of, or None without one.
      maps: features of an image that is the condition, each of shape (b, h, w, f).
      words: of a text that is the condition.
      film: whether the condition scales each channel, too.
      log_beta: the β of a multi-rate model, a scalar or shape (b,), or None for any other model.
      latent_mask: the latents in use, shape (z,); None in an encoder.
      dropout: of a training step, None drops nothing.
      tokens: the parts of each condition that has parts, such as the words of a text.
    """

    e: Float[Array, "b e"] | ByClass | None
    maps: tuple[Float[Array, "b h w f"], ...] = ()
    words: Words | None = None
    film: bool = False
    log_beta: Float[Array, "*b"] | None = None
    latent_mask: Bool[Array, " z"] | None = None
    dropout: Dropout | None = None
    tokens: tuple[Tokens, ...] = ()


class AddCondition(nn.Module):
    """Add a term computed from the condition to each channel. In a multi-rate model, a gate of β scales each channel.

    Because the layers are linear, this equals concatenating the condition to the layer's input, but needs less memory.
    The same holds for a feature map of the same size. With `film` the condition scales each channel too.
    The gate is 2σ(w log β + v) per channel, 1 before training.

    References:
      Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, 2018, equation 2, of the scale.
      Bae et al., Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve, 2022, equation 5, of the gate.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, h: Float[Array, "b *hw f"], context: Context) -> Float[Array, "b *hw f"]:
        """Condition a batch of activations."""
        if context.e is not None:
            h = self._modulate(h, context.e, context, None, "scale")
        for i, features in enumerate(context.maps):
            if features.shape[1:3] == h.shape[1:-1]:
                h = self._modulate(h, features, context, f"map_{i}", f"map_{i}_scale")
        if context.log_beta is not None:
            slope = self.param("gate_slope", nn.initializers.zeros, (h.shape[-1],))
            shift = self.param("gate_shift", nn.initializers.zeros, (h.shape[-1],))
            gate = 2.0 * nn.sigmoid(context.log_beta.reshape(-1, 1) * slope + shift)
            h = h * gate.reshape(-1, *(1,) * (h.ndim - 2), h.shape[-1]).astype(self.dtype)
        return h

    def _modulate(
        self, h: Array, features: Array | ByClass, context: Context, term: str | None, scale: str
    ) -> Float[Array, "b *hw f"]:
        """Add a linear map of features, broadcast to every place; `term` and `scale` name the parameters."""

        def linear(name: str | None) -> Array:
            to_channels = Dense(h.shape[-1], use_bias=False, dtype=self.dtype, name=name)
            if isinstance(features, ByClass):
                # A term of each class first, for there are fewer classes than examples.
                mapped = matmul(features.weights.astype(self.dtype), to_channels(features.table))
            else:
                mapped = to_channels(features)
            return mapped.reshape(mapped.shape[0], *(1,) * (h.ndim - mapped.ndim), *mapped.shape[1:])

        scaled = h * (1.0 + linear(scale)) if context.film else h
        return scaled + linear(term)
