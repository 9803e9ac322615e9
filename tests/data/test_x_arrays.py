"""x of any shape and type: what is read, and what the networks and likelihoods refuse."""

import numpy as np
import pytest
from arrays import labels

from cvae_jax.conditions import Observed
from cvae_jax.data.arrays import from_arrays
from cvae_jax.data.checks import require_likely
from cvae_jax.data.dataset import as_in_data
from cvae_jax.data.reading import prepared
from cvae_jax.data.settings import Data
from cvae_jax.errors import DataError
from cvae_jax.evaluation.quality import require_classes
from cvae_jax.likelihoods import LIKELIHOODS, Bernoulli, GaussianOptimal
from cvae_jax.networks import MLP, Conv

N = 40
RNG = np.random.default_rng(5)


def uniform(*shape):
    return RNG.uniform(size=(N, *shape))


@pytest.mark.parametrize(
    ("x", "shape", "refused"),
    [
        (uniform(50), (50, 1), r"x has shape \(n, 50\), expected images"),
        (uniform(128), (128, 1), r"x has shape \(n, 128\), expected images"),
        (uniform(16, 16, 16), (16, 16, 16, 1), r"\(n, 16, 16, 16\), expected .* say so: channels_last=True"),
        (uniform(3, 16, 16), (3, 16, 16, 1), r"\(n, 3, 16, 16\), expected .* x\.transpose\(0, 2, 3, 1\)"),
        (uniform(4, 16, 16), (4, 16, 16, 1), r"\(n, 4, 16, 16\), expected .* x\.transpose\(0, 2, 3, 1\)"),
        (uniform(2, 3, 5, 7), (2, 3, 5, 7, 1), r"\(n, 2, 3, 5, 7\), expected images"),
        (uniform(3, 5), (3, 5, 1), r"\(n, 3, 5\), expected images .* at least 4 pixels a side"),
        (uniform(17, 23), (17, 23, 1), None),
        (uniform(16, 16, 4), (16, 16, 4), None),
        (uniform(30, 6), (30, 6, 1), None),
    ],
)
def test_x_of_any_shape_is_for_dense_layers_and_images_are_for_convolutions(x, shape, refused):
    data = from_arrays(x)
    assert data.shape == shape
    MLP().require_shape(data.shape)
    if refused is None:
        Conv().require_shape(data.shape)
    else:
        with pytest.raises(DataError, match=refused) as caught:
            Conv().require_shape(data.shape)
        assert "\n" not in str(caught.value)
    first = data.test.x[:3]
    expected = first if len(shape) == 3 else first[..., 0]
    np.testing.assert_array_equal(as_in_data(first), expected)
    np.testing.assert_array_equal(data.description.pixels(expected), first)


def test_channels_are_what_the_user_says():
    assert from_arrays(uniform(16, 16, 16), channels_last=True).shape == (16, 16, 16)
    assert from_arrays(uniform(16, 16, 3), channels_last=False).shape == (16, 16, 3, 1)
    assert from_arrays(uniform(30, 2), channels_last=True).shape == (30, 2)


@pytest.mark.parametrize(
    ("x", "x_max", "how"),
    [
        (RNG.integers(0, 256, (N, 8, 8)).astype(np.uint8), 255, "uint8 0–255 scaled to [0, 1]"),
        (RNG.integers(0, 256, (N, 8, 8)), 255, "int64 0–255 scaled to [0, 1]"),
        (RNG.integers(0, 2, (N, 8, 8)).astype(np.uint8), 1, "uint8 of 0 and 1 as 0 and 1"),
        (RNG.integers(0, 2, (N, 8, 8)).astype(bool), 1, "bool as 0 and 1"),
        (np.arange(N * 64).reshape(N, 8, 8).astype(np.uint8) % 17, 16, "uint8 0–16 scaled to [0, 1]"),
        (np.arange(N * 64).reshape(N, 8, 8).astype(np.int16), 2559, "int16 0–2559 scaled to [0, 1]"),
        (np.zeros((N, 8, 8), np.int8), 255, "int8 0–255 scaled to [0, 1]"),
        (-np.arange(N * 64).reshape(N, 64).astype(np.int32) % 5 - 2, 1, "int32 −2 to 2 as it is"),
        (np.linspace(0, 1, N * 64).reshape(N, 64).astype(np.float16), 1, "float16 0 to 1 as it is"),
        (np.linspace(-1, 3, N * 64).reshape(N, 64), 1, "float64 −1 to 3 as it is"),
    ],
)
def test_what_stands_for_1_is_found_and_said(x, x_max, how):
    data = prepared(from_arrays(x), Data(), (), GaussianOptimal())
    assert (data.x_max, data.read_as) == (x_max, how)
    np.testing.assert_allclose(
        data.description.pixels(x[:5]).reshape(5, -1), x[:5].reshape(5, -1).astype(np.float32) / x_max
    )
    signed = x.dtype.kind == "f" or x.min() < 0
    assert signed or 0 <= data.train.x.min() <= data.train.x.max() <= x_max


def test_masks_are_binary_data_as_they_are():
    x = RNG.integers(0, 2, (N, 8, 8)).astype(np.uint8)
    data = prepared(from_arrays(x, labels(N)), Data(), None, Bernoulli())
    given = {image.tobytes() for image in x}
    assert all(image.tobytes() in given for split in data.splits.values() for image in split.x)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_floats_from_0_to_255_are_refused_with_their_range(likelihood):
    data = from_arrays(np.linspace(0, 255, N * 64).reshape(N, 8, 8))
    expected = {
        "bernoulli": "0 to 1 .* divide by 255",
        "continuous_bernoulli": "0 to 1 .* divide by 255",
        "logistic_mixture": "whole numbers from 0 to 255, such as uint8",
    }.get(likelihood, "about -1 to 1 .* divide by 255, or subtract the mean")
    with pytest.raises(DataError, match=f"x_train lies in .* to .*, expected {expected}") as caught:
        require_likely(data, LIKELIHOODS[likelihood]())
    assert "\n" not in str(caught.value)


def test_a_few_far_values_are_no_reason_to_refuse_standardized_numbers():
    x = RNG.normal(size=(N, 50))
    x[0, 0] = 60.0
    require_likely(from_arrays(x), GaussianOptimal())


@pytest.mark.parametrize(
    ("fields", "condition", "what"),
    [({"augment": ("shift",)}, None, "--augment=shift"), ({}, (Observed(),), "the condition observed")],
)
def test_what_needs_images_refuses_vectors(fields, condition, what):
    with pytest.raises(DataError, match=rf"x has shape \(n, 50\), expected images .* with {what}"):
        prepared(from_arrays(uniform(50)), Data(**fields), condition, Bernoulli())


def test_the_quality_of_samples_by_class_needs_images():
    with pytest.raises(
        DataError, match=r"x has shape \(n, 50\), expected images .* quality of samples by class"
    ):
        require_classes(from_arrays(uniform(50), labels(N)))


def test_many_examples_are_read_as_few_are():
    many = 200_000
    x = np.broadcast_to(np.arange(many, dtype=np.uint16)[:, None], (many, 2))
    data = from_arrays(x, 1 + x[:, 0] % 10)
    assert [len(split) for split in data.splits.values()] == [146_667, 13_333, 40_000]
    assert data.read_as == "uint16 0–65535 scaled to [0, 1]"
    np.testing.assert_array_equal(data.train.x[:, 0, 0] % 10, data.train.c)


def test_limits_are_0_and_1_or_those_of_the_training_split():
    assert from_arrays(uniform(8, 8)).limits == (0.0, 1.0)
    assert from_arrays(RNG.integers(0, 256, (N, 8, 8))).limits == (0.0, 1.0)
    data = from_arrays(RNG.normal(size=(N, 8)))
    assert data.limits == (data.train.x.min(), data.train.x.max())
