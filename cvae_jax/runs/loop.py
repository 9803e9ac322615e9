"""Train the members of a run to its last epoch, with checkpoints and loggers."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from cvae_jax.data.examples import Examples, on_device
from cvae_jax.errors import Interrupted, UserError
from cvae_jax.objectives.base import Terms
from cvae_jax.runs import checkpoints
from cvae_jax.runs.logs import Logger, Loggers, MetricsLog, epoch_records
from cvae_jax.runs.session import (
    Part,
    Session,
    abstract_population,
    checkpoint_dir,
    diverged,
    origin_of,
)
from cvae_jax.training import devices, loader
from cvae_jax.training import population as sweep
from cvae_jax.training.population import Population

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

# One call into the compiled program lasts about this long: how often loggers are called, and signals noticed.
_SECONDS_PER_CALL = 1.0


def train(
    session: Session, part: Part, workdir: Path | None = None, loggers: Sequence[Logger] = ()
) -> tuple[Population, float]:
    """Train one part to the last epoch, or until no member runs, from its latest checkpoint if there is one.

    Args:
      session: the run.
      part: the members to train.
      workdir: where checkpoints and `metrics.jsonl` go; None writes nothing.
      loggers: receive what the training reports.

    Returns:
      The trained population, and the seconds that training took, over all starts.

    Raises:
      Interrupted: on SIGINT or SIGTERM, with the state saved; without a workdir signals are left alone.
      UserError: if the loss of the only member is no longer finite.
    """
    with contextlib.ExitStack() as stack:
        store = _Store(session, part)
        if workdir is not None:
            manager = stack.enter_context(
                checkpoints.open_manager(checkpoint_dir(session.run, part, workdir))
            )
            store = dataclasses.replace(store, manager=manager, signalled=stack.enter_context(_signals()))
        population = store.population()
        step, before = int(population.step), []
        if workdir is not None:
            metrics = MetricsLog(workdir, members=part.members, step=step)
            before = [record for record in metrics.records if record["member"] in part.members]
            loggers = (metrics, *loggers)
        log = Loggers(loggers)
        stack.callback(log.close)
        ended = _ended(session, population)
        log.start(step, step if ended else session.total_steps, before)
        seconds = max((record["seconds"] for record in before), default=0.0)
        if not ended:
            population, seconds = _train(session, part, population, store, log, seconds)
            log.end(int(population.step))
        return population, seconds


def _train(
    session: Session, part: Part, population: Population, store: _Store, log: Logger, seconds: float
) -> tuple[Population, float]:
    """Make the steps that are left; the population, and the seconds of all starts at the last validation."""
    run, per_epoch, start = session.run, session.steps_per_epoch, time.perf_counter() - seconds
    # Moved to the device only now: a finished part needs neither.
    loader.warn_of_few_examples(run.config, session.dataset)
    data = loader.training_data(run.config, session.dataset, session.mesh)
    split = on_device(session.dataset.validation, session.dataset.x_max)
    validation = devices.replicated(split, session.mesh)
    step, num_steps, ended, order = int(population.step), 1, False, None
    while not ended:
        if order is None or step % per_epoch == 0:
            order = loader.epoch_order(data, jnp.int32(step // per_epoch))
        num_steps = min(num_steps, per_epoch - step % per_epoch)
        called = time.perf_counter()
        population = sweep.run_steps(
            session.model, population, part.hparams, data, jnp.int32(num_steps), order
        )
        step = int(population.step)
        if run.kind == "train":
            _require_finite(population, store)
        per_step = (time.perf_counter() - called) / num_steps
        num_steps = max(1, round(_SECONDS_PER_CALL / per_step))

        if step % per_epoch == 0:
            population, train_terms, validation_terms, trained = _end_epoch(
                session, part, population, validation
            )
            seconds = round(time.perf_counter() - start, 3)
            place = {"step": step, "epoch": step // per_epoch, "seconds": seconds}
            records = epoch_records(place, part.members, train_terms, validation_terms)
            log.epoch([record for record, runs in zip(records, trained, strict=False) if runs])
            ended = _ended(session, population)
            if ended or step // per_epoch % run.checkpoint_every == 0:
                log.flush()
                store.save(population)
        log.step(step)
        store.answer(population)
    return population, seconds


def _end_epoch(
    session: Session, part: Part, population: Population, validation: Examples
) -> tuple[Population, Terms, Terms, np.ndarray]:
    """Validate and keep each member's best: the population, terms by member, and which members had not stopped."""
    trained = np.asarray(population.members.stopped_epoch) < 0
    population, train, validated = sweep.end_epoch(
        session.model,
        population,
        part.hparams,
        validation,
        jnp.int32(session.steps_per_epoch),
        len(session.dataset.train),
    )
    return population, train, validated, trained


def _ended(session: Session, population: Population) -> bool:
    """Whether all epochs are over, or one has ended after which no member runs on."""
    members, step = population.members, int(population.step)
    runs = (np.asarray(members.stopped_epoch) < 0) & (np.asarray(members.diverged_step) < 0)
    return step >= session.total_steps or (step % session.steps_per_epoch == 0 and not runs.any())


def _require_finite(population: Population, store: _Store) -> None:
    if failure := diverged(population, 0):
        kept = (
            "" if store.manager is None else f", the last good checkpoint stays in {store.manager.directory}"
        )
        raise UserError(
            f"the {failure[1]} is not finite at step {failure[0]}: training stopped{kept}; try a lower learning_rate, "
            "or clip_norm"
        )


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the state can be saved; a second one ends the process at once.

    Only the main thread can: elsewhere nothing is collected.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handler(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@dataclasses.dataclass(frozen=True)
class _Store:
    """Where the checkpoints of a part are.

    Attributes:
      session, part: of the training.
      manager: of the checkpoints, None without a workdir.
      signalled: signals that arrived.
    """

    session: Session
    part: Part
    manager: ocp.CheckpointManager | None = None
    signalled: list[int] = dataclasses.field(default_factory=list)

    def population(self) -> Population:
        """The members of the latest checkpoint, else new ones; checkpoints after them are put aside."""
        session, part, found = self.session, self.part, None
        if self.manager is not None:
            found = checkpoints.restore(self.manager, abstract_population(session, part))
        population = sweep.init(session.model, part.hparams) if found is None else found.population
        population = devices.by_member(population, session.mesh)
        if self.manager is not None:
            checkpoints.set_aside_after(self.manager, int(population.step))
        return population

    def save(self, population: Population) -> None:
        """Write a checkpoint in the background."""
        if self.manager is not None:
            checkpoints.save(self.manager, population, origin_of(self.session))

    def answer(self, population: Population) -> None:
        """Raise what failed in the background; after a signal save and stop."""
        if self.manager is None:
            return
        checkpoints.raise_failure(self.manager)
        if self.signalled:
            self.save(population)
            checkpoints.finish(self.manager)
            name = signal.Signals(self.signalled[0]).name
            message = f"{name}: saved step {int(population.step)}; the same command continues from there"
            raise Interrupted(message, number=self.signalled[0])
