"""4×4 stride-2 convolutions, and their transposes, as matrix products.

`jax.lax` convolutions are slow inside `lax.scan` on CPU, and become grouped under `jax.vmap` over kernels; a
matrix product is neither. Parameters and values are those of flax's `nn.Conv(features, (4, 4), 2)` and
`nn.ConvTranspose(features, (4, 4), (2, 2))` with "SAME" padding: sizes go H → ⌈H/2⌉ and back, H → 2H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.errors import DataError
from cvae_jax.nn.dense import kernel_gradient
from cvae_jax.nn.linear_call import linear_call

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float, Key

MAX_CHANNELS = 128
# The least side of an image, and the most channels that an axis is taken for unless it is said to hold channels.
LEAST_SIDE = 4
MOST_COLOURS = 4
Shape = tuple[int, int, int]


def pyramid(shape: Shape) -> list[Shape]:
    """Height, width and channels of the image and of each convolutional stage above it.

    Each stage halves both sides and quadruples the channels up to 128, down to sides of at most 8, twice at least.

    Example:
      >>> pyramid((28, 28, 1))
      [(28, 28, 1), (14, 14, 16), (7, 7, 64)]
    """
    stages = max(2, math.ceil(math.log2(min(shape[:2]) / 8)))
    sizes = [shape]
    for i in range(stages):
        height, width, _ = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2), min(4 ** (i + 2), MAX_CHANNELS)))
    return sizes


def require_image(shape: tuple[int, ...], what: str) -> Shape:
    """Refuse a shape that is not (H, W, C) with at least 4 pixels a side.

    Args:
      shape: of one x, channels last.
      what: needs images, to end the message.

    Raises:
      DataError: naming the shape and, where that is likely the cause, the order of its axes.

    Example:
      >>> require_image((8, 8, 3), "the network conv")
      (8, 8, 3)
    """
    if len(shape) == 3 and min(shape[:2]) >= LEAST_SIDE:
        height, width, channels = shape
        return height, width, channels
    given = shape[:-1] if shape[-1] == 1 else shape
    hint = ""
    if len(given) == 3 and given[0] <= MOST_COLOURS:
        hint = "; if channels come first, move them last: x.transpose(0, 2, 3, 1)"
    elif len(given) == 3:
        hint = "; if the last axis holds channels, say so: channels_last=True"
    raise DataError(
        f"x has shape (n, {', '.join(map(str, given))}), expected images of shape (n, H, W) or (n, H, W, C), at "
        f"least {LEAST_SIDE} pixels a side, with {what}{hint}"
    )


def _initial_kernel(key: Key[Array, ""], shape: tuple[int, int, int, int]) -> Float[Array, "4 4 i o"]:
    """flax's initial values, drawn as a matrix: XLA compiles that several times faster than four axes."""
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.lecun_normal()(key, matrix).reshape(shape)


def patches(x: Float[Array, "b H W c"]) -> Float[Array, "b (H+1)//2 (W+1)//2 16*c"]:
    """The 4×4 windows of an image at stride 2, under "SAME" padding, flattened as (row, column, channel)."""
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    rows, columns = height + height % 2, width + width % 2
    taps = [x[:, i : i + rows : 2, j : j + columns : 2] for i in range(4) for j in range(4)]
    return jnp.concatenate(taps, axis=-1)


def overlap_add(p: Float[Array, "b h w taps"]) -> Float[Array, "b 2*h 2*w taps//16"]:
    """Add 4×4 windows into an image at stride 2: the linear transpose of `patches`.

    A window covers 2×2 blocks of 2×2 pixels. Summed blockwise first, each pixel is written once.
    """
    batch, height, width, taps = p.shape
    channels = taps // 16
    p = p.reshape(batch, height, width, 2, 2, 2, 2, channels)  # block row, row, block column, column

    def block(a: int, b: int) -> Array:
        return jnp.pad(p[:, :, :, a, :, b], ((0, 0), (a, 1 - a), (b, 1 - b), (0, 0), (0, 0), (0, 0)))

    blocks = block(0, 0) + block(0, 1) + block(1, 0) + block(1, 1)
    image = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height + 2, 2 * width + 2, channels)
    return image[:, 1:-1, 1:-1]


# The derivatives below are what autodiff finds, but share one patch matrix: left alone, XLA makes the patches a second
# time, transposed, for the kernel's gradient.


@jax.custom_jvp
def convolve(
    x: Float[Array, "b H W i"], kernel: Float[Array, "16*i o"]
) -> Float[Array, "b (H+1)//2 (W+1)//2 o"]:
    """Convolve with 4×4 kernels at stride 2: one matrix product over the patches."""
    return patches(x) @ kernel


@convolve.defjvp
def _convolve_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, kernel = primals
    of_x, of_kernel = tangents
    p = jax.lax.optimization_barrier(patches(x))
    height, width = x.shape[1:3]
    of_p = linear_call(patches, lambda g: overlap_add(g)[:, :height, :width], argument=of_x)
    return p @ kernel, of_p @ kernel + linear_call(jnp.matmul, kernel_gradient, p, argument=of_kernel)


@jax.custom_jvp
def convolve_transpose(
    x: Float[Array, "b h w i"], kernel: Float[Array, "taps i"]
) -> Float[Array, "b 2*h 2*w taps//16"]:
    """Spread every pixel over a 4×4 window at stride 2: one matrix product, then an overlap-add."""
    return overlap_add(x @ kernel.T)


@convolve_transpose.defjvp
def _convolve_transpose_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    x, kernel = primals
    of_x, of_kernel = tangents

    def times(x: Array, kernel: Array) -> Array:
        return x @ kernel.T

    of_p = of_x @ kernel.T + linear_call(times, lambda x, g: kernel_gradient(g, x), x, argument=of_kernel)
    of_y = linear_call(overlap_add, lambda g: jax.lax.optimization_barrier(patches(g)), argument=of_p)
    return convolve_transpose(x, kernel), of_y


class Downsample(nn.Module):
    """`nn.Conv(features, (4, 4), 2)`: halves height and width.

    Attributes:
      features: output channels.
      dtype: of the matrix product.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b H W i"]) -> Float[Array, "b (H+1)//2 (W+1)//2 o"]:
        """Convolve a batch of images."""
        kernel = self.param("kernel", _initial_kernel, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = kernel.reshape(-1, self.features).astype(self.dtype)
        return convolve(x.astype(self.dtype), kernel) + bias.astype(self.dtype)


class Upsample(nn.Module):
    """`nn.ConvTranspose(features, (4, 4), (2, 2))`: doubles height and width.

    Attributes:
      features: output channels.
      dtype: of the matrix product.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        """Convolve a batch of images, transposed."""
        kernel = self.param("kernel", _initial_kernel, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Pixel i reaches pixel 2i + 2 − t through tap t: the window runs against the kernel.
        window = kernel[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, x.shape[-1]).astype(self.dtype)
        return convolve_transpose(x.astype(self.dtype), window) + bias.astype(self.dtype)
