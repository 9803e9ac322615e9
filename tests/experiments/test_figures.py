"""Figures of a run on data of one's own: x of any shape, many classes, classes that training never sees."""

import jax
import numpy as np
import pytest

from cvae_jax.data.arrays import from_arrays
from cvae_jax.data.reading import prepared
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import Trained, new_session
from cvae_jax.training.config import from_flat
from cvae_jax.training.step import Best
from experiments.reports import figures, members, results, shown

N = 80
RNG = np.random.default_rng(1)


def session_of(x, c, **more):
    config = from_flat(hidden=(4,), latent_dim=2, batch_size=8, likelihood="gaussian_optimal")
    data = prepared(from_arrays(x, c, **more), config.data, config.condition, config.likelihood)
    return new_session(Run("train", (config,), 1, None, 1), data)


def untrained(session):
    params = session.model.init(jax.random.key(0))
    return Trained(0, Best(params, np.float32(0), np.int32(0)), session.run.config)


def labels_of(figure):
    return [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]


def titles_of(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("shape", [(50,), (30, 4), (6, 6, 6), (3, 16, 16), (1,), (200, 2), (2, 3, 5, 5)])
def test_pictures_of_x_of_any_shape_are_drawn(shape, tmp_path):
    session = session_of(RNG.normal(size=(N, *shape)), np.arange(N) % 3)
    trained = untrained(session)
    results.write_pictures(session, trained, tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 3
    assert min(each.size for each in members.pictures_of(session, trained)) > 0
    errors = results.reconstruction.errors(session.dataset.test.x, session.dataset.test.x)
    found = results.reconstruction.summarize(errors, session.dataset.shape)
    assert ("reconstruction_ssim" in found) == (len(shape) == 2 and min(shape) >= 3)


def test_classes_that_training_never_sees_are_not_drawn():
    session = session_of(
        RNG.uniform(size=(N, 4, 4)), np.array([1, 4])[np.arange(N) % 2], class_names="abcdef"
    )
    figure = figures.samples_figure(session, untrained(session))
    assert labels_of(figure) == ["b", "e"]
    assert titles_of(figure) == ["samples from the prior, a row per class"]
    figure = figures.traversals_figure(session, untrained(session), label=4)
    assert titles_of(figure) == ["each latent from −3 to 3, the most informative first, class e"]


def test_at_most_16_rows_are_drawn_and_it_is_said():
    session = session_of(RNG.uniform(size=(N, 4, 4)), 100 + 7 * (np.arange(N) % 20))
    figure = figures.samples_figure(session, untrained(session))
    assert labels_of(figure) == [str(100 + 7 * k) for k in range(16)]
    assert titles_of(figure)[0].endswith("a row per class, the first 16 of 20 classes")
    assert shown.first_of(16, 16, "classes") == ""


def test_the_first_lines_say_how_x_and_c_were_read():
    x = RNG.integers(0, 17, (N, 4, 4)).astype(np.uint8)
    x[0] = 16
    session = session_of(x, np.array(["cat", "dog"])[np.arange(N) % 2])
    assert results.describe_data(session) == "x: uint8 0–16 scaled to [0, 1]\nc: 2 classes: cat, dog"
    session = session_of(x, RNG.normal(size=(N, 3)))
    assert results.describe_data(session).endswith("\nc: vector")
    session = session_of(x, None)
    assert results.describe_data(session) == "x: uint8 0–16 scaled to [0, 1]"
