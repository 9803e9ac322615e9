"""Grids of images as matplotlib figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

matplotlib.use("Agg", force=False)


def image_grid(
    images: Float[np.ndarray, "r n H W C"],
    *,
    title: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Figure:
    """A table of images.

    Args:
      images: rows of columns of images, shape (r, n, H, W, C), shown between 0 (black) and 1; C is 1, 3 or 4,
        of any other number the first is shown.
      title: above the table.
      row_labels: beside each row, r of them or none.
      column_labels: above each column, n of them or none.

    Returns:
      The figure; `figure.savefig(path)` writes it.
    """
    rows, columns, height, width, channels = images.shape
    if channels not in (1, 3, 4):
        images, channels = images[..., :1], 1
    cell = 0.62
    label_width = 0.16 + 0.085 * max((len(label) for label in row_labels), default=0)
    top = 0.42 + (0.22 if column_labels else 0.0)
    grid_width, grid_height = columns * cell, rows * cell * height / width
    total_width = max(label_width + grid_width + 0.1, 0.4 + 0.085 * len(title))
    figure = Figure(figsize=(total_width, top + grid_height + 0.1), dpi=150, facecolor="white")
    box = (
        label_width / total_width,
        0.1 / (top + grid_height + 0.1),
        grid_width / total_width,
        grid_height / (top + grid_height + 0.1),
    )
    axes = figure.add_axes(box)

    # One pixel of white between images.
    canvas = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), np.float32)
    for r in range(rows):
        for n in range(columns):
            y, x = r * (height + 1), n * (width + 1)
            canvas[y : y + height, x : x + width] = np.clip(images[r, n], 0.0, 1.0)
    axes.imshow(canvas.squeeze(-1) if channels == 1 else canvas, cmap="gray", vmin=0, vmax=1, aspect="auto",
                interpolation="nearest")  # fmt: skip
    axes.set_xticks(np.arange(columns) * (width + 1) + (width - 1) / 2 if column_labels else [],
                    column_labels, fontsize=7)  # fmt: skip
    axes.set_yticks(np.arange(rows) * (height + 1) + (height - 1) / 2 if row_labels else [],
                    row_labels, fontsize=8)  # fmt: skip
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    figure.text(0.1 / total_width, 1 - 0.1 / (top + grid_height + 0.1), title, va="top", fontsize=9)
    return figure
