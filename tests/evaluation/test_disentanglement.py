"""Disentanglement scores of codes whose scores are known, and of a trained model."""

import math
from functools import partial
from types import SimpleNamespace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import unchecked
from models import member, of_digits, stacked

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.examples import on_device
from cvae_jax.data.sources.shapes import COUNTS, render
from cvae_jax.data.sources.shapes import FACTORS as FACTOR_NAMES
from cvae_jax.errors import DataError, UserError
from cvae_jax.evaluation import disentanglement, posteriors
from cvae_jax.evaluation.disentanglement import code_disentanglement, importances, scores, scores_and_chance
from cvae_jax.runs.session import Session, Trained
from experiments.reports.scores import disentanglement_scores, require_factors

NAMES = {
    "mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness",
    "factorvae_score", "betavae_score", "modularity",
}  # fmt: skip
CATEGORICAL = (0,)


def draw_factors(counts, n, seed=0):
    return np.random.default_rng(seed).integers(0, counts, (n, len(counts)))


FACTORS = draw_factors(COUNTS, 6000)
IDENTITY = FACTORS.astype(np.float32)


def noisy_code():
    """Four latents, each a mixture of factors and noise."""
    rng = np.random.default_rng(1)
    unit = (FACTORS - FACTORS.mean(0)) / FACTORS.std(0)
    return unit @ rng.normal(size=(5, 4)) ** 3 + 0.3 * rng.normal(size=(len(FACTORS), 4))


@pytest.fixture(scope="module")
def noisy():
    return scores(noisy_code(), FACTORS, categorical=CATEGORICAL)


@pytest.fixture(scope="module")
def identity():
    return scores(IDENTITY, FACTORS, categorical=CATEGORICAL)


# Codes of known scores


def test_the_identity_scores_high(identity):
    assert set(identity) == NAMES
    assert min(identity.values()) >= 0.9, identity


@pytest.mark.parametrize("codes", [np.zeros((6000, 3)), np.full((6000, 2), 0.1), np.zeros((6000, 0))])
def test_a_constant_code_scores_nothing(codes):
    assert set(scores(codes, FACTORS, categorical=CATEGORICAL).values()) == {0.0}


def test_noise_scores_like_chance():
    codes = np.random.default_rng(3).normal(size=(6000, 6))
    values = scores(codes, FACTORS, categorical=CATEGORICAL)
    for name in NAMES - {"factorvae_score", "betavae_score", "modularity"}:
        assert values[name] < 0.02, name
    for name in ("factorvae_score", "betavae_score"):
        assert 0.1 < values[name] < 0.3, name


def test_chance_is_the_score_of_the_same_code_with_its_rows_permuted():
    factors = draw_factors((3, 4, 5), 1500)
    codes = factors + np.random.default_rng(1).normal(0, 0.1, factors.shape)
    found = scores_and_chance(codes, factors, categorical=(0,))
    assert set(found) == NAMES | {f"{name}_chance" for name in NAMES}
    assert {name: found[name] for name in NAMES} == scores(codes, factors, categorical=(0,))
    for name in NAMES:
        assert found[f"{name}_chance"] < found[name] - 0.2, name
    for name in ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness"):
        assert 0 <= found[f"{name}_chance"] < 0.1, name
    for name in ("factorvae_score", "betavae_score"):
        assert found[f"{name}_chance"] == pytest.approx(1 / 3, abs=0.1), name
    assert found["modularity_chance"] > 0.5


NEARLY_UNIQUE = np.stack([np.arange(300), np.roll(np.arange(300), 7), np.arange(300) % 3], axis=1) // [
    2,
    2,
    1,
]


@pytest.mark.parametrize(
    "score",
    [
        disentanglement.mig,
        disentanglement.modularity,
        disentanglement.factorvae_score,
        disentanglement.betavae_score,
        partial(disentanglement.sap, categorical=(0, 2)),
        partial(disentanglement.dci, categorical=(0, 2)),
        scores,
    ],
)
def test_factors_of_nearly_unique_values_are_refused(score):
    with pytest.raises(
        DataError, match="column 0 of the factors takes 150 values in 300 examples, expected at most 75"
    ):
        score(NEARLY_UNIQUE.astype(float), NEARLY_UNIQUE)


def test_ordered_factors_may_be_unique_where_they_are_predicted():
    codes = NEARLY_UNIQUE[:, :1].astype(float)
    assert disentanglement.sap(codes, NEARLY_UNIQUE[:, :1]) == pytest.approx(1.0)
    assert disentanglement.dci(codes, NEARLY_UNIQUE[:, :1]).informativeness > 0.99


@pytest.mark.parametrize("score", [disentanglement.factorvae_score, disentanglement.betavae_score])
def test_four_examples_of_a_value_are_enough(score):
    rng = np.random.default_rng(0)
    factors = np.stack([rng.permutation(400) // 4, rng.permutation(400) // 4, np.arange(400) % 3], axis=1)
    assert score(factors.astype(float), factors) > 0.9


def test_every_latent_twice_leaves_no_gap():
    twice = np.repeat(IDENTITY, 2, axis=1)
    assert disentanglement.mig(twice, FACTORS) <= 1e-9
    assert disentanglement.sap(twice, FACTORS, categorical=CATEGORICAL) <= 1e-9
    dci = disentanglement.dci(twice, FACTORS, categorical=CATEGORICAL)
    assert dci.disentanglement >= 0.99
    assert dci.completeness < 0.9


def test_one_code_of_two_latents_twice_scores_little():
    """A code of one factor alone, spread over two latents."""
    factors = draw_factors((8,), 2000)
    codes = np.repeat(factors, 2, axis=1) + np.random.default_rng(0).normal(0, 0.01, (2000, 2))
    assert disentanglement.mig(codes, factors) <= 0.1


@pytest.mark.parametrize("categorical", [(), range(10)], ids=["ordered", "categorical"])
def test_one_code_for_two_of_ten_factors_is_an_even_two_way_split(categorical):
    factors = draw_factors((3,) * 10, 1500)
    codes = np.concatenate([3 * factors[:, :1] + factors[:, 1:2], factors[:, 2:]], axis=1).astype(float)
    importance, informativeness = importances(codes, factors, categorical=categorical)
    each = code_disentanglement(importance)
    expected = 1 - math.log(2) / math.log(10)
    np.testing.assert_allclose(each, [expected] + [1.0] * 8, atol=1e-3)
    np.testing.assert_allclose(informativeness, 1.0, atol=1e-3)
    whole = disentanglement.dci(codes, factors, categorical=categorical)
    np.testing.assert_allclose(whole, (0.2 * expected + 0.8, 1.0, 1.0), atol=1e-3)


def test_a_latent_of_two_factors_is_half_modular():
    factors = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    codes = np.stack([4.0 * factors[:, 0] + factors[:, 1], factors[:, 2]], axis=1)
    np.testing.assert_allclose(disentanglement.modularity(codes[:, :1], factors), 1 - 1 / 2)
    np.testing.assert_allclose(disentanglement.modularity(codes, factors), (1 / 2 + 1) / 2)
    np.testing.assert_allclose(disentanglement.mig(codes[:, :1], factors), 2 / 3)


def test_a_factor_that_is_not_coded_costs_votes_but_no_linear_classifier():
    factors = draw_factors((5, 5, 5), 3000)
    codes = factors[:, :2].astype(float)
    assert abs(disentanglement.factorvae_score(codes, factors) - 2 / 3) < 0.03
    assert disentanglement.betavae_score(codes, factors) > 0.95


# Against definitions


def test_mig_is_that_of_its_definition():
    rng = np.random.default_rng(2)
    factors = draw_factors((3, 5), 500)
    codes = factors @ rng.normal(size=(2, 3)) + rng.normal(size=(500, 3))

    def entropy(*columns):
        _, counts = np.unique(np.stack(columns), axis=1, return_counts=True)
        p = counts / counts.sum()
        return -np.sum(p * np.log(p))

    bins = 7
    low, high = codes.min(0), codes.max(0)
    binned = np.minimum(np.floor((codes - low) / (high - low) * bins), bins - 1)
    gaps = []
    for v in factors.T:
        information = sorted(entropy(v) + entropy(z) - entropy(v, z) for z in binned.T)
        gaps.append((information[-1] - information[-2]) / entropy(v))
    np.testing.assert_allclose(disentanglement.mig(codes, factors, bins=bins), np.mean(gaps), rtol=1e-9)


def test_sap_of_ordered_factors_is_a_gap_of_squared_correlations():
    codes = noisy_code()
    squares = np.corrcoef(codes.T, FACTORS.T)[:4, 4:] ** 2
    ordered = np.sort(squares, axis=0)
    expected = np.mean(ordered[-1] - ordered[-2])
    np.testing.assert_allclose(disentanglement.sap(codes, FACTORS), expected, rtol=1e-9)


def test_sap_of_a_categorical_factor_is_a_gap_of_balanced_accuracies():
    factors = np.repeat(np.arange(3), (100, 700, 200))[:, None]
    where = np.array([5.0, -5.0, 0.0])[factors]  # in no order that a line could follow
    codes = np.concatenate([where, np.abs(where)], axis=1)  # the second is the same for 0 and 1
    assert disentanglement.sap(codes[:, :1], factors, categorical=(0,)) == 1.0
    np.testing.assert_allclose(disentanglement.sap(codes, factors, categorical=(0,)), 1 - 2 / 3)
    assert disentanglement.sap(codes[:, :1], factors) < 1.0


def test_code_disentanglement_is_one_minus_an_entropy():
    importance = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0] * 4])
    np.testing.assert_allclose(code_disentanglement(importance), [0.0, 0.5, 1.0, 0.0], atol=1e-12)


# What changes nothing


def test_the_order_of_latents_changes_nothing(noisy):
    assert scores(noisy_code()[:, [2, 0, 3, 1]], FACTORS, categorical=CATEGORICAL) == noisy


def test_latents_out_of_use_and_constant_factors_change_nothing(noisy):
    wide = np.zeros((len(FACTORS), 7))
    wide[:, [1, 2, 4, 6]] = noisy_code()
    factors = np.insert(FACTORS, 1, 3, axis=1)
    assert scores(wide, factors, categorical=CATEGORICAL) == noisy
    with_latent = importances(wide, factors, categorical=CATEGORICAL)[0]
    assert with_latent.shape == (7, 5)
    np.testing.assert_array_equal(with_latent.any(axis=1), [0, 1, 1, 0, 1, 0, 1])


def test_the_scale_of_a_latent_changes_nothing(noisy):
    again = scores(noisy_code() * [0.125, 2.0, 16.0, 4.0], FACTORS, categorical=CATEGORICAL)
    np.testing.assert_allclose(
        [again[n] for n in sorted(NAMES)], [noisy[n] for n in sorted(NAMES)], atol=0.01
    )


def test_one_factor_and_one_latent_suffice():
    factors = draw_factors((6,), 800)
    assert min(scores(factors.astype(float), factors).values()) > 0.99


# What is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite_are_refused(bad):
    codes = IDENTITY.copy()
    codes[3, 2] = bad
    with pytest.raises(DataError, match="codes hold NaN or infinite"):
        scores(codes, FACTORS)


def test_lengths_that_differ_are_refused():
    with unchecked(), pytest.raises(DataError, match=r"codes have shape \(5999, 5\) and factors \(6000, 5\)"):
        disentanglement.mig(IDENTITY[:-1], FACTORS)


def test_factors_that_never_vary_are_refused():
    with pytest.raises(DataError, match="every factor has one value only"):
        disentanglement.mig(IDENTITY, np.ones_like(FACTORS))


# Of a model


@pytest.fixture(scope="module")
def shapes_of_8():
    """Splits of 200 images of 8×8 pixels, the same three times."""
    factors = draw_factors(COUNTS, 200)
    x = np.asarray(jax.jit(jax.vmap(lambda f: render(f, size=8)))(jnp.asarray(factors)))
    split = Split(x, factors[:, 0].astype(np.int32), factors)
    names = ("square", "ellipse", "heart")
    return Dataset("shapes8", split, split, split, 1.0, Label(3), names, FACTOR_NAMES)


@pytest.fixture(scope="module")
def one_of_two(shapes_of_8):
    """A function from a condition to a session, and its member of 3 latents of 4."""

    def make(condition):
        model = of_digits(4, condition=condition)
        session = SimpleNamespace(dataset=shapes_of_8, model=model)
        best = SimpleNamespace(params=member(stacked(model, (4, 3)), 1))
        return cast(Session, session), cast(Trained, SimpleNamespace(best=best))

    return make


@pytest.mark.parametrize(("condition", "first"), [(None, 0), (Label(3), 1)])
def test_a_model_is_scored_by_the_factors_it_is_not_given(one_of_two, shapes_of_8, condition, first):
    session, trained = one_of_two(condition)
    record = disentanglement_scores(session, trained)
    assert record.pop("factors") == list(FACTOR_NAMES[first:])
    examples = on_device(shapes_of_8.test, shapes_of_8.x_max)
    q = posteriors.encode_examples(session.model, trained.best.params, examples)
    means = np.asarray(q.mean)[:, :3]
    rows = np.random.default_rng(0).permutation(200)
    factors = shapes_of_8.test.factors[rows, first:]
    categorical = () if first else (0,)
    expected = scores(means[rows], factors, categorical=categorical)
    assert {name: record[name] for name in NAMES} == expected
    assert record == scores_and_chance(means[rows], factors, categorical=categorical)


def test_data_without_factors_is_refused(digits):
    with pytest.raises(
        UserError, match=r"known factors, and digits has none: expected shapes, .*factors_test"
    ):
        require_factors(digits, Label(10))
