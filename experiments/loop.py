"""Train the population of a run to its last epoch: checkpoints, logs, and the summary."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import SummaryWriter

from cvae_jax import checkpoints, data, evaluation, sweep
from cvae_jax.config import Hparams
from cvae_jax.cvae import CVAE
from cvae_jax.dataset import Dataset
from cvae_jax.objectives import Terms
from cvae_jax.sweep import Population
from cvae_jax.training import DIVERGED_TERMS
from experiments.cli import UserError
from experiments.progress import progress
from experiments.workdir import MetricsLog, Run

# One call into the compiled program lasts about this long: how often progress shows and a signal is heard.
_SECONDS_PER_CALL = 1.0


class Interrupted(UserError):
    """A signal asked the run to stop; its state is saved."""


@dataclasses.dataclass(frozen=True)
class Session:
    """A run's dataset, model and traced settings, ready to train or to look at.

    Attributes:
      run: what `config.json` records.
      dataset: the three splits.
      model: the model all members share.
      hparams: stacked settings of the members.
    """

    run: Run
    dataset: Dataset
    model: CVAE
    hparams: Hparams

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training split."""
        return sweep.steps_per_epoch(self.run.config, self.dataset)


def open_session(run: Run, cache: Path) -> Session:
    """Load a run's dataset and build its model."""
    data_dir = Path(run.data_dir) if run.data_dir else None
    dataset = data.load(run.config, data_dir=data_dir, cache_dir=cache)
    model = sweep.build_model(run.config, dataset, run.members)
    per_epoch = sweep.steps_per_epoch(run.config, dataset)
    hparams = sweep.stack_hparams(run.members, capacity=model.capacity, steps_per_epoch=per_epoch)
    return Session(run, dataset, model, hparams)


def train(session: Session, workdir: Path) -> tuple[Population, float]:
    """Train to the last epoch, from the latest checkpoint if there is one.

    Args:
      session: the run.
      workdir: where checkpoints, `metrics.jsonl` and TensorBoard events go.

    Returns:
      The trained population, and the seconds that training took, over all starts.

    Raises:
      Interrupted: on SIGINT or SIGTERM, with the state saved.
      UserError: if a loss is no longer finite.
    """
    run, model, hparams, per_epoch = session.run, session.model, session.hparams, session.steps_per_epoch
    epochs, batch_size = run.config.epochs, run.config.batch_size
    training_data = sweep.training_data(run.config, session.dataset)
    validation = evaluation.on_device(session.dataset.validation, session.dataset.x_max)

    with checkpoints.open_manager(workdir / "checkpoints") as manager, _signals() as signalled:
        population = checkpoints.restore(manager, jax.eval_shape(lambda h: sweep.init(model, h), hparams))
        if population is None:
            population = sweep.init(model, hparams)
        else:
            print(f"resuming at step {int(population.step)} of {epochs * per_epoch}", flush=True)
        step = int(population.step)
        log = MetricsLog(workdir, step=step)
        seconds = log.records[-1]["seconds"] if log.records else 0.0
        start = time.perf_counter() - seconds

        with (
            SummaryWriter(str(workdir / "tensorboard"), purge_step=step) as board,
            progress(total=epochs * per_epoch * batch_size, done=step * batch_size, epochs=epochs) as report,
        ):
            metrics = log.records[-1]["validation"] if log.records else None
            num_steps = 1
            while step < epochs * per_epoch:
                num_steps = min(num_steps, per_epoch - step % per_epoch)
                called = time.perf_counter()
                population = sweep.run_steps(model, population, hparams, training_data, jnp.int32(num_steps))
                step = int(population.step)
                _stop_if_diverged(population, workdir)
                per_step = (time.perf_counter() - called) / num_steps
                num_steps = max(1, round(_SECONDS_PER_CALL / per_step))

                if step % per_epoch == 0:
                    population, train_terms, validation_terms = sweep.end_epoch(
                        model, population, hparams, validation, jnp.int32(per_epoch)
                    )
                    epoch = step // per_epoch
                    record = _record(step, epoch, time.perf_counter() - start, train_terms, validation_terms)
                    log.append(record)
                    _write_scalars(board, record)
                    metrics = record["validation"]
                    if epoch % run.checkpoint_every == 0 or epoch == epochs:
                        checkpoints.save(manager, population)
                report(step * batch_size, _describe(metrics))
                if signalled:
                    checkpoints.save(manager, population)
                    manager.wait_until_finished()
                    name = signal.Signals(signalled[0]).name
                    raise Interrupted(f"{name}: saved step {step}; the same command continues from there")
        return population, time.perf_counter() - start


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


def _stop_if_diverged(population: Population, workdir: Path) -> None:
    """Name the step and the term whose value is no longer finite."""
    diverged_step = int(population.members.diverged_step[0])
    if diverged_step >= 0:
        term = DIVERGED_TERMS[int(population.members.diverged_term[0])]
        raise UserError(
            f"the {term} is not finite at step {diverged_step}: training stopped, the last good checkpoint "
            f"stays in {workdir / 'checkpoints'}; try a lower --learning_rate, or --clip_norm"
        )


def _record(
    step: int, epoch: int, seconds: float, train_terms: Terms, validation_terms: Terms
) -> dict[str, Any]:
    """One line of `metrics.jsonl`."""

    def metrics(terms: Terms) -> dict[str, float]:
        loss, distortion, rate = (float(np.asarray(term)[0]) for term in terms)
        return {"elbo": -(distortion + rate), "rate": rate, "distortion": distortion, "loss": loss}

    return {
        "step": step,
        "epoch": epoch,
        "seconds": round(seconds, 3),
        "train": metrics(train_terms),
        "validation": metrics(validation_terms),
    }


def _write_scalars(board: SummaryWriter, record: dict[str, Any]) -> None:
    for split in ("train", "validation"):
        for name, value in record[split].items():
            board.add_scalar(f"{split}/{name}", value, record["step"])


def _describe(metrics: dict[str, float] | None) -> str:
    if metrics is None:
        return "first epoch, not yet validated"
    return "elbo {elbo:.2f} rate {rate:.2f} distortion {distortion:.2f}".format(**metrics)
