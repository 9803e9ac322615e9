"""Two models compared on the same examples: paired differences, and what is refused."""

import dataclasses
import json
import math

import numpy as np
import pytest

from cvae_jax.data.examples import on_device
from cvae_jax.errors import UserError
from cvae_jax.evaluation import bounds
from cvae_jax.runs import loop
from cvae_jax.runs import session as sessions
from cvae_jax.runs.description import claim
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import write_json
from cvae_jax.training.config import from_flat, replace
from experiments.reports import comparison, scores
from experiments.reports.comparison import Named, compare, named

CONFIG = from_flat(hidden=(8,), epochs=1, latent_dim=2)
MEMBERS = (CONFIG, replace(CONFIG, latent_dim=3, beta=4.0, seed=1))
RUN = Run("sweep", MEMBERS, members_per_program=2, checkpoint_every=1)
K = 3


@pytest.fixture(scope="module")
def trained(cache_dir, tmp_path_factory):
    """The workdir of a sweep, its session and its population."""
    workdir = tmp_path_factory.mktemp("sweeps") / "two"
    claim(workdir, RUN)
    session = sessions.open_session(RUN, cache_dir)
    population, _ = loop.train(session, session.parts[0], workdir)
    return workdir, session, population


@pytest.fixture(scope="module", params=["test", pytest.param("validation", marks=pytest.mark.slow)])
def compared(request, trained, cache_dir):
    """A comparison on a split, and each member's figures of each example, computed by themselves."""
    workdir, session, population = trained
    split = request.param
    record = compare(named(f"{workdir}:0"), named(f"{workdir}:1"), cache_dir, nll_samples=K, split=split)
    (part,) = session.parts
    examples = on_device(session.dataset.splits[split], session.dataset.x_max)
    terms = bounds.members_elbo_terms(session.model, population.members.best.params, examples)
    rate, distortion = np.asarray(terms.rate, np.float64), np.asarray(terms.distortion, np.float64)
    measured = dataclasses.replace(session, dataset=session.dataset.measured_on(split))
    nll = np.stack(
        [
            scores.nll_of_test(measured, sessions.trained_member(session, part, population, i), K)
            for i in (0, 1)
        ]
    )
    return record, {
        "elbo": -rate - distortion,
        "rate": rate,
        "distortion": distortion,
        "conditional_nll": nll,
    }


def test_differences_are_paired_by_example(compared):
    record, figures = compared
    assert list(record) == ["compare", "split", "examples", "nll_samples", *figures]
    for name, (a, b) in figures.items():
        found = record[name]
        assert len(a) == record["examples"]
        np.testing.assert_allclose([found["a"], found["b"]], [a.mean(), b.mean()], rtol=1e-5)
        np.testing.assert_allclose(found["difference"], np.mean(a - b), rtol=1e-3, atol=1e-4)
        error = np.std(a - b, ddof=1) / math.sqrt(len(a))
        np.testing.assert_allclose(found["standard_error"], error, rtol=1e-3)
    # The examples' own spread cancels.
    a, b = figures["elbo"]
    assert record["elbo"]["standard_error"] < np.sqrt((a.var() + b.var()) / len(a))


def test_a_model_does_not_differ_from_itself(trained, cache_dir):
    one = named(f"{trained[0]}:1")
    record = compare(one, one, cache_dir, nll_samples=K, split="test")
    for name in ("elbo", "rate", "distortion", "conditional_nll"):
        assert (record[name]["difference"], record[name]["standard_error"]) == (0.0, 0.0)


# Names


def test_names_of_models(tmp_path):
    sweep, single = tmp_path / "sweep", tmp_path / "a:7"
    claim(sweep, RUN)
    claim(single, Run("train", MEMBERS[:1], checkpoint_every=1))
    rows = [
        {"member": i, "epochs": 1, "diverged": None, "stopped_epoch": None, "validation_elbo": -30.0 + i}
        | {"test_elbo": 0.0, "test_rate": 0.0, "test_distortion": 0.0}
        for i in (0, 1)
    ]
    write_json(sweep / "results.json", rows)
    assert named(f"{sweep}:0")[1:] == (sweep, RUN, 0)
    assert named(f"{sweep}:best").member == 1
    assert named(str(single)).workdir == single
    for name, message in {
        str(sweep): f"expected {sweep}:best or {sweep}:N with a member N from 0 to 1",
        f"{sweep}:2": "expected .* from 0 to 1",
        f"{sweep}:first": "expected .*:best",
        f"{single}:0": "it holds one run",
        str(tmp_path / "none"): "holds no run",
    }.items():
        with pytest.raises(UserError, match=message):
            named(name)


# Refused

ELSEWHERE = {
    "likelihood": {"likelihood": "gaussian", "binarize": "none"},
    "levels": {"likelihood": "logistic_mixture", "binarize": "none"},
    "hidden pixels": {"condition": "observed"},
}


def model(tmp_path, name, **options):
    run = dataclasses.replace(RUN, members=tuple(replace(member, **options) for member in MEMBERS))
    return Named(name, tmp_path, run, 0)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_units_are_refused_before_data_are_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sessions, "open_session", None)
    a, b = model(tmp_path, "a"), model(tmp_path, "b", **ELSEWHERE[name])
    with pytest.raises(
        UserError, match=r"^a gives probabilities of binary pixels and b .*, expected the same of both"
    ):
        compare(a, b, tmp_path, nll_samples=None, split="test")


def test_more_or_less_of_an_image_hidden_is_another_unit(tmp_path):
    a, b = (model(tmp_path, str(k), condition="observed", observed=k) for k in (1, 2))
    with pytest.raises(UserError, match=r"hidden by --observed=1 and 2 .*--observed=2"):
        comparison._require_same_units(a, b)


def test_densities_are_one_unit(tmp_path):
    kinds = ("gaussian", "gaussian_learned", "continuous_bernoulli")
    a, *others = (model(tmp_path, kind, likelihood=kind, binarize="none") for kind in kinds)
    for other in others:
        comparison._require_same_units(a, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_seed": 1}, "data_seed is 0 of the first and 1 of the second"),
        ({"dataset": "own.npz"}, "dataset is digits of the first and own.npz of the second"),
        ({}, "their arrays differ"),
    ],
)
def test_other_examples_are_refused(tmp_path, digits, fields, message):
    a, b = model(tmp_path, "a"), model(tmp_path, "b", **fields)
    x = digits.test.x.copy()
    x[7, 3, 3, 0] = 16 - x[7, 3, 3, 0]
    other = dataclasses.replace(digits, test=dataclasses.replace(digits.test, x=x))
    comparison._require_same_examples(a, b, [digits, digits], "test")
    with pytest.raises(UserError, match=f"a and b have other test examples.*{message}"):
        comparison._require_same_examples(a, b, [digits, other], "test")


def test_one_example_has_no_standard_error():
    found = comparison._paired(np.array([1.0]), np.array([3.0]))
    assert json.loads(json.dumps(found)) == {"a": 1.0, "b": 3.0, "difference": -2.0, "standard_error": None}
