"""Matplotlib figures of latents: their aggregate posterior, and posterior means by class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cvae_jax.plots.drawing import literal, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

matplotlib.use("Agg", force=False)

_LEGEND_ROWS = 25


def aggregate_posterior(
    shares: Float[np.ndarray, "l bins"], edges: Float[np.ndarray, " e"], *, titles: Sequence[str]
) -> Figure:
    """The aggregate posterior of each latent against the prior N(0, 1), a panel per latent.

    Args:
      shares: probability of each bin under the aggregate posterior, shape (l, e − 1).
      edges: of the bins, shape (e,).
      titles: above each panel, l of them.

    Returns:
      The figure.
    """
    columns = min(5, len(shares))
    rows = math.ceil(len(shares) / columns)
    figure = Figure(
        figsize=(max(1.9 * columns, 4.5), 1.45 * rows + 0.8), dpi=150, layout="constrained", facecolor="white"
    )
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    prior_at = np.linspace(edges[0], edges[-1], 201)
    prior = np.exp(-0.5 * prior_at**2) / math.sqrt(2 * math.pi)
    density = shares / np.diff(edges)
    for axes, heights, title in zip(panels, density, titles, strict=False):
        axes.stairs(heights, edges, fill=True, color="C0", alpha=0.55)
        axes.plot(prior_at, prior, color="0.15", linewidth=0.9)
        # A latent with a few narrow posteriors would make the prior look flat.
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, min(1.08 * max(heights.max(), prior.max()), 1.6)))
        axes.set_title(title, fontsize=8)
        axes.set_yticks([])
        axes.tick_params(labelsize=7, length=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in panels[len(shares) - columns : len(shares)]:
        axes.tick_params(labelbottom=True)  # the lowest of each column
    for axes in panels[len(shares) :]:
        axes.set_visible(False)
    figure.suptitle("z ~ q(z|x,c) over the test split (blue) against N(0, 1) (line)", fontsize=9)
    return figure


def scatter(
    projections: Sequence[tuple[str, Float[np.ndarray, "n 2"]]],
    c: Int[np.ndarray, " n"],
    *,
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Points by class, a panel per projection.

    Args:
      projections: title and points of each panel, shape (n, 2).
      c: labels, shape (n,).
      class_names: the name of each label.
      title: above the panels.

    Returns:
      The figure, with a legend of the classes that occur.
    """
    figure = Figure(
        figsize=(4.4 * len(projections) + 1.2, 4.6), dpi=150, layout="constrained", facecolor="white"
    )
    labels = np.unique(c)
    colors = _colors(len(class_names))
    # In random order, so that later classes do not hide earlier ones.
    order = np.random.default_rng(0).permutation(len(c))
    for axes, (name, points) in zip(
        np.atleast_1d(figure.subplots(1, len(projections))), projections, strict=True
    ):
        axes.scatter(
            *points[order].T,
            c=colors[c[order]],
            s=max(2.0, min(16.0, 16_000 / len(c))),
            alpha=0.75,
            linewidths=0,
        )
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.8")
    handles = [Line2D([], [], marker="o", linestyle="", markersize=5, color=tuple(colors[k])) for k in labels]
    figure.legend(
        handles, shown([class_names[int(k)] for k in labels]), loc="outside right center", frameon=False, fontsize=8,
        title="class", title_fontsize=8, ncols=math.ceil(len(labels) / _LEGEND_ROWS),
    )  # fmt: skip
    figure.suptitle(title, fontsize=10)
    return literal(figure)


def _colors(count: int) -> Float[np.ndarray, "k 4"]:
    """A colour per class: from a palette of distinct colours for up to 20 classes, else from a rainbow."""
    if count <= 20:
        return matplotlib.colormaps["tab10" if count <= 10 else "tab20"](np.arange(count))
    return matplotlib.colormaps["turbo"](np.linspace(0.0, 1.0, count))
