"""What a finished run shows: metrics of its best parameters, and pictures."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cvae_jax import checkpoints, evaluation, latents, plots, sampling
from cvae_jax.config import Hparams
from cvae_jax.dataset import unit
from cvae_jax.randomness import Stream, stream
from cvae_jax.sweep import Population
from cvae_jax.training import Best
from experiments.cli import UserError
from experiments.loop import Part, Session, abstract_population, stopped_epoch
from experiments.measures import SPLITS, Record
from experiments.workdir import Run, write_atomically, write_json

_COLUMNS = 12
_TRAVERSED_LATENTS = 64
# Below it, in nats, a posterior is the prior for all practical purposes.
_COLLAPSED_RATE = 0.1
_MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Trained:
    """One member of a run, as its checkpoint has it.

    Attributes:
      member: its number in the run.
      best: its best parameters by validation.
      hparams: its settings.
    """

    member: int
    best: Best
    hparams: Hparams


def load_population(session: Session, part: Part, workdir: Path) -> Population:
    """The latest checkpoint of a part."""
    folder = session.checkpoint_dir(workdir, part)
    population = None
    if folder.exists():
        with checkpoints.open_manager(folder) as manager:
            population = checkpoints.restore(manager, abstract_population(session, part))
    if population is None:
        raise UserError(f"{workdir} holds no checkpoint yet, expected one in {folder}")
    return population


def split_metrics(session: Session, part: Part, best: Best) -> dict[str, list[dict[str, Any]]]:
    """The bound's terms of the members' best parameters on validation and test, and what the latents hold on test."""
    dataset = session.dataset
    dims = math.prod(dataset.shape) if session.model.likelihood.bits else None
    splits = {
        name: evaluation.on_device(split, dataset.x_max)
        for name, split in (("validation", dataset.validation), ("test", dataset.test))
    }
    masks = part.hparams.latent_mask
    metrics = {
        name: evaluation.summarize(
            evaluation.members_elbo_terms(session.model, best.params, examples, masks), dims=dims
        )
        for name, examples in splits.items()
    }
    terms = latents.members_latent_terms(session.model, best.params, splits["test"], masks)
    held = latents.summarize(terms, [test["rate"] for test in metrics["test"]])
    metrics["test"] = [a | b for a, b in zip(metrics["test"], held, strict=True)]
    return {name: members[: len(part.members)] for name, members in metrics.items()}


def warn_of_collapse(run: Run, tests: dict[int, dict[str, Any]]) -> None:
    """Say whose latents carry nothing, in a line or two on standard error.

    Args:
      run: the run.
      tests: test metrics by the member's number.
    """
    collapsed, idle = [], []
    for i, test in tests.items():
        active, latent_dim = test["active_units"], run.members[i].latent_dim
        whose = f"member {i}: " if run.kind == "sweep" else ""
        found = f"{whose}{active} of {latent_dim} active, rate {test['rate']:.2f}"
        if active == 0 or test["rate"] < _COLLAPSED_RATE:
            collapsed.append(found)
        elif active < latent_dim:
            idle.append(found)
    for fault, members, remedy in (
        ("posterior collapse", collapsed, ": try a lower --beta, --warmup_epochs or --objective=free_bits"),
        ("idle latents", idle, ""),
    ):
        if members:
            more = f" and {len(members) - _MOST_NAMED} more" if len(members) > _MOST_NAMED else ""
            print(f"warning: {fault} ({', '.join(members[:_MOST_NAMED])}{more}){remedy}", file=sys.stderr)


def member_of(tree: Any, position: int) -> Any:
    """One member of a stacked pytree."""
    return jax.tree.map(lambda leaf: leaf[position], tree)


def trained_member(part: Part, population: Population, member: int) -> Trained:
    """A member of a part's population."""
    position = part.members.index(member)
    return Trained(member, member_of(population.members.best, position), member_of(part.hparams, position))


def stack_one(tree: Any) -> Any:
    """A population of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def finish(
    session: Session,
    population: Population,
    seconds: float,
    workdir: Path,
    measure: Callable[[Trained, Record], Record],
) -> Record:
    """Write an ordinary run's pictures, then its `summary.json`, and return the summary."""
    (part,) = session.parts
    trained = trained_member(part, population, 0)
    metrics = split_metrics(session, part, population.members.best)
    write_pictures(session, trained, workdir)
    steps = int(population.step)
    summary = {
        **measure(trained, {split: metrics[split][0] for split in SPLITS}),
        "best_epoch": int(trained.best.epoch),
        "stopped_epoch": stopped_epoch(population, 0),
        "epochs": steps // session.steps_per_epoch,
        "steps": steps,
        "seconds": seconds,
        "examples_per_second": steps * session.run.config.batch_size / seconds,
        "params": sum(leaf.size for leaf in jax.tree.leaves(trained.best.params)),
    }
    write_json(workdir / "summary.json", summary)
    warn_of_collapse(session.run, {0: summary["test"]})
    return summary


def write_pictures(session: Session, trained: Trained, workdir: Path) -> None:
    """`samples.png`, `reconstructions.png` and `traversals.png` of one member."""
    for name, figure in (
        ("samples", samples_figure(session, trained)),
        ("reconstructions", reconstructions_figure(session, trained)),
        ("traversals", traversals_figure(session, trained)),
    ):
        write_atomically(workdir / f"{name}.png", figure.savefig)


def samples_figure(session: Session, trained: Trained) -> Figure:
    """Draws from the prior, a row per class."""
    conditional = session.run.config.condition == "label"
    classes = session.dataset.num_classes if conditional else 10
    names = session.dataset.class_names if conditional else ()
    c = jnp.repeat(jnp.arange(classes), _COLUMNS) if conditional else jnp.zeros(classes * _COLUMNS, jnp.int32)
    key = stream(jax.random.key(0), Stream.SAMPLES)
    images = sampling.generate(session.model, trained.best.params, key, c, trained.hparams.latent_mask)
    title = "samples from the prior, a row per class" if conditional else "samples from the prior"
    return plots.image_grid(
        np.asarray(images).reshape(classes, _COLUMNS, *session.dataset.shape), title=title, row_labels=names
    )


def reconstructions_figure(session: Session, trained: Trained) -> Figure:
    """Test images above their reconstructions, classes in turn."""
    test = session.dataset.test
    rows = np.concatenate([np.flatnonzero(test.c == label)[:4] for label in np.unique(test.c)])
    rows = rows[np.argsort(np.arange(len(rows)) % 4, kind="stable")][: 3 * _COLUMNS]
    rows = rows[: max(1, len(rows) // _COLUMNS) * _COLUMNS]
    columns = min(_COLUMNS, len(rows))
    x = unit(test.x[rows], session.dataset.x_max)
    images = np.asarray(
        sampling.reconstruct(
            session.model,
            trained.best.params,
            jnp.asarray(x),
            jnp.asarray(test.c[rows]),
            trained.hparams.latent_mask,
        )
    )
    pairs = np.stack([a.reshape(-1, columns, *session.dataset.shape) for a in (x, images)], axis=1)
    return plots.image_grid(
        pairs.reshape(-1, columns, *session.dataset.shape),
        title="test images above their reconstructions",
        row_labels=("test", "mean") * len(pairs),
    )


def traversals_figure(session: Session, trained: Trained) -> Figure:
    """Each latent swept from −3 to 3, the others at 0, for one condition."""
    label = session.dataset.num_classes // 2 if session.run.config.condition == "label" else 0
    latents = jnp.flatnonzero(trained.hparams.latent_mask)[:_TRAVERSED_LATENTS]
    values = jnp.linspace(-3.0, 3.0, _COLUMNS + 1)
    images = sampling.traverse(
        session.model,
        trained.best.params,
        jnp.zeros(session.model.capacity),
        jnp.int32(label),
        trained.hparams.latent_mask,
        latents=latents,
        values=values,
    )
    condition = (
        f", class {session.dataset.class_names[label]}" if session.run.config.condition == "label" else ""
    )
    return plots.image_grid(
        np.asarray(images),
        title=f"each latent from −3 to 3{condition}",
        row_labels=[f"z{int(i)}" for i in latents],
        column_labels=[f"{float(v):g}" for v in values],
    )
