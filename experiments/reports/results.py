"""What a finished run shows: metrics of its best parameters, and pictures."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax.conditions import Label
from cvae_jax.data.examples import on_device
from cvae_jax.errors import shortened
from cvae_jax.evaluation import bounds as evaluation
from cvae_jax.evaluation import latents, reconstruction
from cvae_jax.files import write_atomically
from cvae_jax.runs.logs import Logger, TensorBoard
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import (
    Part,
    RunModel,
    Session,
    Trained,
    diverged,
    member_of,
    stopped_epoch,
    trained_member,
)
from cvae_jax.runs.workdir import write_json
from cvae_jax.training import validation
from cvae_jax.training.config import name_of, traced_options
from cvae_jax.training.population import Population
from cvae_jax.training.step import Best
from experiments.command_line.progress import Progress
from experiments.reports import figures, members
from experiments.reports.measures import SPLITS, Record, attempt, with_error

# Below it, in nats, a posterior is the prior for all practical purposes.
_COLLAPSED_RATE = 0.1
_MOST_NAMED = 5
# Names of classes in the first lines of a run, and characters of one.
_MOST_NAMES, _LONGEST_NAME = 10, 20


def describe(session: Session) -> str:
    """One line on what is about to be trained."""
    dataset, members = session.dataset, session.run.members
    options = traced_options(session.run.config)
    beta = f"beta {options['beta']:g}, " if "beta" in options else ""
    what = (
        f"{beta}{session.run.config.latent_dim} latents" if len(members) == 1 else f"{len(members)} members"
    )
    kind = session.mesh.devices.flat[0].device_kind
    device = f"{session.mesh.size} × {kind}" if session.mesh.size > 1 else kind
    return (
        f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test examples; {name_of(session.run.config, 'network')}, {what}, on {device}"
    )


def describe_data(session: Session) -> str:
    """How x was read and what c is made of, a line each."""
    dataset, condition = session.dataset, session.model.condition
    lines = [f"x: {dataset.read_as}"]
    if isinstance(condition, Label):
        names = dataset.class_names
        some = ", ".join(shortened(name, _LONGEST_NAME) for name in names[:_MOST_NAMES])
        classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
        lines.append(f"c: {classes}: {some}{', …' if len(names) > _MOST_NAMES else ''}")
    elif condition is not None:
        lines.append(f"c: {condition.name}")
    return "\n".join(lines)


def loggers(session: Session, part: Part, workdir: Path) -> Sequence[Logger]:
    """What a training reports to beside `metrics.jsonl`: TensorBoard and the terminal."""
    sweep = session.run.kind == "sweep"
    return TensorBoard(workdir, part.members, sweep=sweep), Progress(session, part)


def split_metrics(
    session: Session, part: Part, best: Best, faults: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Metrics of the members' best parameters, by split.

    The bound's terms on validation and test, with several draws the bound of as many, too; of validation the loss that
    the best parameters were chosen by; of test also what the latents hold, and errors of reconstructions, which are
    left out and added to the faults if they cannot be computed.
    """
    dataset, model, config = session.dataset, session.model, session.run.config
    dims = math.prod(dataset.shape) if model.likelihood.whole_levels else None
    splits = {
        name: on_device(split, dataset.x_max)
        for name, split in (("validation", dataset.validation), ("test", dataset.test))
    }
    metrics: dict[str, list[dict[str, Any]]] = {
        name: evaluation.summarize(evaluation.members_elbo_terms(model, best.params, examples), dims=dims)[
            : len(part.members)
        ]
        for name, examples in splits.items()
    }
    if config.objective.draws > 1:
        for name, examples in splits.items():
            bounds = validation.members_bounds(model, best.params, examples, part.hparams)
            for member, bound in zip(metrics[name], bounds.tolist(), strict=False):
                member["importance_weighted_bound"] = bound
    for member, loss in zip(metrics["validation"], best.loss.tolist(), strict=False):
        member["loss"] = loss if math.isfinite(loss) else None  # inf before the first finite one

    def held() -> list[dict[str, Any]]:
        terms = latents.members_latent_terms(model, best.params, splits["test"])
        one_prior = not model.prior.reads_condition or model.condition is None
        terms = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(part.members)], terms)
        return latents.summarize(terms, [test["rate"] for test in metrics["test"]], one_prior=one_prior)

    def reconstructed() -> list[dict[str, Any]]:
        each = [member_of(best.params, i) for i in range(len(part.members))]
        found = [reconstruction.reconstruction_errors(model, params, splits["test"]) for params in each]
        return [reconstruction.summarize(errors, dataset.shape) for errors in found]

    measures = {"errors of reconstructions": reconstructed}
    if model.flat_latents:
        measures = {"what the latents hold": held} | measures
    for what, measure in measures.items():
        found = attempt(faults, what, measure) or [{}] * len(part.members)
        metrics["test"] = [a | b for a, b in zip(metrics["test"], found, strict=True)]
    return metrics


def warn_of_collapse(run: Run, tests: dict[int, dict[str, Any]]) -> None:
    """Say whose latents carry nothing, in a line or two on standard error.

    Args:
      run: the run.
      tests: test metrics by the member's number.
    """
    if not run.config.objective.has_posterior:
        return
    collapsed, idle = [], []
    for i, test in tests.items():
        active, latent_dim = test.get("active_units"), run.members[i].latent_dim
        whose = f"member {i}: " if run.kind == "sweep" else ""
        counted = "" if active is None else f"{active} of {latent_dim} active, "
        found = f"{whose}{counted}rate {test['rate']:.2f}"
        if active == 0 or test["rate"] < _COLLAPSED_RATE:
            collapsed.append(found)
        elif active is not None and active < latent_dim:
            idle.append(found)
    for fault, affected, remedy in (
        ("posterior collapse", collapsed, ": try a lower --beta, --warmup_epochs or --objective=free_bits"),
        ("idle latents", idle, ""),
    ):
        if affected:
            more = f" and {len(affected) - _MOST_NAMED} more" if len(affected) > _MOST_NAMED else ""
            print(f"warning: {fault} ({', '.join(affected[:_MOST_NAMED])}{more}){remedy}", file=sys.stderr)


def finish(
    session: Session,
    population: Population,
    seconds: float,
    workdir: Path,
    measure: Callable[[Trained, Record, list[str]], Record],
) -> Record:
    """Write an ordinary run's pictures, its results for TensorBoard, then its `summary.json`; return the summary.

    What fails is left out, and named by the summary's `error`.
    """
    (part,) = session.parts
    trained = trained_member(session, part, population, 0)
    faults = never_valid(population, 0)
    metrics = split_metrics(session, part, population.members.best, faults)
    pictures = attempt(faults, "drawing pictures", write_pictures, session, trained, workdir) or []
    record = measure(trained, {split: metrics[split][0] for split in SPLITS}, faults)
    small = attempt(faults, "drawing samples and reconstructions", members.pictures_of, session, trained)
    attempt(
        faults, "TensorBoard's results",
        members.write_tensorboard, session, 0, record["test"], small, int(population.step), workdir,
    )  # fmt: skip
    summary = {
        **with_error(record, faults),
        "pictures": pictures,
        "best_epoch": int(trained.best.epoch),
        "stopped_epoch": stopped_epoch(population, 0),
        "epochs": int(population.step) // session.steps_per_epoch,
        **effort(population, seconds),
        "examples_per_second": int(population.step) * session.batch_size / seconds if seconds else None,
    }
    write_json(workdir / "summary.json", summary)
    warn_of_collapse(session.run, {0: summary["test"]})
    return summary


def effort(population: Population, seconds: float) -> Record:
    """What an ordinary run took, and the number of its parameters."""
    steps, params = int(population.step), jax.tree.leaves(population.members.best.params)
    return {
        "steps": steps,
        "seconds": seconds,
        "params": sum(leaf[0].size for leaf in params),
    }


def never_valid(population: Population, position: int) -> list[str]:
    """Says so where no epoch of a member had a finite validation loss: what is left are its initial parameters."""
    if int(population.members.best.epoch[position]) > 0 or diverged(population, position):
        return []
    return ["the validation loss was finite after no epoch, and these are results of the initial parameters"]


def write_pictures(session: RunModel, trained: Trained, workdir: Path) -> list[str]:
    """Write the pictures of an ordinary run; their names."""
    draw = {"samples.png": figures.samples_figure, "reconstructions.png": figures.reconstructions_figure}
    if session.model.flat_latents:
        draw["traversals.png"] = figures.traversals_figure
    for name, figure in draw.items():
        write_atomically(workdir / name, figure(session, trained).savefig)
    return list(draw)
