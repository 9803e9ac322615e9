"""What a run says of its epochs: lines of `metrics.jsonl`, TensorBoard, and text for the progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from cvae_jax.objectives.terms import Terms
from experiments.workdir import MetricsLog, Run

if TYPE_CHECKING:
    from experiments.loop import Part


@contextmanager
def scalar_writers(workdir: Path, run: Run, part: Part, log: MetricsLog) -> Iterator[list[SummaryWriter]]:
    """A TensorBoard writer per member, which has written what the log holds of its member.

    Events that a killed process did not come to write, or wrote of epochs that are made anew, would otherwise set
    TensorBoard and `metrics.jsonl` apart: older events are replaced.
    """
    root = workdir / "tensorboard"
    folders = [root if run.kind == "train" else root / f"member-{i:03d}" for i in part.members]
    for folder in folders:
        for events in folder.glob("events.out.tfevents.*"):
            events.unlink()
    # A TensorBoard that has shown older events drops them at the purge.
    writers = [SummaryWriter(str(folder), purge_step=0, flush_secs=1) for folder in folders]
    try:
        for record in log.records:
            if record["member"] in part.members:
                _write_scalars(writers[part.members.index(record["member"])], record)
        yield writers
    finally:
        for writer in writers:
            writer.close()


def epoch_records(
    place: dict[str, Any], part: Part, train_terms: Terms, validation_terms: Terms
) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` of one evaluation."""
    train_host, validation_host = jax.tree.map(np.asarray, (train_terms, validation_terms))

    def metrics(terms: Terms, i: int) -> dict[str, float]:
        loss, distortion, rate = (float(term[i]) for term in terms[:3])
        parts = {name: float(values[i]) for name, values in (terms.parts or {}).items()}
        return {"elbo": -(distortion + rate), "rate": rate, "distortion": distortion, "loss": loss} | parts

    return [
        {
            "member": member,
            **place,
            "train": metrics(train_host, i),
            "validation": metrics(validation_host, i),
        }
        for i, member in enumerate(part.members)
    ]


def write_records(
    records: list[dict[str, Any]], log: MetricsLog, boards: list[SummaryWriter], part: Part
) -> None:
    log.extend(records)
    for record in records:
        _write_scalars(boards[part.members.index(record["member"])], record)


def _write_scalars(board: SummaryWriter, record: dict[str, Any]) -> None:
    for split in ("train", "validation"):
        for name, value in record[split].items():
            # None is what JSON has for what is not finite.
            if value is not None and np.isfinite(
                value
            ):  # TensorBoard warns of anything else, at every evaluation of what diverged
                board.add_scalar(f"{split}/{name}", value, record["step"])


def describe(records: list[dict[str, Any]]) -> str:
    """The latest validation as text; of many members the best and the worst bound."""
    if not records:
        return "first epoch, not yet validated"
    if len(records) == 1:
        return "elbo {elbo:.2f} rate {rate:.2f} distortion {distortion:.2f}".format(
            **records[0]["validation"]
        )
    terms = [record["validation"] for record in records]
    finite = [each for each in terms if each["elbo"] is not None and np.isfinite(each["elbo"])]
    text = f"{len(terms) - len(finite)} not finite" if len(finite) < len(terms) else ""
    if finite:
        best, worst = (choose(finite, key=lambda each: each["elbo"]) for choose in (max, min))
        bounds = f"best elbo {best['elbo']:.2f} (rate {best['rate']:.2f}), worst {worst['elbo']:.2f}"
        text = f"{bounds}, {text}" if text else bounds
    return text
