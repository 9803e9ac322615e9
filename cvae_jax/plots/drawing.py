"""Grids of images as matplotlib figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from cvae_jax.errors import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from jaxtyping import Float
    from matplotlib.axes import Axes

matplotlib.use("Agg", force=False)

# Of a table of images: a cell's width, inches, and the longest label of a column that stands level.
_CELL = 0.62
_LEVEL_LABEL = 9
# Characters of a label, and pixels a side of a picture, at most.
_LONGEST = 80
_MOST_PIXELS = 30_000
# Of a rate–distortion picture, as a share of its width; of a label, of width and height.
_MARGIN = 0.1
_LABEL = np.array([0.04, 0.015])
# Of its lines, how many names there is room for along an edge.
_ISO_LABELS = 14


def literal(figure: Figure) -> Figure:
    """The figure, none of its texts read as formulas: names of classes and captions may hold any character."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
    return figure


def shown(texts: Sequence[str]) -> list[str]:
    """Texts of people as labels: short enough for a picture, without control characters."""
    return [shortened(printable(text), _LONGEST) for text in texts]


def tile(
    images: Float[np.ndarray, "r n H W C"], *, breaks: Collection[int] = ()
) -> Float[np.ndarray, "y x C"]:
    """Join a table of images, one pixel of white between them.

    Args:
      images: shape (r, n, H, W, C), clipped to [0, 1]; C is 1, 3 or 4, of any other number the first is taken.
      breaks: columns set apart from those before them, by W // 4 more pixels of white.

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
      images: rows of columns of images, shape (r, n, H, W, C), shown between 0 (black) and 1; C is 1, 3 or 4,
        of any other number the first is shown.
      title: above the table.
      row_labels: beside each row, r of them or none.
      column_labels: above each column, n of them or none.
      breaks: columns set apart from those before them.

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
        figsize=(total_width, total_height), dpi=_dots(150, total_width, total_height), facecolor="white"
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
    """Tables of images side by side, in about a square, that share the labels of their rows and columns.

    Args:
      blocks: k tables of images, shape (k, r, n, H, W, C), shown as `image_grid` shows one.
      title: above them all.
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
        figsize=(total_width, total_height), dpi=_dots(100, total_width, total_height), facecolor="white"
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
    """Dots per inch, fewer where a side would have more pixels than can be drawn."""
    return min(wanted, _MOST_PIXELS / max(width, height))


def _label_widths(row_labels: Sequence[str], column_labels: Sequence[str]) -> tuple[float, float]:
    """Room to the left of a table and above it, inches."""
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
    """Fill axes with a table of images; long labels of columns stand on a slant."""
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


def iso_elbo_lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[float], list[float], float]]:
    """Lines of equal −ELBO across a rate–distortion plane: rate + distortion = constant.

    Args:
      rows: members with `test_rate` and `test_distortion`, nats.

    Returns:
      For each line the rates and distortions of its two ends, and its constant, nats.
    """
    rates = np.array([row["test_rate"] for row in rows])
    bounds = rates + np.array([row["test_distortion"] for row in rows])
    margin = 1.5 * _MARGIN * float(np.ptp(rates)) + 0.1
    left, right = max(0.0, float(rates.min()) - margin), float(rates.max()) + margin
    # One member, or equal ones, have lines about them, too.
    more = max(0.0, 0.5 - 0.5 * float(np.ptp(bounds)))
    constants = MaxNLocator(nbins=6).tick_values(float(bounds.min()) - more, float(bounds.max()) + more)
    # Bounds that lie close together would crowd the lines' names along the edges.
    apart = float(max(np.ptp(rates), np.ptp(bounds - rates))) / _ISO_LABELS
    constants = constants[:: max(1, math.ceil(apart / float(constants[1] - constants[0])))]
    return [([left, right], [k - left, k - right], float(k)) for k in constants]


class Point(NamedTuple):
    """A setting of a sweep on the rate–distortion plane.

    Attributes:
      beta, latent_dim: of its members.
      rate, distortion: of the test split, nats, means over seeds.
      rate_error, distortion_error: their standard errors, None of one seed.
    """

    beta: float
    latent_dim: int
    rate: float
    distortion: float
    rate_error: float | None = None
    distortion_error: float | None = None


def rate_distortion(
    points: Sequence[Point], members: Sequence[Mapping[str, Any]], *, title: str = "test split"
) -> Figure:
    """Rate against distortion: a mark per setting, with error bars over seeds, and a curve per latent size.

    Args:
      points: the settings. A curve joins the means at each β.
      members: those behind the points, `latent_dim`, `test_rate` and `test_distortion` of each; where several make a
        point they are small marks beside it.
      title: above the picture.

    Returns:
      The figure, with β beside the curves and lines of equal −ELBO.
    """
    figure = Figure(figsize=(7.5, 5.5), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.margins(x=_MARGIN)  # room for the labels
    labels: list[tuple[str, np.ndarray, str]] = []
    for i, latent_dim in enumerate(sorted({point.latent_dim for point in points})):
        color = f"C{i % 10}"
        own = [point for point in points if point.latent_dim == latent_dim]
        axes.errorbar(
            [p.rate for p in own],
            [p.distortion for p in own],
            xerr=np.array([p.rate_error for p in own], float),
            yerr=np.array([p.distortion_error for p in own], float),
            fmt="o", markersize=4, color=color, alpha=0.7, elinewidth=1, capsize=2,
        )  # fmt: skip
        if len(members) > len(points):
            each = [row for row in members if row["latent_dim"] == latent_dim]
            axes.scatter(
                [row["test_rate"] for row in each],
                [row["test_distortion"] for row in each],
                s=5,
                color=color,
                alpha=0.35,
                linewidths=0,
            )
        betas = sorted({p.beta for p in own})
        means = [np.mean([(p.rate, p.distortion) for p in own if p.beta == beta], axis=0) for beta in betas]
        axes.plot(*np.array(means).T, color=color, label=f"{latent_dim} latents")
        labels += [(f"β {beta:.3g}", mean, color) for beta, mean in zip(betas, means, strict=True)]
    limits = axes.get_xlim(), axes.get_ylim()
    _write_labels(axes, labels, size=np.ptp(limits, axis=1))
    for x, y, bound in iso_elbo_lines(members):
        axes.plot(x, y, color="0.75", linewidth=0.7, linestyle=":", zorder=0)
        # Where the line meets the top or the left edge of the picture.
        (left, right), (_, top) = limits
        start = max(left, 0.0, bound - top)
        if start <= right and bound - start <= top:
            axes.annotate(f"{bound:g}", (start, bound - start), fontsize=6, color="0.5", xytext=(2, -7),
                          textcoords="offset points")  # fmt: skip
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set_xlabel("rate: KL(q(z|x,c) ‖ p(z|c)), nats per example")
    axes.set_ylabel("distortion: −log p(x|z,c), nats per example")
    axes.set_title(f"{title}; dotted: equal −ELBO", fontsize=9)
    axes.legend(frameon=False)
    return figure


def _write_labels(axes: Axes, labels: Sequence[tuple[str, np.ndarray, str]], *, size: np.ndarray) -> None:
    """Write texts beside their points, but none on top of one already written."""
    written: list[np.ndarray] = []
    for text, point, color in labels:
        if any((np.abs(point - other) < _LABEL * size).all() for other in written):
            continue
        written.append(point)
        axes.annotate(
            text, tuple(point), xytext=(5, 5), textcoords="offset points", fontsize=7, color=color,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
