"""Train the members of a run to its last epoch: checkpoints and logs."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from cvae_jax.hparams import Hparams
from jax.sharding import Mesh

from cvae_jax.data import reading
from cvae_jax.data.dataset import Dataset
from cvae_jax.errors import UserError
from cvae_jax.evaluation import bounds
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.model import CVAE
from cvae_jax.training import checkpoints, devices, loader, memory
from cvae_jax.training import population as sweep
from cvae_jax.training.population import Population
from cvae_jax.training.step import DIVERGED_TERMS
from experiments import logs, provenance
from experiments.cli import Interrupted
from experiments.progress import progress
from experiments.workdir import MetricsLog, Run

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

# One call into the compiled program lasts about this long: how often progress shows and a signal is heard.
_SECONDS_PER_CALL = 1.0


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
class Session:
    """A run's dataset and model, ready to train or to look at.

    Attributes:
      run: what `config.json` records.
      dataset: the three splits.
      model: the model all members share.
      mesh: the devices.
      parts: the members, as many at a time as train together.
    """

    run: Run
    dataset: Dataset
    model: CVAE
    mesh: Mesh
    parts: tuple[Part, ...]

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training split."""
        return loader.steps_per_epoch(self.run.config, self.dataset)

    def part_of(self, member: int) -> Part:
        """The part that a member trains in."""
        return self.parts[member // self.run.members_per_program]

    def checkpoint_dir(self, workdir: Path, part: Part) -> Path:
        """Where a part's checkpoints lie."""
        folder = workdir / "checkpoints"
        return folder if len(self.parts) == 1 else folder / f"part-{part.index}"


def open_session(run: Run, cache: Path) -> Session:
    """Load a run's dataset, build its model and divide its members into parts."""
    data_dir = Path(run.data_dir) if run.data_dir else None
    dataset = reading.load(run.config, data_dir=data_dir, cache_dir=cache)
    model = sweep.build_model(run.config, dataset, run.members)
    memory.require_room(model, run.members, run.members_per_program)
    mesh = devices.make_mesh(run.members_per_program, run.config.batch_size)
    per_epoch = loader.steps_per_epoch(run.config, dataset)
    size = devices.padded(run.members_per_program, mesh)
    every = sweep.stack_hparams(run.members, capacity=model.capacity, steps_per_epoch=per_epoch)
    parts = []
    for first in range(0, len(run.members), run.members_per_program):
        numbers = range(first, min(first + run.members_per_program, len(run.members)))
        rows = np.minimum(np.arange(first, first + size), numbers[-1])
        hparams = jax.tree.map(lambda leaf, rows=rows: leaf[rows], every)
        parts.append(Part(len(parts), numbers, size, devices.by_member(hparams, mesh)))
    return Session(run, dataset, model, mesh, tuple(parts))


def describe(session: Session) -> str:
    """One line on what is about to be trained."""
    dataset, members = session.dataset, session.run.members
    one = members[0]
    what = f"{len(members)} members" if len(members) > 1 else f"beta {one.beta:g}, {one.latent_dim} latents"
    kind = session.mesh.devices.flat[0].device_kind
    device = f"{session.mesh.size} × {kind}" if session.mesh.size > 1 else kind
    return (
        f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test examples; {session.run.config.network}, {what}, on {device}"
    )


def abstract_population(session: Session, part: Part) -> Population:
    """Shapes and types of a part's population."""
    return jax.eval_shape(lambda hparams: sweep.init(session.model, hparams), part.hparams)


def train(session: Session, part: Part, workdir: Path) -> tuple[Population, float]:
    """Train one part to the last epoch, or until no member runs, from its latest checkpoint if there is one.

    Args:
      session: the run.
      part: the members to train.
      workdir: where checkpoints, `metrics.jsonl` and TensorBoard events go.

    Returns:
      The trained population, and the seconds that training took, over all starts.

    Raises:
      Interrupted: on SIGINT or SIGTERM, with the state saved.
      UserError: if the loss of the only member is no longer finite.
    """
    run, model, per_epoch = session.run, session.model, session.steps_per_epoch
    total_steps, batch_size = run.config.epochs * per_epoch, run.config.batch_size
    folder, origin = session.checkpoint_dir(workdir, part), provenance.of_session(session)
    with checkpoints.open_manager(folder) as manager, _signals() as signalled:
        population = _restored_or_new(session, part, manager)
        step = int(population.step)
        checkpoints.set_aside_after(manager, step)
        log = MetricsLog(workdir, members=part.members, step=step)
        last = {record["member"]: record for record in log.records if record["member"] in part.members}
        seconds = max((record["seconds"] for record in last.values()), default=0.0)
        if _ended(population, per_epoch, total_steps):
            with logs.scalar_writers(workdir, run, part, log):
                return population, seconds
        if step:
            print(f"resuming at step {step} of {total_steps}", flush=True)
        start = time.perf_counter() - seconds

        # Moved to the device only now: a finished part needs neither.
        training_data = loader.training_data(run.config, session.dataset, session.mesh)
        validation = _validation_data(session)
        examples_per_step = batch_size * len(part.members)
        with (
            logs.scalar_writers(workdir, run, part, log) as boards,
            progress(
                total=total_steps * examples_per_step,
                done=step * examples_per_step,
                epochs=run.config.epochs,
                title=f"part {part.index + 1} of {len(session.parts)}" if len(session.parts) > 1 else "",
            ) as report,
        ):
            num_steps, ended, order = 1, False, None
            while not ended:
                if order is None or step % per_epoch == 0:
                    order = loader.epoch_order(training_data, jnp.int32(step // per_epoch))
                num_steps = min(num_steps, per_epoch - step % per_epoch)
                called = time.perf_counter()
                population = sweep.run_steps(
                    model, population, part.hparams, training_data, jnp.int32(num_steps), order
                )
                step = int(population.step)
                if run.kind == "train":
                    _stop_if_diverged(population, folder)
                per_step = (time.perf_counter() - called) / num_steps
                num_steps = max(1, round(_SECONDS_PER_CALL / per_step))

                if step % per_epoch == 0:
                    population, records = _end_epoch(session, part, population, validation, start)
                    logs.write_records(records, log, boards, part)
                    last |= {record["member"]: record for record in records}
                    ended = _ended(population, per_epoch, total_steps)
                    if ended or step // per_epoch % run.checkpoint_every == 0:
                        log.to_disk()
                        checkpoints.save(manager, population, origin)
                checkpoints.raise_failure(manager)
                report(step * examples_per_step, logs.describe(list(last.values())))
                if signalled:
                    _save_and_stop(manager, population, origin, signalled[0])
        if step < total_steps:
            last_epoch = step // per_epoch
            print(f"no member trains on: ended after epoch {last_epoch} of {run.config.epochs}", flush=True)
        return population, max(record["seconds"] for record in last.values())


def _restored_or_new(session: Session, part: Part, manager: ocp.CheckpointManager) -> Population:
    checkpoint = checkpoints.restore(manager, abstract_population(session, part))
    population = sweep.init(session.model, part.hparams) if checkpoint is None else checkpoint.population
    return devices.by_member(population, session.mesh)


def _validation_data(session: Session) -> Examples:
    split, x_max = session.dataset.validation, session.dataset.x_max
    return devices.replicated(bounds.on_device(split, x_max), session.mesh)


def _save_and_stop(
    manager: ocp.CheckpointManager, population: Population, origin: dict[str, Any], number: int
) -> None:
    checkpoints.save(manager, population, origin)
    checkpoints.finish(manager)
    name = signal.Signals(number).name
    message = f"{name}: saved step {int(population.step)}; the same command continues from there"
    raise Interrupted(message, number=number)


def _end_epoch(
    session: Session, part: Part, population: Population, validation: Examples, start: float
) -> tuple[Population, list[dict[str, Any]]]:
    """Validate, keep each member's best, and describe the epoch in records for `metrics.jsonl`.

    There are none of members that had stopped before.
    """
    stopped = np.asarray(population.members.stopped_epoch) >= 0
    per_epoch = session.steps_per_epoch
    population, train_terms, validation_terms = sweep.end_epoch(
        session.model, population, part.hparams, validation, jnp.int32(per_epoch), len(session.dataset.train)
    )
    step = int(population.step)
    place = {
        "step": step,
        "epoch": step // per_epoch,
        "seconds": round(time.perf_counter() - start, 3),
    }
    records = logs.epoch_records(place, part, train_terms, validation_terms)
    return population, [each for each, over in zip(records, stopped, strict=False) if not over]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one is obeyed at once."""
    received: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _ended(population: Population, per_epoch: int, total_steps: int) -> bool:
    """Whether all epochs are over, or one has ended after which no member runs on."""
    members, step = population.members, int(population.step)
    runs = (np.asarray(members.stopped_epoch) < 0) & (np.asarray(members.diverged_step) < 0)
    return step >= total_steps or (step % per_epoch == 0 and not runs.any())


def stopped_epoch(population: Population, position: int) -> int | None:
    """The epochs after which a member ran out of patience, or None."""
    epoch = int(population.members.stopped_epoch[position])
    return None if epoch < 0 else epoch


def diverged(population: Population, position: int) -> tuple[int, str] | None:
    """The step and the term at which a member stopped being finite, or None."""
    step = int(population.members.diverged_step[position])
    return None if step < 0 else (step, DIVERGED_TERMS[int(population.members.diverged_term[position])])


def _stop_if_diverged(population: Population, folder: Path) -> None:
    if failure := diverged(population, 0):
        raise UserError(
            f"the {failure[1]} is not finite at step {failure[0]}: training stopped, the last good checkpoint "
            f"stays in {folder}; try a lower --learning_rate, or --clip_norm"
        )
