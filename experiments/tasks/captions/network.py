"""The network for captioned scenes: convolutions whose decoder starts from a map of the caption's words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp

from cvae_jax.conditions import Condition, Text
from cvae_jax.conditions.text import TextEncoder
from cvae_jax.errors import SettingError
from cvae_jax.networks import Network
from cvae_jax.networks.base import Modules
from cvae_jax.networks.conv import ConvDecoder, ConvEncoder
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.conv import Shape, pyramid, require_image
from cvae_jax.nn.latent import FromLatents
from experiments.tasks.captions.places import Places, TextMap

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class CaptionConv(Network):
    """Convolutions for images of which a text names what is where.

    The words go to the same places in the text's embedding and in the decoder's map, see `places`. The decoder receives
    the map and z, but not the embedding: of a whole caption at once it would learn to draw only captions of training.
    """

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse anything but images.

        Raises:
          DataError: naming the shape.
        """
        require_image(shape, "the network of captions")

    def modules(
        self,
        shape: tuple[int, ...],
        output: tuple[int, ...],
        condition: Condition | None,
        copies: int,
        dtype: DTypeLike,
    ) -> Modules:
        """The text encoders and both bodies.

        Raises:
          SettingError: if the condition is no text.
        """
        if not isinstance(condition, Text):
            found = "none" if condition is None else condition.name
            raise SettingError(f"condition is {found!r}, expected text with the network of captions")
        # Names of their own: parameters start the same whatever shares them.
        places = [Places(TextEncoder.width, dtype=dtype, name=f"places_{i}") for i in range(copies)]
        encoders = tuple(TextEncoder(condition.length, reader=each, dtype=dtype) for each in places)
        size = require_image(output, "the network of captions")
        grid = pyramid(size)[-1][:2]
        text_map = TextMap(places[min(1, copies - 1)], grid, dtype=dtype, name="text_map")
        decoder = CaptionDecoder(size, dtype, text_map=text_map)
        return Modules(ConvEncoder(dtype), decoder, encoders, shared=(*places, text_map))


class CaptionDecoder(ConvDecoder):
    """A `ConvDecoder` of z, the same at every position of its first map, and of the map of the words.

    Attributes:
      text_map: makes the map of the words and z.
    """

    text_map: TextMap = dataclasses.field(kw_only=True)

    def __call__(self, z: Float[Array, "b z"], context: Context) -> Float[Array, "b H W C"]:
        """Parameters of p(x|z,c) for a batch of latents."""
        assert context.words is not None
        words = self.text_map(context.words, z, context.latent_mask)
        return super().__call__(z, context._replace(e=None, maps=(*context.maps, words)))

    def first_map(self, z: Float[Array, "b z"], context: Context, shape: Shape) -> Float[Array, "b h w f"]:
        """z, the same at every position: the words alone say what is where."""
        h = FromLatents(shape[-1])(z, context.latent_mask).astype(self.dtype)
        return jnp.broadcast_to(h[:, None, None], (len(h), *shape))
