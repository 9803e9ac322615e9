"""Loggers of a training: `metrics.jsonl`, TensorBoard, or a user's own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cvae_jax.errors import load_package
from cvae_jax.files import write_atomically
from cvae_jax.objectives.base import Terms

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

# A member's validated epoch, a line of `metrics.jsonl`: `member`, `step`, `epoch`, `seconds`, and by split, `train` and
# `validation`, the terms `elbo`, `rate`, `distortion`, `loss` and the objective's own, nats per example.
Record = dict[str, Any]
TERMS = ("elbo", "rate", "distortion")


class Logger:
    """Receives what a training reports; a subclass overrides the methods that it needs.

    The methods are called in this order: `start` once, then `step` and, at the end of each epoch, `epoch` and `flush`,
    then `end` if the training was not interrupted, and `close` in any case.
    """

    def start(self, step: int, total_steps: int, records: Sequence[Record]) -> None:
        """The training begins or resumes.

        Args:
          step: updates made before.
          total_steps: updates of the whole training; `step` if none are left to make.
          records: of epochs before.
        """

    def step(self, step: int) -> None:
        """The training has made this many updates."""

    def epoch(self, records: Sequence[Record]) -> None:
        """An epoch has been validated. There is a record for each member that still trained."""

    def flush(self) -> None:
        """A checkpoint will be written now: before that, write to disk all that was logged."""

    def end(self, step: int) -> None:
        """The training has ended, after this many updates."""

    def close(self) -> None:
        """The last call: release files."""


class Loggers(Logger):
    """Several loggers as one."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        """Pass all on to these, in their order."""
        self._loggers = tuple(loggers)

    def start(self, step: int, total_steps: int, records: Sequence[Record]) -> None:
        """The training begins or resumes."""
        for logger in self._loggers:
            logger.start(step, total_steps, records)

    def step(self, step: int) -> None:
        """The training has made this many updates."""
        for logger in self._loggers:
            logger.step(step)

    def epoch(self, records: Sequence[Record]) -> None:
        """An epoch is validated."""
        for logger in self._loggers:
            logger.epoch(records)

    def flush(self) -> None:
        """What was logged has to be on the disk."""
        for logger in self._loggers:
            logger.flush()

    def end(self, step: int) -> None:
        """The training is over."""
        for logger in self._loggers:
            logger.end(step)

    def close(self) -> None:
        """Close each, also if another one fails."""
        with contextlib.ExitStack() as stack:
            for logger in self._loggers:
                stack.callback(logger.close)


def epoch_records(
    place: Mapping[str, Any], members: Sequence[int], train: Terms, validation: Terms
) -> list[Record]:
    """The records of one validation.

    Args:
      place: step, epoch and seconds.
      members: numbers of the members.
      train, validation: terms of at least these members, shape (m,), nats per example.

    Returns:
      A record per member.
    """
    train, validation = jax.tree.map(np.asarray, (train, validation))

    def metrics(terms: Terms, i: int) -> dict[str, float]:
        loss, distortion, rate = (float(term[i]) for term in terms[:3])
        parts = {name: float(values[i]) for name, values in (terms.parts or {}).items()}
        return {"elbo": -(distortion + rate), "rate": rate, "distortion": distortion, "loss": loss} | parts

    return [
        {"member": member, **place, "train": metrics(train, i), "validation": metrics(validation, i)}
        for i, member in enumerate(members)
    ]


def without_infinities(value: Any) -> Any:
    """A value for JSON: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {k: without_infinities(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinities(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class MetricsLog(Logger):
    """`metrics.jsonl`, a line per validation and member.

    Attributes:
      records: all lines so far.
    """

    def __init__(self, workdir: Path, *, members: Collection[int], step: int) -> None:
        """Open the log for members that resume at `step`: lines of theirs after it are dropped."""
        self._path = workdir / "metrics.jsonl"
        self.records = [
            record
            for record in read_metrics(workdir)
            if record["step"] <= step or record["member"] not in members
        ]
        kept = "".join(map(_line, self.records))
        write_atomically(self._path, lambda file: file.write_text(kept, encoding="utf-8"))

    def epoch(self, records: Sequence[Record]) -> None:
        """Write a line per record, and add it to `records`."""
        self.records += records
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, records))

    def flush(self) -> None:
        """Wait until all lines are on the disk: a checkpoint is never ahead of them."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())


def _line(record: Record) -> str:
    return json.dumps(without_infinities(record)) + "\n"


def read_metrics(workdir: Path) -> list[Record]:
    """Read the records of `metrics.jsonl`. A last line that a crash left incomplete is ignored.

    Warns:
      UserWarning: naming other lines that are no records; they are left out.
    """
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = list(map(_parse, lines))
    # What follows the last end of a line is nothing, or was cut short.
    if damaged := [i for i, record in enumerate(records[:-1], 1) if record is None]:
        some = f"line {damaged[0]}" + (f" and {len(damaged) - 1} more" if len(damaged) > 1 else "")
        warnings.warn(f"{path}: {some} is no record of an epoch, left out", stacklevel=2)
    return [record for record in records if record is not None]


def _parse(line: bytes) -> Record | None:
    """A record, or None for a line that is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = has_numbers(record, ("member", "step", "epoch", "seconds")) and all(
        has_numbers(record.get(split), TERMS) for split in ("train", "validation")
    )
    return record if whole else None


def has_numbers(record: Any, names: Collection[str]) -> bool:
    """Whether a record has each of these names with a number or null. Null means a number that is not finite."""
    return isinstance(record, dict) and all(
        name in record and isinstance(record[name], (int, float, type(None))) for name in names
    )


class TensorBoard(Logger):
    """Scalars of each member for TensorBoard. In a sweep each member has its own folder.

    Events that a killed process did not come to write, or wrote of epochs that are made anew, would otherwise differ
    from `metrics.jsonl`: older events are replaced.
    """

    def __init__(self, workdir: Path, members: Sequence[int], *, sweep: bool) -> None:
        """Choose the folders.

        Args:
          workdir: of the run.
          members: numbers of the members.
          sweep: whether the run is a sweep.

        Raises:
          UserError: if tensorboardX is missing.
        """
        self._writer = load_package("tensorboardX", extra="experiments").SummaryWriter
        root = workdir / "tensorboard"
        self._folders = {i: root / f"member-{i:03d}" if sweep else root for i in members}
        self._boards: dict[int, SummaryWriter] = {}

    def start(self, step: int, total_steps: int, records: Sequence[Record]) -> None:
        """Write the records of earlier epochs."""
        for member, folder in self._folders.items():
            for events in folder.glob("events.out.tfevents.*"):
                events.unlink()
            # A TensorBoard that has shown older events drops them at the purge.
            self._boards[member] = self._writer(str(folder), purge_step=0, flush_secs=1)
        self.epoch(records)

    def epoch(self, records: Sequence[Record]) -> None:
        """Write a scalar for each finite term."""
        for record in records:
            board = self._boards[record["member"]]
            for split in ("train", "validation"):
                for name, value in record[split].items():
                    # JSON has None for what is not finite; TensorBoard warns of it at every evaluation.
                    if value is not None and np.isfinite(value):
                        board.add_scalar(f"{split}/{name}", value, record["step"])

    def close(self) -> None:
        """Close the files."""
        for board in self._boards.values():
            board.close()
