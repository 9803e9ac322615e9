"""A run with its model, and with its dataset if it is needed for training or evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from cvae_jax.data import reading
from cvae_jax.data.dataset import Dataset, Description, Split
from cvae_jax.errors import UserError
from cvae_jax.model import CVAE, Model
from cvae_jax.runs import checkpoints, provenance
from cvae_jax.runs.description import few_examples, read_description, read_examples
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run
from cvae_jax.training import devices, loader, memory
from cvae_jax.training import population as sweep
from cvae_jax.training.config import Config
from cvae_jax.training.hparams import Hparams, stack_hparams
from cvae_jax.training.population import Population
from cvae_jax.training.step import DIVERGED_TERMS, Best

if TYPE_CHECKING:
    from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class Part:
    """Members that train together, as one program.

    Attributes:
      index: which part of the run.
      members: their numbers in the run.
      size: number of members in the program, of which those past `members` repeat the last to fill it.
      hparams: stacked settings, `size` of them.
    """

    index: int
    members: range
    size: int
    hparams: Hparams


@dataclasses.dataclass(frozen=True)
class RunModel:
    """A run and its model. They need no dataset: the folder of the run stores what they must know about the data.

    Attributes:
      run: the members and how they train.
      data: what is known of the data.
      examples: a few test examples, see `few_examples`.
      model: the model that all members share.
      mesh: the devices.
      parts: the members, as many at a time as train together.
    """

    run: Run
    data: Description
    examples: Split
    model: CVAE
    mesh: Mesh
    parts: tuple[Part, ...]

    def part_of(self, member: int) -> Part:
        """The part that a member trains in."""
        return self.parts[member // self.run.members_per_program]


@dataclasses.dataclass(frozen=True)
class Session(RunModel):
    """A run, its model and its dataset, ready to train or to evaluate.

    Attributes:
      dataset: the three splits.
    """

    dataset: Dataset

    @property
    def batch_size(self) -> int:
        """Examples per step."""
        return loader.batch_size(self.run.config, len(self.dataset.train))

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training split."""
        return loader.steps_per_epoch(self.run.config, self.dataset)

    @property
    def total_steps(self) -> int:
        """Updates of the whole training."""
        return self.run.config.epochs * self.steps_per_epoch


def open_model(workdir: Path) -> RunModel:
    """The run that a folder records, and its model.

    Raises:
      UserError: if the folder holds no run, or records nothing of its data.
    """
    return model_of(read_run(workdir), read_description(workdir), read_examples(workdir))


def model_of(run: Run, data: Description, examples: Split) -> RunModel:
    """A run and its model.

    Args:
      run: the run.
      data: what is known of its data.
      examples: a few test examples.

    Raises:
      UserError: if the members cannot be trained on such data.
    """
    model = sweep.model_of(run.members, data)
    mesh = devices.make_mesh(run.members_per_program, run.config.batch_size)
    return RunModel(run, data, examples, model, mesh, _parts(run, model, mesh))


def open_session(run: Run, cache: Path) -> Session:
    """Load a run's dataset and build its model.

    Args:
      run: the run.
      cache: folder of packed datasets.

    Raises:
      UserError: if the data cannot be used, or the members need more memory than there is.
    """
    return new_session(run, load_dataset(run.config, run.data_dir, cache))


def load_dataset(config: Config, data_dir: str | None, cache: Path) -> Dataset:
    """The dataset that a configuration names.

    Args:
      config: the configuration.
      data_dir: where TFDS keeps prepared datasets, None for its default.
      cache: folder of packed datasets.
    """
    return reading.load(
        config.data,
        config.condition,
        config.likelihood,
        data_dir=Path(data_dir) if data_dir else None,
        cache_dir=cache,
    )


def new_session(run: Run, dataset: Dataset) -> Session:
    """Build a run's model and divide its members into parts.

    Args:
      run: the run.
      dataset: as `cvae_jax.data.reading.prepared` makes it.

    Raises:
      UserError: if the members cannot train on these data, or need more memory than there is.
    """
    model = sweep.build_model(run.members, dataset)
    memory.require_room(model, run.members, run.members_per_program)
    mesh = devices.make_mesh(run.members_per_program, loader.batch_size(run.config, len(dataset.train)))
    parts = _parts(run, model, mesh)
    return Session(run, dataset.description, few_examples(dataset), model, mesh, parts, dataset)


def _parts(run: Run, model: Model, mesh: Mesh) -> tuple[Part, ...]:
    """The members of a run, as many at a time as train together."""
    size = devices.padded(run.members_per_program, mesh)
    every = stack_hparams(run.members, capacity=model.capacity)
    parts = []
    for first in range(0, len(run.members), run.members_per_program):
        numbers = range(first, min(first + run.members_per_program, len(run.members)))
        rows = np.minimum(np.arange(first, first + size), numbers[-1])
        hparams = jax.tree.map(lambda leaf, rows=rows: leaf[rows], every)
        parts.append(Part(len(parts), numbers, size, devices.by_member(hparams, mesh)))
    return tuple(parts)


def abstract_population(session: RunModel, part: Part) -> Population:
    """Shapes and types of a part's population."""
    return jax.eval_shape(lambda hparams: sweep.init(session.model, hparams), part.hparams)


def origin_of(session: RunModel) -> dict[str, Any]:
    """What a checkpoint stores besides the members: settings, data and versions."""
    return provenance.record(session.run, session.data)


def load_population(session: RunModel, part: Part, workdir: Path) -> Population:
    """The latest checkpoint of a part.

    Args:
      session: the run.
      part: some of its members.
      workdir: its folder.

    Raises:
      UserError: if there is none, or it is of another run.

    Warns:
      UserWarning: if the data are not those it was trained on.
    """
    folder = checkpoint_dir(session.run, part, workdir)
    checkpoint = None
    if folder.exists():
        with checkpoints.open_manager(folder, read_only=True) as manager:
            checkpoint = checkpoints.restore(manager, abstract_population(session, part))
    if checkpoint is None:
        raise UserError(f"{workdir} holds no checkpoint yet, expected one in {folder}")
    provenance.require_readable(checkpoint, workdir, session.run, session.data)
    return checkpoint.population


def checkpoint_dir(run: Run, part: Part, workdir: Path) -> Path:
    """Where a part's checkpoints are."""
    folder = workdir / "checkpoints"
    return folder if run.members_per_program >= len(run.members) else folder / f"part-{part.index}"


@dataclasses.dataclass(frozen=True)
class Trained:
    """One member of a run, read from its checkpoint.

    Attributes:
      member: its number in the run.
      best: its best parameters by validation.
      config: its configuration.
    """

    member: int
    best: Best
    config: Config


def trained_member(session: RunModel, part: Part, population: Population, member: int) -> Trained:
    """A member of a part's population."""
    best = member_of(population.members.best, part.members.index(member))
    return Trained(member, best, session.run.members[member])


def load_member(session: RunModel, workdir: Path, member: int) -> Trained:
    """A member of a run from its latest checkpoint.

    Raises:
      UserError: if there is none, or it is of another run.
    """
    part = session.part_of(member)
    return trained_member(session, part, load_population(session, part, workdir), member)


def member_of(tree: PyTree, position: int) -> PyTree:
    """Take one member out of a stacked pytree."""
    return jax.tree.map(lambda leaf: leaf[position], tree)


def stack_one(tree: PyTree) -> PyTree:
    """One member's pytree as a stack of one: a leading axis of size 1 is added."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def stopped_epoch(population: Population, position: int) -> int | None:
    """The number of epochs after which a member stopped early, or None."""
    epoch = int(population.members.stopped_epoch[position])
    return None if epoch < 0 else epoch


def diverged(population: Population, position: int) -> tuple[int, str] | None:
    """The step at which a member diverged and the term that was not finite, or None."""
    step = int(population.members.diverged_step[position])
    return None if step < 0 else (step, DIVERGED_TERMS[int(population.members.diverged_term[position])])
