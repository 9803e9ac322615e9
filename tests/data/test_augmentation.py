"""Augmentation: each against numpy, the identity at zero strength, and the batch of a step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import of_digits
from scipy import ndimage

from cvae_jax.data import augmentation
from cvae_jax.errors import SettingError
from cvae_jax.training import loader
from cvae_jax.training.config import from_flat

ALL = ("shift", "rotate", "scale", "flip", "cutout")


def image(height=9, width=12, channels=2, seed=0):
    drawn = np.random.default_rng(seed).uniform(size=(height, width, channels))
    return jnp.asarray(drawn, jnp.float32)


@pytest.fixture(scope="module")
def many():
    """A hundred augmentations of one image by each name: shape (100, 9, 12, 2)."""
    keys = jax.random.split(jax.random.key(0), 100)

    @partial(jax.jit, static_argnames="names")
    def draws(x, names):
        return jax.vmap(lambda key: augmentation.augment(key, x, names))(keys)

    return lambda *names: np.asarray(draws(image(), names))


# Each by itself


def test_nothing_is_the_identity_at_zero_strength():
    x, key = image(), jax.random.key(3)
    for y in (
        augmentation.shift(key, x, pixels=0),
        augmentation.resample(x, augmentation.random_rotation(key, degrees=0.0)),
        augmentation.resample(x, augmentation.random_scaling(key, factor=1.0)),
        augmentation.cutout(key, x, side=0),
        augmentation.augment(key, x, ()),
    ):
        np.testing.assert_array_equal(y, x)


def test_a_shift_is_numpys_roll_of_the_padded_image(many):
    x, pixels = image(), 1  # 1/12 of 9
    padded = np.pad(x, ((pixels, pixels), (pixels, pixels), (0, 0)))
    expected = {
        (i, j): np.roll(padded, (i, j), (0, 1))[pixels:-pixels, pixels:-pixels]
        for i in range(-pixels, pixels + 1)
        for j in range(-pixels, pixels + 1)
    }
    seen = set()
    for y in many("shift"):
        (move,) = [move for move, e in expected.items() if np.array_equal(e, y)]
        seen.add(move)
    assert seen == set(expected)


def test_a_flip_mirrors_half_of_the_images_and_twice_none(many):
    x, y = image(), many("flip")
    mirrored = [np.array_equal(each, x[:, ::-1]) for each in y]
    assert all(
        np.array_equal(each, x) for each, is_mirrored in zip(y, mirrored, strict=True) if not is_mirrored
    )
    assert 30 < sum(mirrored) < 70
    key = jax.random.key(1)
    np.testing.assert_array_equal(augmentation.flip(key, augmentation.flip(key, x)), x)


@pytest.mark.parametrize("turns", [-1, 1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_a_rotation_by_right_angles_is_rot90(turns, side):
    x = image(side, side)
    np.testing.assert_allclose(
        augmentation.resample(x, augmentation.rotation(90.0 * turns)), jnp.rot90(x, turns), atol=1e-5
    )


@pytest.mark.parametrize(
    "matrix", [[[0.9, 0.3], [-0.2, 1.1]], [[1.5, 0.0], [0.0, 1.5]], [[0.6, 0.0], [0.0, 0.6]]]
)
def test_resampling_is_scipys(matrix):
    x = image()
    centre = (np.array(x.shape[:2]) - 1) / 2
    expected = [
        ndimage.affine_transform(
            x[..., k], np.array(matrix), centre - np.array(matrix) @ centre, order=1, mode="grid-constant"
        )
        for k in range(x.shape[-1])
    ]
    np.testing.assert_allclose(
        augmentation.resample(x, jnp.array(matrix)), np.stack(expected, axis=-1), atol=1e-5
    )


def test_angles_and_sizes_lie_within_their_strengths():
    keys = jax.random.split(jax.random.key(0), 200)
    turns = jax.vmap(partial(augmentation.random_rotation, degrees=15.0))(keys)
    angles = np.rad2deg(np.arctan2(turns[:, 0, 1], turns[:, 0, 0]))
    assert -15 <= angles.min() < -13
    assert 13 < angles.max() <= 15
    sizes = jax.vmap(partial(augmentation.random_scaling, factor=1.25))(keys)[:, 0, 0]
    assert 0.8 <= sizes.min() < 0.82
    assert 1.22 < sizes.max() <= 1.25
    assert 80 < (sizes < 1).sum() < 120


def test_cutout_zeroes_a_square(many):
    x, side = image(), 2  # a quarter of 9
    corners = set()
    for y in many("cutout"):
        zero = (y == 0).all(axis=-1)
        np.testing.assert_array_equal(y[~zero], x[~zero])
        rows, columns = np.flatnonzero(zero.any(1)), np.flatnonzero(zero.any(0))
        assert zero[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        # Whole, or cut off by the first row or column.
        assert len(rows) == (side if rows[0] else len(rows)) <= side
        assert len(columns) == (side if columns[0] else len(columns)) <= side
        corners.add((rows[-1], columns[-1]))
    assert len(corners) > 50


# Together


def test_pixels_stay_within_their_bounds(many):
    y = many(*ALL)
    assert y.min() >= 0
    assert y.max() <= 1
    assert len(np.unique(y.reshape(100, -1), axis=0)) == 100


def test_what_one_draws_depends_neither_on_the_others_nor_on_their_order(many):
    np.testing.assert_array_equal(many("shift", "flip"), many("flip", "shift"))
    np.testing.assert_array_equal(many("flip", "cutout") == 0, many("cutout") == 0)
    mirrored = np.array([np.array_equal(each, image()[:, ::-1]) for each in many("flip")])
    # Two programs may round a pixel between others differently, the same operations do not.
    with jax.disable_jit():
        both, turned = many("rotate", "flip"), many("rotate")
    np.testing.assert_array_equal(both, np.where(mirrored[:, None, None, None], turned[:, :, ::-1], turned))


# The batch of a step


def test_a_batch_is_augmented_before_it_is_binarized(digits):
    def batch(step, data_seed=0, **fields):
        config = from_flat(batch_size=64, data_seed=data_seed, **fields)
        data = loader.training_data(config, digits)
        draw = jax.jit(partial(loader.draw_batch, config, of_digits(2)))
        return np.asarray(draw(data, jnp.arange(64), jnp.int32(step))[0])

    grey = {"likelihood": "gaussian", "binarize": "none"}
    plain, first, again, later = (
        batch(0, **grey),
        *(batch(step, augment=ALL, **grey) for step in (0, 0, 1)),
    )
    np.testing.assert_array_equal(first, again)
    changed = (first != plain).any(axis=(1, 2, 3))
    assert changed.mean() > 0.9
    assert (first != later).any(axis=(1, 2, 3)).mean() > 0.9
    assert (first != batch(0, data_seed=1, augment=ALL, **grey)).any()
    np.testing.assert_array_equal(np.round(first * 16) / 16, first)
    # The pixels drawn are those of the augmented image.
    binary = batch(0, augment=ALL)
    assert set(np.unique(binary)) == {0.0, 1.0}
    np.testing.assert_array_equal(binary[first == 0], 0)
    np.testing.assert_array_equal(binary[first == 1], 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"augment": ("shift", "spin")},
            "augment is 'spin', expected one of shift, rotate, scale, flip, cutout",
        ),
        ({"augment": ("flip", "flip")}, "augment is flip,flip, expected each at most once"),
        (
            {"augment": ("flip", "scale"), "binarize": "static"},
            "augment is flip,scale, expected neither rotate nor scale with binarize='static'",
        ),
    ],
)
def test_what_cannot_be_augmented_is_refused(fields, message):
    with pytest.raises(SettingError, match=message) as error:
        from_flat(**fields)
    assert "\n" not in str(error.value)


def test_all_names_are_tested():
    assert set(ALL) == set(augmentation.AUGMENTATIONS)
