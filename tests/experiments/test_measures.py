"""What is measured after training: refused before it where it must fail, on the split asked for, and never at the cost
of the other results."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import GREY, load
from flag_values import parse
from scripts import metrics_lines, read_json

from cvae_jax.errors import DataError, UserError
from cvae_jax.evaluation import disentanglement
from cvae_jax.runs import loop
from cvae_jax.runs import session as sessions
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import json_text
from cvae_jax.training import population as sweep
from cvae_jax.training.config import from_flat
from experiments import sweep as sweep_script
from experiments import train as train_script
from experiments.command_line import caching
from experiments.reports import measures, quality, results, scores, workdir
from experiments.reports.measures import Wanted

N = {"train": 64, "validation": 40, "test": 48}
SCORED = Wanted(disentanglement=True, nll_samples=3)


def arrays(condition="vector", **changed):
    """Arrays of an `.npz` of known factors, a label among them, each split under a condition of a kind."""
    rng = np.random.default_rng(0)
    found = {"factor_names": np.array(["shape", "size", "place"])}
    for split, n in N.items():
        factors = np.stack([np.arange(n) % 3, rng.integers(0, 4, n), rng.integers(0, 5, n)], axis=1)
        found[f"x_{split}"] = rng.uniform(size=(n, 4, 4))
        found[f"factors_{split}"] = factors
        c = {
            "label": factors[:, 0],
            "none": factors[:, 0],
            "vector": rng.normal(size=(n, 2)),
            "text": np.array([f"a {'small' if size else 'large'} one" for size in factors[:, 1]]),
            "audio": rng.normal(size=(n, 4, 4)),
            "image": rng.uniform(size=(n, 4, 4)),
        }
        if "," in condition:
            found |= {f"{name}_{split}": c[name] for name in condition.split(",")}
        else:
            found[f"c_{split}"] = c[condition]
    return {name: a for name, a in (found | changed).items() if a is not None}


@pytest.fixture
def write(tmp_path):
    def write(condition="vector", **changed):
        np.savez(tmp_path / "own.npz", **arrays(condition, **changed))
        return tmp_path / "own.npz"

    return write


def a_run(path, condition="vector"):
    config = from_flat(
        dataset=str(path), condition=condition, hidden=(8,), latent_dim=2, batch_size=32, epochs=1, **GREY
    )
    return Run("train", (config,), checkpoint_every=1)


@pytest.fixture
def opened(write, cache_dir):
    """A function from a condition to a session, and its member before training."""

    def open_one(condition="vector", **changed):
        session = sessions.open_session(a_run(write(condition, **changed), condition), cache_dir)
        (part,) = session.parts
        population = sweep.init(session.model, part.hparams)
        return session, sessions.trained_member(session, part, population, 0)

    return open_one


def quick_scores(codes, factors, *, categorical):
    """In place of all scores, which take seconds: a figure that depends on codes and factors."""
    figure = float(np.mean(codes) + np.mean(factors))
    return {"mig": figure, "mig_chance": figure}


@pytest.fixture
def train(cache_dir, monkeypatch):
    """`experiments.train` as called by a script."""
    monkeypatch.setattr(caching, "use", lambda: cache_dir)
    return train_script.train


# Disentanglement under any condition


def test_disentanglement_needs_no_label(opened):
    session, trained = opened("vector")
    record = scores.disentanglement_scores(session, trained)
    assert record.pop("factors") == ["shape", "size", "place"]
    assert all(math.isfinite(value) for value in record.values())


@pytest.mark.parametrize(
    ("condition", "left_out"),
    [
        ("text", 0),
        ("audio", 0),
        ("image", 0),
        ("text,label", 1),
        ("vector,text", 0),
        ("none", 0),
        ("label", 1),
    ],
)
def test_a_factor_that_is_a_label_among_the_conditions_is_left_out(write, condition, left_out):
    dataset = load(write(condition), condition=condition, **GREY)
    scored = scores.factors_to_score(dataset, None if condition == "none" else dataset.condition)
    assert scored.names == ["shape", "size", "place"][left_out:]
    np.testing.assert_array_equal(scored.factors, dataset.test.factors[scored.rows, left_out:])


def test_a_label_among_several_conditions_has_no_order(write):
    dataset = load(write("text,label"), condition="text,label", **GREY)
    assert scores.factors_to_score(dataset, None).categorical == [0]
    assert scores.factors_to_score(dataset, dataset.condition).categorical == []


# Refused before training


def constant(column=slice(None)):
    changed = {}
    for split in N:
        factors = arrays()[f"factors_{split}"].copy()
        factors[:, column] = 1
        changed[f"factors_{split}"] = factors
    return changed


REFUSED = {
    "no factors": ({f"factors_{s}": None for s in N} | {"factor_names": None}, "vector", "own has none"),
    "constant factors": (constant(), "vector", "one value only: shape, size, place; expected one that varies"),
    "the condition alone varies": (
        constant(slice(1, None)), "label", "size, place; expected one that varies besides shape, which is the condition"
    ),
    "few examples": ({"x_test": arrays()["x_test"][:3], "c_test": arrays()["c_test"][:3],
                      "factors_test": arrays()["factors_test"][:3]}, "vector", "of size 3, expected at least 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_refused_before_training(write, train, tmp_path, name):
    changed, condition, message = REFUSED[name]
    run = a_run(write(condition, **changed), condition)
    with pytest.raises(UserError, match=message):
        train(run, tmp_path / "run", Wanted(disentanglement=True))
    assert not (tmp_path / "run").exists()


def test_factors_of_nearly_unique_values_are_refused_before_training(write, train, tmp_path):
    factors = arrays()["factors_test"].copy()
    factors[:, 2] = np.arange(48) // 2
    with pytest.raises(DataError, match="factor place takes 24 values in 48 examples, expected at most 12"):
        train(a_run(write(factors_test=factors)), tmp_path / "run", Wanted(disentanglement=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("condition", ["vector", "audio"])
def test_samples_of_a_condition_without_a_judge_are_refused_before_training(
    write, train, tmp_path, condition
):
    with pytest.raises(UserError, match=f"condition is {condition} of .*, expected label"):
        train(a_run(write(condition), condition), tmp_path / "run", Wanted(sample_quality=True))
    assert not (tmp_path / "run").exists()


def test_images_that_are_all_the_same_cannot_be_judged(write, train, tmp_path):
    same = {"x_test": np.zeros((48, 4, 4))}
    with pytest.raises(DataError, match="no class of the test split holds two images that differ"):
        train(a_run(write("label", **same), "label"), tmp_path / "run", Wanted(sample_quality=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "message"), [("file/nll.npz", "is a file"), ("folder", "is a folder")])
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message):
        workdir.require_writable(tmp_path / name, tmp_path / "run", a_run("own.npz", "label"))
    file = tmp_path / "new" / "folder" / "nll.npz"
    workdir.require_writable(file, tmp_path / "run", a_run("own.npz", "label"))
    assert not (tmp_path / "new").exists()


# A failure after training


@pytest.mark.slow
def test_a_failure_costs_no_other_result_and_is_made_up_for(write, train, tmp_path, monkeypatch, capsys):
    run, folder = a_run(write()), tmp_path / "run"

    def fail(*_, **__):
        raise ValueError("no scores\ntoday")

    with monkeypatch.context() as patched:
        patched.setattr(disentanglement, "scores_and_chance", fail)
        patched.setattr(results.latents, "members_latent_terms", fail)
        with pytest.raises(
            UserError, match=r"disentanglement failed: ValueError: no scores today; the other"
        ):
            train(run, folder, SCORED)
    assert "Traceback" in capsys.readouterr().err
    summary = read_json(folder / "summary.json")
    why = "failed: ValueError: no scores today"
    assert summary["error"] == f"what the latents hold {why}; disentanglement {why}"
    assert "active_units" not in summary["test"]
    assert math.isfinite(summary["test"]["conditional_nll"])
    assert "disentanglement" not in summary
    assert {path.name for path in folder.glob("*.png")} == {
        "samples.png", "reconstructions.png", "traversals.png"
    }  # fmt: skip

    # The same call measures, and does not train.
    lines = metrics_lines(folder)
    monkeypatch.setattr(disentanglement, "scores_and_chance", quick_scores)
    monkeypatch.setattr(loop.sweep, "run_steps", fail)
    again = train(run, folder, SCORED)
    assert metrics_lines(folder) == lines
    assert "error" not in again
    assert math.isfinite(again["disentanglement"]["mig"])
    assert again["test"] == summary["test"] | {
        name: again["test"][name] for name in ("mutual_information", "aggregate_kl", "active_units")
    }
    monkeypatch.setattr(sessions, "open_session", fail)
    assert train(run, folder, SCORED) == read_json(folder / "summary.json")

    # Nor do pictures that cannot be drawn cost the results.
    monkeypatch.undo()
    monkeypatch.setattr(disentanglement, "scores_and_chance", quick_scores)
    monkeypatch.setattr(caching, "use", lambda: tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(results, "write_pictures", fail)
        (folder / "summary.json").unlink()
        with pytest.raises(UserError, match="drawing pictures failed: ValueError"):
            train(run, folder, SCORED)
    assert read_json(folder / "summary.json")["disentanglement"] == again["disentanglement"]

    # A figure that is not finite is an error, and null.
    monkeypatch.setattr(scores, "nll_of_test", lambda *_: np.array([1.0, np.nan]))
    with pytest.raises(UserError, match=r"^not finite: test conditional_nll, test conditional_nll_stan"):
        train(run, folder, Wanted(nll_samples=4))
    summary = read_json(folder / "summary.json")
    assert summary["test"]["conditional_nll"] is None
    assert summary["error"] == "not finite: test conditional_nll, test conditional_nll_standard_error"
    assert not measures.holds(measures.flat(summary), Wanted(nll_samples=4))


def test_a_sweep_names_the_members_whose_measures_failed():
    fine = {"member": 0, "mig": 0.5}
    rows = sweep_script._same_columns(
        [fine, *({"member": i, "error": f"not finite: test {i}"} for i in range(1, 8))]
    )
    assert rows[0] == fine | {"error": None}
    assert rows[1] == {"member": 1, "mig": None, "error": "not finite: test 1"}
    with pytest.raises(UserError) as raised:
        sweep_script._require_no_error(rows, ["drawing the report failed: full"])
    named = "; ".join(f"member {i}: not finite: test {i}" for i in range(1, 6))
    assert str(raised.value) == (
        f"drawing the report failed: full; {named}; 2 more members; the other results are written"
    )
    sweep_script._require_no_error(rows[:1], [])


def test_results_of_initial_parameters_are_an_error():
    def population(epoch, diverged):
        best = SimpleNamespace(epoch=np.array([epoch]))
        terms = {"diverged_step": np.array([diverged]), "diverged_term": np.array([0])}
        return sweep.Population(np.int32(0), SimpleNamespace(best=best, **terms))

    (fault,) = results.never_valid(population(0, -1), 0)
    assert "validation loss was finite after no epoch" in fault
    assert results.never_valid(population(3, -1), 0) == results.never_valid(population(0, 5), 0) == []


# One test example


def test_one_test_example_is_measured_without_a_warning(opened, capsys):
    one = {
        f"{name}_test": a[:1] for name in ("x", "c", "factors") if (a := arrays()[f"{name}_test"]) is not None
    }
    session, trained = opened(**one)
    (part,) = session.parts
    best = sweep.init(session.model, part.hparams).members.best
    test = results.split_metrics(session, part, best, [])["test"][0]
    assert test["active_units"] is None
    measure = measures.prepare(Wanted(nll_samples=3), session, None)
    record = measure(trained, {"validation": {}, "test": test}, [])
    assert math.isfinite(record["test"]["conditional_nll"])
    assert record["test"]["conditional_nll_standard_error"] is None
    assert measures.with_error(record, []) == record
    results.warn_of_collapse(session.run, {0: test | {"rate": 2.2}})
    assert capsys.readouterr().err == ""
    results.warn_of_collapse(session.run, {0: test | {"rate": 0.01}})
    assert capsys.readouterr().err.startswith("warning: posterior collapse (rate 0.01)")


# On the validation split


def test_measures_are_of_the_split_asked_for_and_recorded_under_it(opened, monkeypatch):
    monkeypatch.setattr(disentanglement, "scores_and_chance", quick_scores)
    session, trained = opened()
    record = {"validation": {"elbo": -1.0}, "test": {"elbo": -2.0}}
    both = {}
    for split in ("validation", "test"):
        wanted = dataclasses.replace(SCORED, split=split)
        measured = measures.prepare(wanted, session, None)(trained, record, [])
        row = measures.flat(measured)
        for other in ("validation", "test"):
            assert measures.holds(row, dataclasses.replace(SCORED, split=other)) == (split == other)
        both[split] = measured
    assert set(both["validation"]["test"]) == set(both["test"]["validation"]) == {"elbo"}
    assert set(both["validation"]) == {"validation", "test", "validation_disentanglement"}
    assert set(both["test"]) == {"validation", "test", "disentanglement"}

    # Measured as the test split of a dataset whose test split it is.
    swapped = dataclasses.replace(session, dataset=session.dataset.measured_on("validation"))
    assert len(swapped.dataset.test) == N["validation"]
    expected = measures.prepare(SCORED, swapped, None)(trained, record, [])
    assert both["validation"]["validation_disentanglement"] == expected["disentanglement"]
    name = "conditional_nll"
    assert both["validation"]["validation"][name] == expected["test"][name] != both["test"]["test"][name]


def test_samples_are_judged_beside_the_split_asked_for(write, cache_dir, monkeypatch):
    from cvae_jax.evaluation import quality as library

    seen = []
    monkeypatch.setattr(quality, "trained_once", lambda *_: None)
    monkeypatch.setattr(library, "make_judge", lambda dataset, params, seed: seen.append(len(dataset.test)))
    session = sessions.open_session(a_run(write("label"), "label"), cache_dir)
    for split in ("validation", "test"):
        quality.find_judge(session, cache_dir, 1.0, split=split)
    assert seen == [N["validation"], N["test"]]


def test_a_split_without_a_measure_is_refused(monkeypatch):
    run = a_run("own.npz")
    for split in ("validation", "test"):
        parse(monkeypatch, [], measures.define_flags, f"--split={split}")
        with pytest.raises(UserError, match=f"split is {split}, expected it with --nll_samples"):
            measures.wanted(run)
    parse(monkeypatch, [], measures.define_flags, "--split=validation", "--nll_samples=4")
    assert measures.wanted(run) == Wanted(nll_samples=4, split="validation")


def test_a_record_that_is_printed_holds_no_nan():
    assert json.loads(json_text({"test": {"elbo": math.nan}})) == {"test": {"elbo": None}}
