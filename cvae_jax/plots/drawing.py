"""Matplotlib figures: tables of images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from cvae_jax.errors import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jaxtyping import Float
    from matplotlib.axes import Axes

matplotlib.use("Agg", force=False)

# The width of an image in a table, inches, and the length of the longest column label that is drawn horizontally.
_CELL = 0.62
_LEVEL_LABEL = 9
# The most characters of a label, and the most pixels of a side of a figure.
_LONGEST = 80
_MOST_PIXELS = 30_000
# Of vectors drawn as lines: the rows of the picture, and the greys of line and paper.
_LINE_ROWS, _LINE, _PAPER = 32, 0.1, 0.93
_MOST_SLICES, _BETWEEN = 9, 0.5
# How many times longer than the other a side may be.
_MOST_OBLONG = 8


def literal(figure: Figure) -> Figure:
    """The figure, with all texts drawn literally: names of classes can contain characters of formulas."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
    return figure


def shown(texts: Sequence[str]) -> list[str]:
    """Texts as labels of a figure: short enough for it, without control characters."""
    return [shortened(printable(text), _LONGEST) for text in texts]


def pictures(
    x: Float[np.ndarray, "*any"], shape: tuple[int, ...], limits: tuple[float, float] = (0.0, 1.0)
) -> Float[np.ndarray, "... H W C"]:
    """Draw each example as an image: a vector as a line, a series as a heat map, a volume as slices side by side.

    Args:
      x: examples, shape (..., *shape).
      shape: of one of them, channels last.
      limits: the values drawn black and white; of a line, at the bottom and at the top.

    Returns:
      Shape (..., H, W, C), limits at 0 and 1.

    Example:
      >>> pictures(np.zeros((2, 5, 50, 1)), (50, 1)).shape, pictures(np.zeros((2, 4, 6, 6, 1)), (4, 6, 6, 1)).shape
      ((2, 5, 32, 50, 1), (2, 13, 13, 1))
    """
    low, high = limits
    x = (x - low) / max(high - low, 1e-12) if limits != (0.0, 1.0) else x
    leading = x.shape[: x.ndim - len(shape)]
    x = x.reshape(-1, *shape)
    match shape:
        case (_, 1):
            images = _lines(x[..., 0])
        case (_, _):
            images = x.swapaxes(1, 2)[..., None]
        case (_, _, _):
            images = x
        case _:
            images = _slices(x.reshape(len(x), -1, *shape[-3:]))
    images = _less_oblong(images)
    return images.reshape(*leading, *images.shape[1:])


def _lines(x: np.ndarray) -> np.ndarray:
    """Each vector, shape (n, d), as a dark line from left to right."""
    columns = min(max(x.shape[1], _LINE_ROWS), 3 * _LINE_ROWS)
    at = np.linspace(0, x.shape[1] - 1, 4 * columns + 1)
    left = np.floor(at).astype(int)
    right, part = np.minimum(left + 1, x.shape[1] - 1), at - left
    y = (1 - np.clip((1 - part) * x[:, left] + part * x[:, right], 0, 1)) * (_LINE_ROWS - 1)
    # Of each column the points between its edges, both among them.
    points = np.stack([y[:, i : i + 4 * columns : 4] for i in range(5)])
    first, last = points.min(axis=0)[:, None] - 0.5, points.max(axis=0)[:, None] + 0.5
    row = np.arange(_LINE_ROWS)[:, None]
    return np.where((row >= first) & (row <= last), _LINE, _PAPER).astype(np.float32)[..., None]


def _slices(x: np.ndarray) -> np.ndarray:
    """At most 9 slices of each volume, shape (n, depth, H, W, C), in rows with grey lines between."""
    depth = x.shape[1]
    x = x[:, np.linspace(0, depth - 1, min(depth, _MOST_SLICES)).round().astype(int)]
    across = math.ceil(math.sqrt(x.shape[1]))
    rows = math.ceil(x.shape[1] / across)
    table = np.ones((len(x), rows * across, *x.shape[2:]), np.float32)
    table[:, : x.shape[1]] = x
    table = table.reshape(len(x), rows, across, *x.shape[2:])
    table = np.pad(table, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=_BETWEEN)
    n, _, _, height, width, channels = table.shape
    table = table.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * height, across * width, channels)
    return table[:, :-1, :-1]


def _less_oblong(images: np.ndarray) -> np.ndarray:
    """Images whose shorter side is repeated where it is less than an eighth of the longer."""
    height, width = images.shape[1:3]
    for axis, ratio in ((1, width / height), (2, height / width)):
        if ratio > _MOST_OBLONG:
            images = images.repeat(math.ceil(ratio / _MOST_OBLONG), axis=axis)
    return images


def tile(
    images: Float[np.ndarray, "r n H W C"], *, breaks: Collection[int] = ()
) -> Float[np.ndarray, "y x C"]:
    """Join a table of images into one image, with one white pixel between them.

    Args:
      images: shape (r, n, H, W, C), clipped to [0, 1]; C is 1, 3 or 4; of any other number only the first channel.
      breaks: columns with a gap of W // 4 more white pixels before them.

    Returns:
      One image, shape (r (H + 1) − 1, n (W + 1) − 1, C) without breaks.
    """
    if images.shape[-1] not in (1, 3, 4):
        images = images[..., :1]
    rows, columns, height, width, channels = images.shape
    starts = _column_starts(columns, width, breaks)
    canvas = np.ones((rows * (height + 1) - 1, starts[-1] + width, channels), np.float32)
    for r in range(rows):
        for n, x in enumerate(starts):
            y = r * (height + 1)
            canvas[y : y + height, x : x + width] = np.clip(images[r, n], 0.0, 1.0)
    return canvas


def _column_starts(columns: int, width: int, breaks: Collection[int]) -> list[int]:
    """The first pixel of each column of a table of images."""
    return [n * (width + 1) + sum(at <= n for at in breaks) * (width // 4) for n in range(columns)]


def image_grid(
    images: Float[np.ndarray, "r n H W C"],
    *,
    title: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    breaks: Collection[int] = (),
) -> Figure:
    """A table of images.

    Args:
      images: shape (r, n, H, W, C), from 0 (black) to 1; C is 1, 3 or 4; of any other number only the first channel.
      title: above the table.
      row_labels: beside each row, r of them or none.
      column_labels: above each column, n of them or none.
      breaks: columns with a gap before them.

    Returns:
      The figure; `figure.savefig(path)` writes it.
    """
    rows, columns, height, width, _ = images.shape
    row_labels, column_labels, (title,) = shown(row_labels), shown(column_labels), shown([title])
    left, above = _label_widths(row_labels, column_labels)
    top = 0.42 + above
    starts = _column_starts(columns, width, breaks)
    grid_width, grid_height = (starts[-1] / (width + 1) + 1) * _CELL, rows * _CELL * height / width
    total_width = max(left + grid_width + 0.1, 0.4 + 0.085 * len(title))
    total_height = top + grid_height + 0.1
    figure = Figure(
        figsize=(total_width, total_height), dpi=_dots(150.0, total_width, total_height), facecolor="white"
    )
    axes = figure.add_axes(
        (left / total_width, 0.1 / total_height, grid_width / total_width, grid_height / total_height)
    )
    _draw_table(axes, images, row_labels, column_labels, breaks)
    figure.text(0.1 / total_width, 1 - 0.1 / total_height, title, va="top", fontsize=9)
    return literal(figure)


def image_blocks(
    blocks: Float[np.ndarray, "k r n H W C"],
    *,
    title: str,
    block_titles: Sequence[str],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Figure:
    """Several tables of images with the same labels of rows and columns, arranged to about a square.

    Args:
      blocks: k tables of images, shape (k, r, n, H, W, C), each drawn as by `image_grid`.
      title: above all tables.
      block_titles: above each table, k of them.
      row_labels: beside each row, r of them or none.
      column_labels: above each column, n of them or none.

    Returns:
      The figure.
    """
    count, rows, columns, height, width, _ = blocks.shape
    row_labels, column_labels, (title,) = shown(row_labels), shown(column_labels), shown([title])
    left, above = _label_widths(row_labels, column_labels)
    above += 0.25
    grid_width, grid_height = columns * _CELL, rows * _CELL * height / width
    block_width, block_height = left + grid_width + 0.15, above + grid_height + 0.1
    across = min(range(1, count + 1), key=lambda a: max(a * block_width, -(-count // a) * block_height))
    total_width, total_height = across * block_width, 0.35 + -(-count // across) * block_height
    figure = Figure(
        figsize=(total_width, total_height), dpi=_dots(100.0, total_width, total_height), facecolor="white"
    )
    for i, (images, block_title) in enumerate(zip(blocks, shown(block_titles), strict=True)):
        x = i % across * block_width + left
        y = total_height - 0.35 - (i // across + 1) * block_height + 0.1
        axes = figure.add_axes(
            (x / total_width, y / total_height, grid_width / total_width, grid_height / total_height)
        )
        _draw_table(axes, images, row_labels, column_labels)
        at = (y + grid_height + above - 0.05) / total_height
        figure.text(x / total_width, at, block_title, va="top", fontsize=9, fontweight="bold")
    figure.text(0.1 / total_width, 1 - 0.1 / total_height, title, va="top", fontsize=10)
    return literal(figure)


def _dots(wanted: float, width: float, height: float) -> float:
    """Dots per inch, fewer if a side would have more pixels than can be drawn."""
    return min(wanted, _MOST_PIXELS / max(width, height))


def _label_widths(row_labels: Sequence[str], column_labels: Sequence[str]) -> tuple[float, float]:
    """Width left of a table and height above it, for its labels, inches."""
    left = 0.16 + 0.085 * max((len(label) for label in row_labels), default=0)
    longest = max((len(label) for label in column_labels), default=0)
    above = 0.0 if not column_labels else 0.22 if longest <= _LEVEL_LABEL else 0.14 + 0.05 * longest
    return left, above


def _draw_table(
    axes: Axes,
    images: np.ndarray,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    breaks: Collection[int] = (),
) -> None:
    """Fill axes with a table of images; long column labels are rotated."""
    rows, columns, height, width, _ = images.shape
    canvas = tile(images, breaks=breaks)
    axes.imshow(canvas.squeeze(-1) if canvas.shape[-1] == 1 else canvas, cmap="gray", vmin=0, vmax=1, aspect="auto",
                interpolation="nearest")  # fmt: skip
    centers = np.array(_column_starts(columns, width, breaks)) + (width - 1) / 2
    axes.set_xticks(centers if column_labels else [], column_labels, fontsize=7)
    if any(len(label) > _LEVEL_LABEL for label in column_labels):
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(np.arange(rows) * (height + 1) + (height - 1) / 2 if row_labels else [],
                    row_labels, fontsize=8)  # fmt: skip
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
