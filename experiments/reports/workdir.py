"""What scripts write in a workdir beside the run: summaries, tables and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from cvae_jax.errors import DataError, UserError
from cvae_jax.runs.logs import TERMS, has_numbers
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run
from cvae_jax.training.config import traced_options

if TYPE_CHECKING:
    from cvae_jax.runs.session import Session

# What a run and a sweep write in their workdirs.
_OWN_FILES = (
    "config.json", "data.json", "examples.npz", "metrics.jsonl", "summary.json", "results.json", "results.csv",
    "results_by_setting.json", "results_by_setting.csv", "report.html", "rate_distortion.png", "samples.png",
    "reconstructions.png", "traversals.png",
)  # fmt: skip
_OWN_FOLDERS = ("checkpoints", "tensorboard")


def require_writable(path: Path, workdir: Path, run: Run) -> None:
    """Refuse a file that could not be written, or is a run's own, before what it will hold is computed.

    Args:
      path: the file.
      workdir: of the run that is looked at.
      run: the run, whose data are not to be written over.
    """
    if run.config.data.dataset.endswith(".npz") and path.resolve() == Path(run.config.data.dataset).resolve():
        raise UserError(f"{path} is the dataset of {workdir}, expected another file to write")
    folder, target = workdir.resolve(), path.resolve()
    if (target.parent == folder and target.name in _OWN_FILES) or any(
        folder / name in target.parents for name in _OWN_FOLDERS
    ):
        raise UserError(f"{path} is a file of the run in {workdir}, expected another file to write")
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected the name of a file to write")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: {folder} is a file, expected a folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: {folder} allows no writing")


def is_current(workdir: Path, run: Run, results: Path) -> bool:
    """Whether `config.json` and the dates of the files leave no doubt that results are of this run and its data."""
    if not (workdir / "config.json").exists() or read_run(workdir).data_dir != run.data_dir:
        return False
    own = Path(run.config.data.dataset)
    return not own.is_file() or own.stat().st_mtime <= results.stat().st_mtime


def missing(workdir: Path, names: Iterable[str]) -> list[str]:
    """Which of these files a workdir lacks."""
    return [name for name in names if not (workdir / name).exists()]


def finished_summary(workdir: Path, run: Run) -> dict[str, Any] | None:
    """The summary of a run that has all its epochs behind it, or stopped early, else None."""
    summary = _read_json(workdir / "summary.json")
    whole = (
        isinstance(summary, dict)
        and has_numbers(summary.get("test"), TERMS)
        and isinstance(summary.get("pictures"), list)
    )
    return summary if whole and _is_finished(summary, run) else None


def finished_rows(workdir: Path, run: Run) -> list[dict[str, Any]] | None:
    """The results of a sweep that has all its epochs behind it, or whose members all stopped, else None."""
    rows = _read_rows(workdir)
    if rows is None or len(rows) != len(run.members) or not all(_is_finished(row, run) for row in rows):
        return None
    # JSON holds no infinities, and nothing that is no number.
    numbers = {f"{split}_{term}": math.nan for split in ("validation", "test") for term in TERMS}
    return [
        row | {k: v for k, v in numbers.items() if row.get(k, v) is None} | traced_options(member)
        for row, member in zip(rows, run.members, strict=True)
    ]


def _read_json(path: Path) -> Any:
    """What a file holds, None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _read_rows(workdir: Path) -> list[dict[str, Any]] | None:
    """The rows of `results.json`, None where they are missing or damaged."""
    rows = _read_json(workdir / "results.json")
    names = (
        "member",
        "epochs",
        "diverged",
        "stopped_epoch",
        *(f"test_{name}" for name in TERMS),
        "validation_elbo",
    )
    whole = isinstance(rows, list) and all(isinstance(row, dict) and set(names) <= set(row) for row in rows)
    return rows if whole and rows else None


def _is_finished(record: dict[str, Any], run: Run) -> bool:
    """Whether more training would change nothing of a summary or a row of results."""
    stopped = record.get("stopped_epoch") is not None or record.get("diverged") is not None
    epochs = record.get("epochs")
    return stopped or (isinstance(epochs, int) and epochs >= run.config.epochs)


def test_line(summary: dict[str, Any]) -> str:
    """A run's test metrics in a line."""
    test = summary["test"]
    line = "test elbo {elbo:.2f} (rate {rate:.2f}, distortion {distortion:.2f}) nats".format(**test)
    return line + (", {bits_per_dim:.3f} bits per dimension".format(**test) if "bits_per_dim" in test else "")


def define_model_choice(*, required: bool = True) -> None:
    """The flags that name a trained model: a run, or one member of a sweep."""
    text = "Folder of the run or sweep." + (" Required." if required else "")
    flags.DEFINE_string("workdir", None, text, required=required)
    define_member_choice()


def define_data_flags() -> None:
    """The flags that say where the data of a run are."""
    flags.DEFINE_string("dataset", None, "File of the run's data, if it was moved since training.")
    flags.DEFINE_string("data_dir", None, "Folder of prepared TFDS datasets, if it was moved since training.")


def find_data(workdir: Path, run: Run) -> Run:
    """The run with its data where `--dataset` and `--data_dir` say they are now.

    Raises:
      UserError: if the file of the data is missing.
    """
    dataset, data_dir = flags.FLAGS.dataset, flags.FLAGS.data_dir
    run = run if dataset is None else run.with_dataset(dataset)
    run = run if data_dir is None else dataclasses.replace(run, data_dir=data_dir)
    file = Path(run.config.data.dataset)
    if file.suffix == ".npz" and not file.exists():
        raise UserError(f"{file} does not exist, expected the data of {workdir}: set --dataset to their file")
    return run


def open_with_data(workdir: Path, run: Run, cache: Path) -> Session:
    """A run with its data, see `find_data`.

    Args:
      workdir: of the run.
      run: that it records.
      cache: folder of packed datasets.

    Raises:
      UserError: if the data are missing, or cannot be used.
    """
    from cvae_jax.runs.session import open_session

    try:
        return open_session(find_data(workdir, run), cache)
    except DataError as error:
        raise UserError(
            f"{workdir} needs its data: {error}; --dataset or --data_dir say where they are"
        ) from None


def define_member_choice() -> None:
    """The flags that name one member of a sweep."""
    flags.DEFINE_bool("best", False, "Use the sweep's member with the best validation bound.")
    flags.DEFINE_integer("member", None, "Use the sweep's member of this number, counted from 0.")


def chosen_member(workdir: Path, run: Run) -> int:
    """The member that `--member` or `--best` names; the only one of an ordinary run."""
    member, best = flags.FLAGS.member, flags.FLAGS.best
    if run.kind == "train":
        if member or best:
            raise UserError(f"{workdir} holds one run, expected --member and --best for a sweep only")
        return 0
    if (member is None) == (not best):
        raise UserError(
            f"{workdir} holds a sweep of {len(run.members)} members, expected --member=N or --best"
        )
    if best:
        return best_member(workdir)
    if not 0 <= member < len(run.members):
        raise UserError(f"member is {member}, expected 0 to {len(run.members) - 1}")
    return member


def best_member(workdir: Path) -> int:
    """The member of the best validation bound, from a finished sweep's results."""
    rows = _read_rows(workdir)
    if rows is None:
        raise UserError(f"{workdir} holds no results, or damaged ones, expected a finished sweep for --best")
    bound = ranked_by(rows[0])
    rows = [row for row in rows if row["diverged"] is None and row[bound] is not None]
    if not rows:
        raise UserError(f"every member of {workdir} diverged, expected at least one that did not")
    return max(rows, key=lambda row: row[bound])["member"]


def ranked_by(row: dict[str, Any]) -> str:
    """The figure that members are ranked by, up is better: the validation bound, of as many draws as training takes.

    Unlike the loss, which weighs its terms by a member's settings, it compares members of different settings.

    Args:
      row: of a sweep's results.
    """
    several = "validation_importance_weighted_bound"
    return several if several in row else "validation_elbo"
