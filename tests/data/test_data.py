"""Datasets: splits and binarization."""

import numpy as np
import pytest
from arrays import GREY, SPLITS, labels, load, rng

from cvae_jax.data.dataset import stratified_split


def rows_of(split):
    return {x.tobytes() + c.tobytes() for x, c in zip(split.x, split.c, strict=True)}


# Digits


def test_digits_has_the_stated_sizes(digits):
    assert [len(getattr(digits, name)) for name in SPLITS] == [1318, 120, 359]
    assert digits.shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")


def test_digits_splits_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    dataset = load("digits", **GREY)
    parts = [rows_of(getattr(dataset, name)) for name in SPLITS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1797
    assert sum(getattr(dataset, name).x.sum(dtype=int) for name in SPLITS) == load_digits().images.sum()


def test_digits_splits_are_stratified(digits):
    shares = [np.bincount(getattr(digits, name).c, minlength=10) for name in SPLITS]
    total = sum(shares)
    for share, fraction in zip(shares, (1318 / 1797, 120 / 1797, 359 / 1797), strict=True):
        np.testing.assert_allclose(share, total * fraction, atol=1.5)


def test_digits_splits_do_not_depend_on_the_data_seed():
    first, second = (load("digits", data_seed=seed, **GREY) for seed in (0, 1))
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(first, name).x, getattr(second, name).x)
        np.testing.assert_array_equal(getattr(first, name).c, getattr(second, name).c)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("counts", [(50, 50), (1, 99), (7, 11, 13), (1, 1, 1, 1)])
def test_stratified_split_holds_out_every_class_in_proportion(counts, fraction):
    c = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    kept, held_out = stratified_split(c, fraction)
    assert sorted([*kept, *held_out]) == list(range(len(c)))
    quotas, most = np.bincount(c[held_out], minlength=len(counts)), np.array(counts) - 1
    assert (np.abs(quotas - np.minimum(fraction * np.array(counts), most)) < 1).all()
    if (quotas < most).all():
        assert len(held_out) == round(fraction * len(c))
    again = stratified_split(c, fraction)
    np.testing.assert_array_equal(held_out, again[1])


def test_stratified_split_leaves_every_class_an_example():
    c = np.array([0] * 10 + [1] + [2] * 2)
    kept, _ = stratified_split(c, 0.9)
    assert set(c[kept]) == {0, 1, 2}


def test_stratified_split_draws_within_a_class():
    _, held_out = stratified_split(np.zeros(1000, int), 0.5)
    assert 0.4 < np.mean(held_out < 500) < 0.6


# Binarization


def binary(split):
    return set(np.unique(split.x)) <= {0, 16}


@pytest.mark.parametrize(
    ("binarize", "expected"),
    [("dynamic", (False, True, True)), ("static", (True, True, True)), ("none", (False, False, False))],
)
def test_which_splits_are_binary(binarize, expected):
    dataset = load("digits", binarize=binarize)
    assert tuple(binary(getattr(dataset, name)) for name in SPLITS) == expected


def test_pixels_follow_the_data_seed():
    first, again, other = (load("digits", binarize="static", data_seed=seed) for seed in (3, 3, 4))
    for name in SPLITS:
        a, b, c = (getattr(dataset, name).x for dataset in (first, again, other))
        np.testing.assert_array_equal(a, b)
        assert 0.05 < np.mean(a != c) < 0.5


def test_splits_are_binarized_with_noise_of_their_own(npz):
    grey = np.full((50, 6, 5), 0.5)
    path = npz(**{f"x_{n}": grey for n in SPLITS}, **{f"c_{n}": labels(50) for n in SPLITS})
    dataset = load(path, binarize="static")
    assert (dataset.train.x != dataset.validation.x).any()
    assert (dataset.test.x != dataset.validation.x).any()


def test_ones_are_as_frequent_as_the_grey_value_says():
    grey, drawn = load("digits", binarize="none").train.x, load("digits", binarize="static").train.x
    for level in range(17):
        ones = drawn[grey == level] / 16
        p = level / 16
        assert abs(ones.mean() - p) <= 4.5 * np.sqrt(p * (1 - p) / ones.size), level
