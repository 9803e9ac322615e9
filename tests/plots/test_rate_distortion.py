"""The rate–distortion figure: texts cover nothing, and the axes fit the data."""

import numpy as np
import pytest
from matplotlib.text import Annotation

from cvae_jax.plots.rate_distortion import Point, iso_elbo, rate_distortion


def a_sweep(betas, latent_dims, spread):
    """Settings along curves, and their members: two seeds each."""
    rng, points, members = np.random.default_rng(0), [], []
    for latent_dim in latent_dims:
        for beta in betas:
            rate, distortion = latent_dim / (1 + beta), 90 + 5 * beta - latent_dim
            points.append(Point(beta, latent_dim, rate, distortion, spread, spread))
            for _ in range(2):
                noise = rng.normal(0, spread, 2)
                found = {"test_rate": rate + noise[0], "test_distortion": distortion + noise[1]}
                members.append({"latent_dim": latent_dim, **found})
    return points, members


@pytest.mark.parametrize(
    ("betas", "latent_dims", "spread"),
    [((0.25, 1, 4), (2, 8), 0.2), (np.linspace(0.1, 4, 12), (2, 3, 4, 8), 0.01), ((1,), (4,), 0.0)],
)
def test_texts_cover_no_mark_and_no_other_text(betas, latent_dims, spread):
    points, members = a_sweep(betas, latent_dims, spread)
    figure = rate_distortion(points, members)
    (axes,) = figure.axes
    figure.canvas.draw()
    notes = [text for text in axes.texts if isinstance(text, Annotation)]
    assert any(note.get_text().startswith("β") for note in notes)
    boxes = [note.get_window_extent() for note in notes]
    marks = axes.transData.transform([(point.rate, point.distortion) for point in points])
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(x, y) for x, y in marks)
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
    if len(points) < 10:
        assert sum(note.get_text().startswith("β") for note in notes) == len(points)


def test_the_axes_fit_the_data_and_not_the_lines():
    points, members = a_sweep((0.25, 1, 4), (2, 8), 0.2)
    (axes,) = rate_distortion(points, members).axes
    for name, limits in (("test_rate", axes.get_xlim()), ("test_distortion", axes.get_ylim())):
        values = [row[name] for row in members]
        assert limits[0] < min(values) < max(values) < limits[1]
        assert np.ptp(limits) < 1.4 * np.ptp(values) + 0.2


def test_lines_of_equal_elbo_cross_the_plane():
    constants = iso_elbo((12.0, 24.0), (119.0, 131.0))
    assert 3 <= len(constants) <= 8
    assert 131 < constants[0] < constants[-1] < 155
    assert np.ptp(np.diff(constants)) < 1e-9
