"""What a finished run shows: metrics of its best parameters, and pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax import checkpoints, evaluation
from cvae_jax.config import Hparams
from cvae_jax.randomness import Stream, stream
from cvae_jax.sweep import Population
from cvae_jax.training import Best
from experiments import figures
from experiments.cli import UserError
from experiments.loop import Part, Session, abstract_population
from experiments.workdir import write_atomically, write_json


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


def split_metrics(session: Session, part: Part, best: Best) -> dict[str, list[dict[str, float]]]:
    """ELBO, rate and distortion of the members' best parameters, on validation and test."""
    dataset = session.dataset
    return {
        name: evaluation.summarize(
            evaluation.members_elbo_terms(
                session.model,
                best.params,
                evaluation.on_device(split, dataset.x_max),
                part.hparams.latent_mask,
            )
        )[: len(part.members)]
        for name, split in (("validation", dataset.validation), ("test", dataset.test))
    }


def test_nll(session: Session, params: Any, latent_mask: Any, num_samples: int) -> np.ndarray:
    """Negative log-likelihoods of the test split, by importance sampling; nats, shape (n,)."""
    examples = evaluation.on_device(session.dataset.test, session.dataset.x_max)
    key = stream(jax.random.key(0), Stream.IMPORTANCE)
    nll = evaluation.importance_nll(
        session.model, params, examples, latent_mask, key, num_samples=num_samples
    )
    return np.asarray(nll, np.float64)


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


def finish(session: Session, population: Population, seconds: float, workdir: Path) -> dict[str, Any]:
    """Write an ordinary run's pictures, then its `summary.json`, and return the summary."""
    (part,) = session.parts
    trained = trained_member(part, population, 0)
    metrics = split_metrics(session, part, population.members.best)
    write_pictures(session, trained, workdir)
    steps = int(population.step)
    summary = {
        "validation": metrics["validation"][0],
        "test": metrics["test"][0],
        "best_epoch": int(trained.best.epoch),
        "epochs": steps // session.steps_per_epoch,
        "steps": steps,
        "seconds": seconds,
        "examples_per_second": steps * session.run.config.batch_size / seconds,
        "params": sum(leaf.size for leaf in jax.tree.leaves(trained.best.params)),
    }
    write_json(workdir / "summary.json", summary)
    return summary


def write_pictures(session: Session, trained: Trained, workdir: Path) -> None:
    """`samples.png`, `reconstructions.png` and `traversals.png` of one member."""
    for name, figure in (
        ("samples", figures.samples_figure(session, trained)),
        ("reconstructions", figures.reconstructions_figure(session, trained)),
        ("traversals", figures.traversals_figure(session, trained)),
    ):
        write_atomically(workdir / f"{name}.png", figure.savefig)
