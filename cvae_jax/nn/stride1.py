"""k×k stride-1 convolutions as matrix products.

`jax.lax` convolutions are slow inside `lax.scan` on CPU, and become grouped under `jax.vmap` over kernels. Here the k×k
windows of some images at a time are written side by side, few enough to stay in the cache of the processor. One matrix
product multiplies them with the kernel. Parameters and values are those of flax's `nn.Conv(features, (k, k))`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.nn.linear_call import linear_call

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float

# Bytes of the windows that are made at a time.
_CACHED = 2**21


def windows(x: Float[Array, "b H W i"], size: int) -> Float[Array, "b H W taps"]:
    """The size×size neighbourhood of each pixel, flattened as (row, column, channel); zeros beyond the border."""
    _, height, width, _ = x.shape
    before, after = (size - 1) // 2, size // 2
    x = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    taps = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    return jnp.concatenate(taps, axis=-1)


def _chunks(x: Float[Array, "b H W c"], taps: int) -> int:
    """How many equal parts of a batch to go through, so that the windows of each stay in the cache."""
    batch, height, width, channels = x.shape
    most = max(1, _CACHED // (height * width * taps * channels * x.dtype.itemsize))
    return next(n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= most)


def _in_parts(x: Float[Array, "b H W c"], parts: int) -> Float[Array, "parts n H W c"]:
    return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])


def _forward(x: Float[Array, "b H W i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "b H W o"]:
    """The convolution, some images at a time."""
    size, outer = kernel.shape[0], kernel.shape[3]
    matrix = kernel.reshape(-1, outer)

    def one(part: Array) -> Array:
        return jax.lax.optimization_barrier(windows(part, size)) @ matrix

    parts = _chunks(x, size * size)
    if parts == 1:
        return one(x)
    return jax.lax.map(one, _in_parts(x, parts)).reshape(*x.shape[:3], outer)


def _backward(
    x: Float[Array, "b H W i"], kernel: Float[Array, "k k i o"], g: Float[Array, "b H W o"]
) -> tuple[Float[Array, "b H W i"], Float[Array, "k k i o"]]:
    """The gradients of x and of the kernel, from the windows of the output's gradient g."""
    size, _, inner, outer = kernel.shape
    # A pixel of x reaches the window's place t through tap k − 1 − t.
    matrix = kernel[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, inner)

    def one(sums: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        x, g = part
        w = jax.lax.optimization_barrier(windows(g, size))
        return sums + jnp.einsum("bhwi,bhwt->it", x, w), w @ matrix

    parts = _chunks(g, size * size)
    sums = jnp.zeros((inner, size * size * outer), x.dtype)
    if parts == 1:
        sums, of_x = one(sums, (x, g))
    else:
        sums, of_x = jax.lax.scan(one, sums, (_in_parts(x, parts), _in_parts(g, parts)))
    of_kernel = sums.reshape(inner, size, size, outer)[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    return of_x.reshape(x.shape), of_kernel


@jax.custom_jvp
def convolve(x: Float[Array, "b H W i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "b H W o"]:
    """Convolve with k×k kernels under "SAME" padding: one output per pixel.

    Raises:
      ValueError: if k is even; its windows are not centred, and the gradients here would be wrong.
    """
    if kernel.shape[0] % 2 == 0:
        raise ValueError(f"the kernel has shape {kernel.shape}, expected an odd number of rows and columns")
    return _forward(x, kernel)


@convolve.defjvp
def _convolve_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    def tangent(x: Array, kernel: Array, of_both: tuple[Array, Array]) -> Array:
        of_x, of_kernel = of_both
        return _forward(of_x, kernel) + _forward(x, of_kernel)

    return _forward(*primals), linear_call(tangent, _backward, *primals, argument=tuple(tangents))


class Convolution(nn.Module):
    """`nn.Conv(features, (size, size))`: each pixel from the window around it.

    Attributes:
      features: output channels.
      size: of the window, odd.
      initializer: of the kernel.
      dtype: of the matrix product.
    """

    features: int
    size: int = 3
    initializer: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b H W i"]) -> Float[Array, "b H W o"]:
        """Convolve a batch of images."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        # Drawn as a matrix: XLA compiles that several times faster than four axes.
        kernel = self.param(
            "kernel", lambda key: self.initializer(key, (math.prod(shape[:3]), shape[3])).reshape(shape)
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)
