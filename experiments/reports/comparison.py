"""Two trained models on the same examples, with paired differences: `evaluate --compare=A,B`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from cvae_jax.conditions import Observed
from cvae_jax.data.dataset import Dataset
from cvae_jax.data.examples import on_device
from cvae_jax.errors import UserError
from cvae_jax.evaluation import bounds
from cvae_jax.runs import session as sessions
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import Session, Trained, diverged, load_population, trained_member
from cvae_jax.runs.workdir import read_run
from cvae_jax.training.config import Config
from experiments.reports import scores
from experiments.reports.measures import nll_name
from experiments.reports.workdir import best_member

if TYPE_CHECKING:
    from experiments.reports.quality import Record


class Named(NamedTuple):
    """A trained model as `--compare` names it.

    Attributes:
      name: as in the flag.
      workdir, run, member: the member of a run in a folder.
    """

    name: str
    workdir: Path
    run: Run
    member: int


def named(name: str) -> Named:
    """The model that a name stands for: `WORKDIR` of a run, `WORKDIR:N` or `WORKDIR:best` of a sweep's member.

    Raises:
      UserError: if there is no such model.
    """
    folder, colon, which = name.rpartition(":")
    # A folder's own name may hold a colon.
    if not colon or Path(name).exists():
        folder, which = name, ""
    workdir = Path(folder)
    run = read_run(workdir)
    if run.kind == "train":
        if which:
            raise UserError(f"compare is {name}, expected {folder}: it holds one run")
        return Named(name, workdir, run, 0)
    if which == "best":
        return Named(name, workdir, run, best_member(workdir))
    if not (which.isdecimal() and int(which) < len(run.members)):
        raise UserError(
            f"compare is {name}, expected {folder}:best or {folder}:N with a member N from 0 to {len(run.members) - 1}"
        )
    return Named(name, workdir, run, int(which))


def compare(
    a: Named, b: Named, cache: Path, *, nll_samples: int | None, split: Literal["validation", "test"]
) -> Record:
    """Figures of two models on the same examples under the same noise, and the difference A − B of each.

    Args:
      a, b: the models.
      cache: of packed datasets.
      nll_samples: draws of z per example for the likelihoods, None to leave them out.
      split: whose examples.

    Returns:
      `examples`, their number; and for `elbo`, `rate`, `distortion` and the negative log-likelihood the mean `a` and
      `b`, their `difference`, and its `standard_error` s / √n with the standard deviation s of the n examples'
      differences, None of one example; nats per example.

    Raises:
      UserError: if their figures are not of the same examples in the same units.
    """
    _require_same_units(a, b)
    opened = [sessions.open_session(one.run, cache) for one in (a, b)]
    opened = [dataclasses.replace(each, dataset=each.dataset.measured_on(split)) for each in opened]
    _require_same_examples(a, b, [each.dataset for each in opened], split)
    of_a, of_b = (
        _figures(session, _trained(session, one), nll_samples)
        for session, one in zip(opened, (a, b), strict=True)
    )
    record: dict[str, Any] = {"compare": [a.name, b.name], "split": split}
    record |= {"examples": len(opened[0].dataset.test)}
    record |= {} if nll_samples is None else {"nll_samples": nll_samples}
    # Likelihoods of a model with a condition and of one without differ in name alone.
    names = zip(of_a, of_b, strict=True)
    return record | {name: _paired(of_a[name], of_b[other]) for name, other in names}


def _paired(a: np.ndarray, b: np.ndarray) -> Record:
    return {
        "a": float(np.mean(a)),
        "b": float(np.mean(b)),
        "difference": float(np.mean(a - b)),
        "standard_error": scores.standard_error(a - b),
    }


def _trained(session: Session, one: Named) -> Trained:
    part = session.part_of(one.member)
    population = load_population(session, part, one.workdir)
    if failure := diverged(population, part.members.index(one.member)):
        raise UserError(
            f"{one.name} diverged at step {failure[0]}, expected a model that did not, to be compared"
        )
    return trained_member(session, part, population, one.member)


def _figures(session: Session, trained: Trained, nll_samples: int | None) -> dict[str, np.ndarray]:
    """Each example's ELBO, rate and distortion, and negative log-likelihood, shape (n,), float64, nats."""
    examples = on_device(session.dataset.test, session.dataset.x_max)
    terms = bounds.members_elbo_terms(session.model, sessions.stack_one(trained.best.params), examples)
    rate, distortion = (np.asarray(term, np.float64)[0] for term in (terms.rate, terms.distortion))
    figures = {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion}
    if nll_samples is not None:
        figures[nll_name(session.model)] = scores.nll_of_test(session, trained, nll_samples)
    return figures


def _units(config: Config) -> str:
    """What the model's likelihood counts."""
    if config.likelihood.binary:
        what = "probabilities of binary pixels"
    elif config.likelihood.whole_levels:
        what = "probabilities of whole levels"
    else:
        what = "densities of pixels from 0 to 1"
    for condition in config.condition or ():
        if isinstance(condition, Observed):
            return f"{what}, of those hidden by --observed={condition.observed}"
    return what


def _require_same_units(a: Named, b: Named) -> None:
    units = [_units(one.run.config) for one in (a, b)]
    if units[0] != units[1]:
        raise UserError(
            f"{a.name} gives {units[0]} and {b.name} {units[1]}, expected the same of both to be compared"
        )


def _data_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what the examples of validation and test are."""
    data = {name: getattr(config.data, name) for name in ("dataset", "target_feature", "data_seed")}
    return data | {"binarize": config.binarize}


def _require_same_examples(a: Named, b: Named, datasets: list[Dataset], split: str) -> None:
    x, other = (dataset.test.x for dataset in datasets)
    if datasets[0].x_max == datasets[1].x_max and x.dtype == other.dtype and np.array_equal(x, other):
        return
    first, second = (_data_settings(one.run.config) for one in (a, b))
    differing = [
        f"{name} is {value} of the first and {second[name]} of the second"
        for name, value in first.items()
        if value != second[name]
    ] or ["their arrays differ"]
    raise UserError(
        f"{a.name} and {b.name} have other {split} examples, expected the same to be compared: {differing[0]}"
    )
