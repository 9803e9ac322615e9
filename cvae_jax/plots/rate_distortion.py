"""The rate–distortion plane as a Matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

matplotlib.use("Agg", force=False)

# Around the data, as a fraction of their range: room for the names of marks.
_MARGIN = 0.1
_MOST_LINES = 7
# Where the name of a mark can be, the best place first: points to the right and up from it.
_PLACES = ((5, 4), (5, -4), (-5, 4), (-5, -4), (0, 7), (0, -7), (9, 0), (-9, 0))
_MARK = 4.0
_OUTLINE = [withStroke(linewidth=1.5, foreground="white")]


class Point(NamedTuple):
    """A setting of a sweep in the rate–distortion plane.

    Attributes:
      beta, latent_dim: of its members; beta is None of an objective that has none.
      rate, distortion: of the test split, nats, means over seeds.
      rate_error, distortion_error: their standard errors; None with one seed.
    """

    beta: float | None
    latent_dim: int
    rate: float
    distortion: float
    rate_error: float | None = None
    distortion_error: float | None = None


def rate_distortion(
    points: Sequence[Point], members: Sequence[Mapping[str, Any]], *, title: str = "test split"
) -> Figure:
    """Distortion over rate: a point per setting, with error bars over seeds, and a curve per latent size.

    Args:
      points: the settings. A curve joins the means at each β.
      members: `latent_dim`, `test_rate` and `test_distortion` of each member; drawn as small points if there are more
        members than settings.
      title: above the figure.

    Returns:
      The figure, with β beside the curves where there is room, and lines of equal −ELBO.
    """
    figure = Figure(figsize=(7.5, 5.5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # It measures texts.
    axes = figure.add_subplot()
    axes.margins(_MARGIN)
    names: list[tuple[str, tuple[float, float], str]] = []
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
                [row["test_rate"] for row in each], [row["test_distortion"] for row in each],
                s=5, color=color, alpha=0.35, linewidths=0,
            )  # fmt: skip
        betas = sorted({p.beta for p in own}, key=lambda beta: beta or 0.0)
        means = [np.mean([(p.rate, p.distortion) for p in own if p.beta == beta], axis=0) for beta in betas]
        axes.plot(*np.array(means).T, color=color, linewidth=1, label=f"{latent_dim} latents")
        names += [
            (f"β {beta:.3g}", (float(x), float(y)), color)
            for beta, (x, y) in zip(betas, means, strict=True)
            if beta is not None
        ]
    axes.set_xlabel("rate: KL(q(z|x,c) ‖ p(z|c)), nats per example")
    axes.set_ylabel("distortion: −log p(x|z,c), nats per example")
    axes.set_title(f"{title}; dotted: equal −ELBO", fontsize=9)
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    # The data set the limits: lines are drawn within them.
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    figure.draw_without_rendering()
    marks = [(row["test_rate"], row["test_distortion"]) for row in members]
    marks += [(point.rate, point.distortion) for point in points]
    taken = [_around(axes, mark) for mark in marks]
    for text, point, color in names:
        _write(axes, text, point, taken, _PLACES, color=color, fontsize=7)
    for constant in iso_elbo(axes.get_xlim(), axes.get_ylim()):
        _draw_line(axes, constant, taken)
    return figure


def iso_elbo(rates: tuple[float, float], distortions: tuple[float, float]) -> list[float]:
    """Round values of −ELBO, rate + distortion, at equal distances across a part of the plane.

    Args:
      rates, distortions: the ends of both axes, nats.

    Example:
      >>> iso_elbo((0.0, 10.0), (80.0, 100.0))
      [85.0, 90.0, 95.0, 100.0, 105.0]
    """
    low, high = rates[0] + distortions[0], rates[1] + distortions[1]
    return [float(k) for k in MaxNLocator(_MOST_LINES).tick_values(low, high) if low < k < high]


def _draw_line(axes: Axes, constant: float, taken: list[Bbox]) -> None:
    """A line of equal −ELBO, named inside the axes at its upper end where there is room."""
    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    axes.plot(
        [left, right],
        [constant - left, constant - right],
        color="0.75",
        linewidth=0.7,
        linestyle=":",
        zorder=0,
    )
    start = max(left, constant - top)
    _write(
        axes, f"{constant:g}", (start, constant - start), taken, ((3, -4), (3, -9), (8, -14), (14, -4)),
        color="0.5", fontsize=6,
    )  # fmt: skip


def _around(axes: Axes, point: tuple[float, float]) -> Bbox:
    """The pixels that a mark takes."""
    x, y = axes.transData.transform(point)
    return Bbox.from_extents(x - _MARK, y - _MARK, x + _MARK, y + _MARK)


def _write(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    taken: list[Bbox],
    places: Sequence[tuple[int, int]],
    **style: Any,
) -> Annotation | None:
    """Write a text at the first place beside a point where it covers nothing, or nowhere.

    Args:
      axes: where.
      text: the text.
      point: in units of the data.
      taken: pixels that marks and other texts take; those of the text are added.
      places: points to the right and up from the point.
      **style: of the text.
    """
    for x, y in places:
        note = axes.annotate(
            text, point, xytext=(x, y), textcoords="offset points",
            ha="left" if x > 0 else "right" if x < 0 else "center",
            va="bottom" if y > 0 else "top" if y < 0 else "center",
            path_effects=_OUTLINE, **style,
        )  # fmt: skip
        note.set_in_layout(False)
        box = note.get_window_extent()
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        inside &= axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return note
        note.remove()
    return None
