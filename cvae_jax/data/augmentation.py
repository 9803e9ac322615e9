"""Augmentation of training images, on the device: pure functions of one image and its key.

The strengths are mild, for centred images such as digits: a shift of at most 1/12 of the shorter side, to the nearest
pixel and of at least one; a rotation of at most 15°; a size from 1/1.1 to 1.1; a flip of every other image; and a
square of a quarter of the shorter side cut out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

# Their order is part of every result: each draws from its own number. Append only.
AUGMENTATIONS = ("shift", "rotate", "scale", "flip", "cutout")

SHIFT = 1 / 12
DEGREES = 15.0
FACTOR = 1.1
CUTOUT = 1 / 4


def augment(key: Key[Array, ""], x: Float[Array, "H W C"], names: tuple[str, ...]) -> Float[Array, "H W C"]:
    """Augment one image.

    Rotation and scaling come first, as one resampling, then shift, flip and cutout, whatever the order of the names.
    Each draws from a key of its own, so that it does not depend on which others there are.

    Args:
      key: the image's.
      x: pixels, shape (H, W, C), floating.
      names: of `AUGMENTATIONS`, in any order.

    Returns:
      Shape (H, W, C), between the smallest and largest of the image's pixels and 0.

    Example:
      >>> x = jnp.arange(8.0).reshape(2, 4, 1)
      >>> augment(jax.random.key(1), x, ("flip",))[..., 0].tolist()
      [[3.0, 2.0, 1.0, 0.0], [7.0, 6.0, 5.0, 4.0]]
    """
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(AUGMENTATIONS)}
    side = min(x.shape[:2])
    if "rotate" in names or "scale" in names:
        matrix = jnp.eye(2)
        if "rotate" in names:
            matrix = random_rotation(keys["rotate"], degrees=DEGREES)
        if "scale" in names:
            matrix = matrix @ random_scaling(keys["scale"], factor=FACTOR)
        x = resample(x, matrix)
    if "shift" in names:
        x = shift(keys["shift"], x, pixels=max(1, round(SHIFT * side)))
    if "flip" in names:
        x = flip(keys["flip"], x)
    if "cutout" in names:
        x = cutout(keys["cutout"], x, side=max(1, round(CUTOUT * side)))
    return x


def rotation(degrees: Float[Array, ""] | float) -> Float[Array, "2 2"]:
    """The matrix for `resample` that turns an image counterclockwise."""
    angle = jnp.deg2rad(jnp.float32(degrees))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])


def random_rotation(key: Key[Array, ""], *, degrees: float) -> Float[Array, "2 2"]:
    """`rotation` by an angle uniform from −degrees to degrees."""
    return rotation(jax.random.uniform(key, minval=-degrees, maxval=degrees))


def random_scaling(key: Key[Array, ""], *, factor: float) -> Float[Array, "2 2"]:
    """The matrix for `resample` that enlarges by a factor whose logarithm is uniform from −log factor to log factor."""
    bound = jnp.log(jnp.float32(factor))
    return jnp.eye(2) * jnp.exp(jax.random.uniform(key, minval=-bound, maxval=bound))


def resample(x: Float[Array, "H W C"], matrix: Float[Array, "2 2"]) -> Float[Array, "H W C"]:
    """The image seen through a linear map about its centre, by bilinear interpolation.

    y(p) = x(A (p − centre) + centre), x = 0 outside

    Args:
      x: shape (H, W, C).
      matrix: A, of (row, column), shape (2, 2).

    Returns:
      y, shape (H, W, C).
    """
    height, width, channels = x.shape
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2
    row = matrix[0, 0] * rows + matrix[0, 1] * columns + (height - 1) / 2
    column = matrix[1, 0] * rows + matrix[1, 1] * columns + (width - 1) / 2
    # One line of zeros before the image and two behind it stand for all that is outside.
    row, column = jnp.clip(row, -1, height) + 1, jnp.clip(column, -1, width) + 1
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    padded = jnp.pad(x, ((1, 2), (1, 2), (0, 0))).reshape(-1, channels)
    first = top.astype(jnp.int32) * (width + 3) + left.astype(jnp.int32)

    def line(start: Array) -> Array:
        return (1 - right) * padded[start] + right * padded[start + 1]

    return (1 - down) * line(first) + down * line(first + width + 3)


def shift(key: Key[Array, ""], x: Float[Array, "H W C"], *, pixels: int) -> Float[Array, "H W C"]:
    """Move by whole pixels, each way uniform from −pixels to pixels; zeros move in."""
    padded = jnp.pad(x, ((pixels, pixels), (pixels, pixels), (0, 0)))
    row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), x.shape)


def flip(key: Key[Array, ""], x: Float[Array, "H W C"]) -> Float[Array, "H W C"]:
    """Mirror left to right with probability ½."""
    return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def cutout(key: Key[Array, ""], x: Float[Array, "H W C"], *, side: int) -> Float[Array, "H W C"]:
    """Zero a square whose centre is uniform over the image: part of it may lie outside.

    Args:
      key: of the centre.
      x: shape (H, W, C).
      side: of the square, pixels.

    Returns:
      Shape (H, W, C).

    References:
      DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017, section 3.
    """
    height, width, _ = x.shape
    of_row, of_column = jax.random.split(key)
    row = jax.random.randint(of_row, (), 0, height) - side // 2
    column = jax.random.randint(of_column, (), 0, width) - side // 2
    inside_rows = (jnp.arange(height) >= row) & (jnp.arange(height) < row + side)
    inside_columns = (jnp.arange(width) >= column) & (jnp.arange(width) < column + side)
    return jnp.where((inside_rows[:, None] & inside_columns)[..., None], 0.0, x)
