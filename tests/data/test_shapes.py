"""Shapes drawn from factors: where they lie, how large they are, and the dataset made of them."""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import load

from cvae_jax.data import reading
from cvae_jax.data.sources import shapes

AREAS = {"square": (2 * 0.17) ** 2, "ellipse": math.pi * 0.24 * 0.12, "heart": 3.6595 * 0.185**2}
SPLITS = ("train", "validation", "test")

render = {size: jax.jit(jax.vmap(partial(shapes.render, size=size))) for size in (32, 64)}


@pytest.fixture(scope="module")
def draw():
    drawn = jax.jit(partial(shapes.draw, size=256))

    def draw(shape, scale=1.0, orientation=0.0, x=0.5, y=0.5):
        numbers = (jnp.float32(number) for number in (scale, orientation, x, y))
        return np.asarray(drawn(jnp.int32(shapes.SHAPES.index(shape)), *numbers))[..., 0]

    return draw


@pytest.fixture(scope="module")
def small():
    return shapes.shapes(32)


def some_factors(n=500):
    return np.array(shapes.sample_factors(jax.random.key(7), n))


def centre(image):
    """Centre of gravity, as shares of the image's sides from the left and from above."""
    rows, columns = np.nonzero(image)
    return (columns.mean() + 0.5) / len(image), (rows.mean() + 0.5) / len(image)


# One image


@pytest.mark.parametrize("shape", shapes.SHAPES)
@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0])
def test_the_area_is_that_of_the_shape(draw, shape, scale):
    np.testing.assert_allclose(draw(shape, scale, 0.3).mean(), scale**2 * AREAS[shape], rtol=0.02)


@pytest.mark.parametrize("shape", shapes.SHAPES)
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.26, 0.7)])
def test_the_centre_of_gravity_lies_where_it_is_asked_for(draw, shape, x, y):
    np.testing.assert_allclose(centre(draw(shape, 1.0, 0.9, x, y)), (x, y), atol=0.5 / 256)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_a_quarter_turn_is_counterclockwise(draw, shape):
    turned, expected = draw(shape, orientation=math.pi / 2), np.rot90(draw(shape))
    assert np.mean(turned != expected) < 1e-3
    assert np.mean(draw(shape, orientation=math.pi / 2 + 0.4) != expected) > 1e-2


@pytest.mark.parametrize(("shape", "turns"), [("square", 4), ("ellipse", 2), ("heart", 1)])
def test_symmetries_are_those_of_the_shape(draw, shape, turns):
    upright = draw(shape)
    for k in range(1, 40):
        same = np.mean(draw(shape, orientation=2 * math.pi * k / 40) != upright) < 1e-3
        assert same == (k % (40 // turns) == 0), k


@pytest.mark.parametrize("size", [32, 64])
def test_no_shape_touches_the_edge(size):
    f = np.array([[s, 5, o, x, y] for s in range(3) for o in range(40) for x in (0, 31) for y in (0, 31)])
    images = np.asarray(render[size](jnp.asarray(f)))
    assert images.dtype == np.uint8
    assert images.any(axis=(1, 2, 3)).all()
    edges = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]])
    assert not edges.any()


def test_a_step_of_x_or_y_is_a_pixel_of_64():
    f = some_factors()
    f[:, 3:] = np.minimum(f[:, 3:], 30)
    images = np.asarray(render[64](jnp.asarray(f)))
    for column, axis in ((3, 2), (4, 1)):
        moved = f + (np.arange(5) == column)
        np.testing.assert_array_equal(render[64](jnp.asarray(moved)), np.roll(images, 1, axis))


@pytest.mark.parametrize("factor", range(5))
def test_a_step_of_any_factor_changes_the_image(factor):
    f = some_factors()
    g = f.copy()
    g[:, factor] = (g[:, factor] + 1) % shapes.COUNTS[factor]
    changed = np.asarray(render[64](jnp.asarray(f)) != render[64](jnp.asarray(g)))
    assert changed.any(axis=(1, 2, 3)).all()


def test_vmap_is_a_loop():
    f = jnp.asarray(some_factors(3))
    loop = [shapes.render(one, size=32) for one in f]
    np.testing.assert_array_equal(render[32](f), jnp.stack(loop))


def test_sampled_factors_are_uniform_and_follow_the_key():
    f = some_factors(8000)
    for column, count in zip(f.T, shapes.COUNTS, strict=True):
        shares = np.bincount(column, minlength=count)
        assert len(shares) == count
        assert np.abs(shares - 8000 / count).max() < 5 * math.sqrt(8000 / count)
    np.testing.assert_array_equal(f, some_factors(8000))
    assert (f != np.asarray(shapes.sample_factors(jax.random.key(8), 8000))).any()


# The dataset


def test_factors_are_as_many_as_those_of_dsprites(small):
    assert shapes.COUNTS == (3, 6, 40, 32, 32)
    assert small.factor_names == shapes.FACTORS == ("shape", "scale", "orientation", "x", "y")
    for column, count in zip(small.train.factors.T, shapes.COUNTS, strict=True):
        assert np.unique(column).tolist() == list(range(count))


def test_the_label_is_the_shape(small):
    assert small.class_names == ("square", "ellipse", "heart")
    for name in SPLITS:
        split = getattr(small, name)
        np.testing.assert_array_equal(split.c, split.factors[:, 0])


def test_no_combination_is_in_two_splits(small):
    assert [len(getattr(small, name)) for name in SPLITS] == [50_000, 5_000, 10_000]
    rows = [np.ravel_multi_index(getattr(small, name).factors.T, shapes.COUNTS) for name in SPLITS]
    assert len(np.unique(np.concatenate(rows))) == 65_000


@pytest.mark.parametrize("name", SPLITS)
def test_images_are_those_of_the_factors(small, name):
    split = getattr(small, name)
    last = slice(len(split) - 200, None)
    np.testing.assert_array_equal(split.x[last], render[32](jnp.asarray(split.factors[last])))


def test_binary_pixels_pass_binarization_unchanged(small, cache_dir):
    dataset = load("shapes32", binarize="static", cache_dir=cache_dir)
    assert set(np.unique(dataset.train.x[:1000])) == {0, 1}
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(dataset, name).x, getattr(small, name).x)


@pytest.mark.slow
def test_shapes_of_64_pixels_have_the_same_factors(small):
    large = reading.DATASETS["shapes"].read(None, Path())
    assert large.shape == (64, 64, 1)
    np.testing.assert_array_equal(large.test.factors, small.test.factors)
    np.testing.assert_array_equal(large.test.x[-50:], render[64](jnp.asarray(large.test.factors[-50:])))
