"""Squares, ellipses and hearts drawn from factors: ground truth for disentanglement, downloaded from nowhere."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Dataset, Split

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, UInt8

SHAPES = ("square", "ellipse", "heart")
FACTORS = ("shape", "scale", "orientation", "x", "y")
# Values of each factor, as many as in dSprites.
COUNTS = (len(SHAPES), 6, 40, 32, 32)

# Of the largest shapes, in sides of the image: they stay inside it wherever their centre lies.
_SQUARE = 0.17
_ELLIPSE = (0.24, 0.12)
_HEART = 0.185
_HEART_CENTRE = 0.293  # of gravity, in units of _HEART above the curve's origin

_SPLITS = {"train": 50_000, "validation": 5_000, "test": 10_000}
_SEED = 0
_CHUNK = 1_000


def draw(
    shape: Int[Array, ""],
    scale: Float[Array, ""],
    orientation: Float[Array, ""],
    x: Float[Array, ""],
    y: Float[Array, ""],
    *,
    size: int,
) -> UInt8[Array, "size size 1"]:
    """Draw one shape: a pixel is 1 where its centre lies inside.

    Args:
      shape: index into `SHAPES`.
      scale: 1 is the largest that `render` draws.
      orientation: counterclockwise, radians.
      x: of the centre, from 0 at the left edge to 1 at the right one.
      y: of the centre, from 0 at the upper edge to 1 at the lower one.
      size: pixels a side.

    Returns:
      Pixels 0 and 1, shape (size, size, 1), uint8.
    """
    at = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    right, up = at[None, :] - x, y - at[:, None]
    cos, sin = jnp.cos(orientation) / scale, jnp.sin(orientation) / scale
    u, v = cos * right + sin * up, cos * up - sin * right
    p, q = u / _HEART, v / _HEART + _HEART_CENTRE
    inside = jax.lax.select_n(
        shape,
        jnp.maximum(jnp.abs(u), jnp.abs(v)) <= _SQUARE,
        jnp.square(u / _ELLIPSE[0]) + jnp.square(v / _ELLIPSE[1]) <= 1.0,
        (p**2 + q**2 - 1.0) ** 3 <= p**2 * q**3,
    )
    return inside[..., None].astype(jnp.uint8)


def render(factors: Int[Array, " 5"], *, size: int) -> UInt8[Array, "size size 1"]:
    """Draw the image of one example; `jax.vmap` it over many.

    Scales run from 0.5 to 1, orientations over the whole turn, and the centre over the middle half of the image, by
    1/64 of its side each.

    Args:
      factors: indices from 0 to `COUNTS` − 1 in the order of `FACTORS`, shape (5,), integer.
      size: pixels a side.

    Returns:
      Pixels 0 and 1, shape (size, size, 1), uint8.

    Example:
      >>> image = render(jnp.array([0, 0, 0, 31, 0]), size=8)  # a small square, up on the right
      >>> image[:4, 4:, 0].tolist()
      [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]

    References:
      Matthey, Higgins, Hassabis & Lerchner, dSprites: disentanglement testing sprites dataset, 2017.
    """
    shape, scale, orientation, x, y = factors
    return draw(
        shape,
        0.5 + 0.5 * scale.astype(jnp.float32) / (COUNTS[1] - 1),
        2.0 * jnp.pi * orientation.astype(jnp.float32) / COUNTS[2],
        0.25 + (x.astype(jnp.float32) + 0.5) / (2 * COUNTS[3]),
        0.25 + (y.astype(jnp.float32) + 0.5) / (2 * COUNTS[4]),
        size=size,
    )


def sample_factors(key: Key[Array, ""], n: int) -> Int[Array, "n 5"]:
    """Factors of `n` examples, independent and uniform, shape (n, 5), int32."""
    return jax.random.randint(key, (n, len(COUNTS)), 0, jnp.array(COUNTS))


@partial(jax.jit, static_argnames="size")
def _render_all(factors: Int[Array, "n 5"], *, size: int) -> UInt8[Array, "n size size 1"]:
    return jax.lax.map(partial(render, size=size), factors, batch_size=_CHUNK)


def shapes(size: int) -> Dataset:
    """65,000 of the 737,280 combinations of factors, each once; the label is the shape.

    Args:
      size: pixels a side.

    Returns:
      50,000 training, 5,000 validation and 10,000 test examples, always the same, with their factors.
    """
    total = sum(_SPLITS.values())
    rows = np.random.default_rng(_SEED).choice(math.prod(COUNTS), total, replace=False)
    factors = np.stack(np.unravel_index(rows, COUNTS), axis=1).astype(np.int32)
    x = np.asarray(_render_all(jnp.asarray(factors), size=size))
    splits, first = {}, 0
    for name, n in _SPLITS.items():
        part = slice(first, first + n)
        splits[name] = Split(x[part], factors[part, 0], factors[part])
        first += n
    condition = Label(len(SHAPES))
    return Dataset(
        f"shapes{size}", x_max=1.0, condition=condition, names=SHAPES, factor_names=FACTORS, **splits
    )
