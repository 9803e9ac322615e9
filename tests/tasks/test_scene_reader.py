"""The reader of drawn scenes: what it learns from, its training and what it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scans import glyphs, scanned

from experiments.tasks.captions import arrangements, scene_reader, scenes
from experiments.tasks.captions.arrangements import Digit, to_grid

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
EASY = (0, 1, 7)


def easy(n, seed):
    """Scenes of one or two digits, each always the same glyph."""
    rng = np.random.default_rng(seed)
    grids = np.concatenate([arrangements.draw(rng, count, 20 * n) for count in (1, 2)])
    grids = rng.permutation(grids[np.isin(grids[:, :9], [0, *(1 + d for d in EASY)]).all(axis=1)])[:n]
    return scenes.compose(rng, grids, glyphs()), grids


@pytest.fixture(scope="module")
def fitted():
    return scene_reader.fit(*easy(1000, 0), KEY, num_steps=90)


def test_it_learns(fitted):
    x, grids = easy(500, 1)
    read, certainty = scene_reader.read(fitted, jnp.asarray(x), x_max=255.0)
    assert read.shape == grids.shape
    right = scene_reader.whole_right(read, grids)
    assert np.mean(right) > 0.95
    assert certainty.shape == (len(x), 9)
    assert certainty[right].mean() > 0.95


def test_it_is_less_certain_of_a_picture_between_two(fitted):
    x, _ = easy(500, 1)
    x = x[: len(x) // 2 * 2].astype(np.float32)
    between = 0.5 * x[::2] + 0.5 * x[1::2]
    clear, mixed = (scene_reader.read(fitted, jnp.asarray(a), x_max=255.0).certainty for a in (x, between))
    assert clear.min(axis=1).mean() > 0.9
    assert mixed.min(axis=1).mean() < clear.min(axis=1).mean() - 0.1


def test_what_it_reads_does_not_depend_on_the_other_pictures_or_their_scale(fitted):
    x, _ = easy(501, 1)
    read, certainty = scene_reader.read(fitted, jnp.asarray(x), x_max=255.0)
    few, of_few = scene_reader.read(fitted, jnp.asarray(x[-3:].astype(np.float32) / 255.0), x_max=1.0)
    np.testing.assert_array_equal(few, read[-3:])
    np.testing.assert_allclose(of_few, certainty[-3:], atol=1e-5)


def test_a_reading_is_the_mean_of_those_of_the_picture_moved_by_a_pixel(fitted):
    x, _ = easy(20, 3)
    x = jnp.asarray(x, jnp.float32) / 255.0
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [around[:, 1 - i : 33 - i, 1 - j : 33 - j] for i, j in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    each = [scene_reader.Reader().apply(fitted, one) for one in moved]
    probabilities = np.mean([jax.nn.softmax(logits.digits) for logits in each], axis=0)
    grids, certainty = scene_reader.read(fitted, x, x_max=1.0)
    np.testing.assert_array_equal(grids[:, :9], probabilities.argmax(axis=-1))
    np.testing.assert_allclose(certainty, probabilities.max(axis=-1), rtol=1e-5)
    assert np.abs(probabilities - jax.nn.softmax(each[0].digits)).max() > 0.01


def test_soft_pictures_are_read_as_sharp_ones(fitted):
    x, grids = easy(500, 1)
    soft = scene_reader.soften(jnp.asarray(x, jnp.float32), 1.0)
    np.testing.assert_allclose(soft[:, 8:24, 8:24].sum(), x[:, 8:24, 8:24].sum(), rtol=0.05)
    read = scene_reader.read(fitted, soft, x_max=255.0).grids
    assert np.mean(scene_reader.whole_right(read, grids)) > 0.95
    np.testing.assert_array_equal(scene_reader.soften(jnp.asarray(x, jnp.float32), 0.0), x)


def test_empty_cells_have_no_size(fitted):
    x, _ = easy(200, 2)
    read = scene_reader.read(fitted, jnp.asarray(x), x_max=255.0).grids
    np.testing.assert_array_equal(read[:, :9] == 0, read[:, 9:] == 0)


def test_training_repeats_bit_for_bit():
    x, grids = easy(100, 0)
    one, two = (scene_reader.fit(x, grids, KEY, num_steps=3) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_the_loss_looks_at_sizes_where_there_are_digits_alone():
    grids = jnp.asarray([to_grid((Digit(4, 7, True),))])
    right = 30.0 * jax.nn.one_hot(grids[:, :9], 11)
    sizes = jnp.full((1, 9), -30.0).at[0, 4].set(30.0)
    assert float(scene_reader._loss(scene_reader.Logits(right, sizes), grids)) < 1e-6
    assert float(scene_reader._loss(scene_reader.Logits(right, -sizes), grids)) == pytest.approx(30.0)
    uniform = scene_reader.Logits(jnp.zeros((1, 9, 11)), jnp.zeros((1, 9)))
    expected = 9 * np.log(11) + np.log(2)
    assert float(scene_reader._loss(uniform, grids)) == pytest.approx(expected, rel=1e-6)


def test_it_learns_from_held_out_arrangements_and_from_digits_anywhere():
    x, grids = scene_reader.examples(np.random.default_rng(0), scanned(), 400)
    assert len(x) == len(grids) == 400
    held_out = arrangements.held_out_rows(grids[:300])
    assert 50 < held_out.sum() < 250
    counts = (grids[300:, :9] > 0).sum(axis=1)
    assert counts.min() == 0
    assert counts.max() > 3
    np.testing.assert_array_equal(x.any(axis=(1, 2, 3)), (grids > 0).any(axis=1))
