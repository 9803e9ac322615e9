"""Pictures composed from handwritten digits: where each stands, how large it is, and its pixels on the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cvae_jax.data.dataset import Split
from cvae_jax.errors import DataError
from experiments.tasks.captions.arrangements import CELLS, CLASSES

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8

SIDE = 32
# Where small digits of the first, second and third cell of a row or column may lie: a pixel stays between them.
_ROOM = np.array([[0, 10], [11, 21], [22, SIDE]])
# The longer side of a digit's ink, from the least to the largest. Small digits keep inside their cells, and a large
# one reaches no cell two further, so that digits never overlap in any layout.
SMALL = (9, 10)
LARGE = (18, 19)
_JITTER = 1
# Fainter pixels are the margin of a scan, not ink.
_INK = 32
_CHUNK = 4_096


def ink_boxes(x: UInt8[np.ndarray, "n h w"]) -> Int[np.ndarray, "n 4"]:
    """First and past-the-last row, first and past-the-last column of each image's ink.

    Raises:
      DataError: if an image has none.

    Example:
      >>> image = np.zeros((1, 4, 4), np.uint8)
      >>> image[0, 1:3, 2] = 255
      >>> ink_boxes(image).tolist()
      [[1, 3, 2, 3]]
    """
    ink = x >= _INK
    if not ink.any(axis=(1, 2)).all():
        raise DataError(f"image {int(np.argmin(ink.any(axis=(1, 2))))} has no ink, expected a digit")

    def span(any_ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return any_ink.argmax(axis=1), any_ink.shape[1] - any_ink[:, ::-1].argmax(axis=1)

    rows, columns = (np.logical_or.reduce(ink, axis=axis) for axis in (2, 1))
    return np.stack([*span(rows), *span(columns)], axis=1)


def _starts(
    rng: np.random.Generator, cell: Int[np.ndarray, " n"], extent: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Where ink of an extent begins along one axis: about the middle of its cell, inside the cell if it fits."""
    fits = extent <= SMALL[1]
    low = np.where(fits, _ROOM[cell, 0], 0)
    high = np.where(fits, _ROOM[cell, 1], SIDE) - extent
    middle = (_ROOM[cell].sum(axis=1) - extent) // 2
    jitter = rng.integers(-_JITTER, _JITTER + 1, size=len(cell))
    return np.clip(np.clip(middle, low, high) + jitter, low, high)


def _spread(
    start: Int[np.ndarray, " n"],
    extent: Int[np.ndarray, " n"],
    first: Int[np.ndarray, " n"],
    last: Int[np.ndarray, " n"],
    size: int,
) -> Float[np.ndarray, "n 32 size"]:
    """How much each pixel of one axis of the scan gives to each of the canvas: area averaging as a matrix.

    The pixels from `first` to `last` of the scan go to `extent` pixels of the canvas from `start` on.
    """
    scale = ((last - first) / extent).astype(np.float32)[:, None, None]
    low = first[:, None, None] + (np.arange(SIDE)[None, :, None] - start[:, None, None]) * scale
    pixel = np.arange(size)[None, None, :]
    shared = np.minimum(low + scale, pixel + 1) - np.maximum(low, pixel)
    inside = (pixel >= first[:, None, None]) & (pixel < last[:, None, None])
    return (np.where(inside, np.maximum(shared, 0.0), 0.0) / scale).astype(np.float32)


def boxes(
    rng: np.random.Generator,
    cell: Int[np.ndarray, " n"],
    large: Int[np.ndarray, " n"],
    ink: Int[np.ndarray, "n 4"],
) -> Int[np.ndarray, "n 4"]:
    """Where each digit's ink goes: top, left, height and width on the canvas.

    Args:
      rng: draws sizes and jitter.
      cell: of each digit, 0 to 8.
      large: 1 where it is large, else 0.
      ink: of its scan, see `ink_boxes`; its proportions are kept.

    Returns:
      Whole pixels, shape (n, 4).
    """
    height, width = ink[:, 1] - ink[:, 0], ink[:, 3] - ink[:, 2]
    size = np.where(large, LARGE[0], SMALL[0]) + rng.integers(SMALL[1] - SMALL[0] + 1, size=len(cell))
    longest = np.maximum(height, width)
    height, width = (np.maximum(np.rint(side * size / longest), 1).astype(int) for side in (height, width))
    return np.stack([_starts(rng, cell // 3, height), _starts(rng, cell % 3, width), height, width], axis=1)


def compose(
    rng: np.random.Generator, grids: Int[np.ndarray, "n 18"], digits: Split
) -> UInt8[np.ndarray, "n 32 32 1"]:
    """Draw the pictures of grids, each digit from a scan of its own.

    Args:
      rng: draws scans, sizes and places within the cells.
      grids: see `arrangements.to_grid`.
      digits: the scans, uint8, one channel, and which digit each is.

    Returns:
      Pixels from 0 to 255; where digits touch, the brighter one.

    Raises:
      DataError: if a digit has no scan.
    """
    by_digit = [np.flatnonzero(digits.labels == digit) for digit in range(CLASSES)]
    for digit, rows in enumerate(by_digit):
        if not len(rows):
            raise DataError(f"no scan shows the digit {digit}, expected at least one of each")
    scene, cell = np.nonzero(grids[:, :CELLS])
    digit, large = grids[scene, cell] - 1, grids[scene, CELLS + cell] - 1
    at = rng.random(len(scene))
    rows = np.array([by_digit[d][int(a * len(by_digit[d]))] for d, a in zip(digit, at, strict=True)], int)
    x = np.zeros((len(grids), SIDE, SIDE), np.uint8)
    for first in range(0, len(scene), _CHUNK):
        part = slice(first, first + _CHUNK)
        scans = digits.x[rows[part], ..., 0]
        ink = ink_boxes(scans)
        box = boxes(rng, cell[part], large[part], ink)
        down = _spread(box[:, 0], box[:, 2], ink[:, 0], ink[:, 1], scans.shape[1])
        across = _spread(box[:, 1], box[:, 3], ink[:, 2], ink[:, 3], scans.shape[2])
        drawn = down @ scans.astype(np.float32) @ across.transpose(0, 2, 1)
        # Averaging greys thin strokes: the more, the more a digit shrinks.
        shrunk = np.maximum((ink[:, 1] - ink[:, 0]) / box[:, 2], 1.0)[:, None, None]
        np.maximum.at(x, scene[part], np.rint(np.minimum(drawn * np.sqrt(shrunk), 255.0)).astype(np.uint8))
    return x[..., None]
