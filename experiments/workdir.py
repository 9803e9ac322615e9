"""The files of a run: what lies in a workdir, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from absl import flags
from cvae_jax.config import Config, Member

from cvae_jax.errors import LockedError, UserError
from cvae_jax.files import locked, remove_abandoned, write_atomically
from cvae_jax.rng import GENERATOR
from experiments.cli import say

# An ordinary run's, beside its `summary.json`.
PICTURES = ("samples.png", "reconstructions.png", "traversals.png")
# What a run and a sweep write in their workdirs.
_OWN_FILES = (
    "config.json", "metrics.jsonl", "summary.json", "results.json", "results.csv", "report.html", "rate_distortion.png",
    *PICTURES,
)  # fmt: skip
_OWN_FOLDERS = ("checkpoints", "tensorboard")
_TERMS = ("elbo", "rate", "distortion")
_KINDS = {"train": "run of experiments.train", "sweep": "run of experiments.sweep"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What `config.json` records.

    Attributes:
      config: the shared settings.
      kind: `train` for an ordinary run of one member, or `sweep`.
      members: the settings of each member.
      members_per_program: how many train at once.
      data_dir: where TFDS keeps prepared datasets, None for its default.
      checkpoint_every: epochs between checkpoints.
    """

    kind: Literal["train", "sweep"]
    config: Config
    members: tuple[Member, ...]
    members_per_program: int
    data_dir: str | None
    checkpoint_every: int

    def __post_init__(self) -> None:
        """Refuse what the loop cannot follow."""
        if self.checkpoint_every < 1:
            raise UserError(f"checkpoint_every is {self.checkpoint_every}, expected a whole number ≥ 1")
        if not 1 <= self.members_per_program <= len(self.members):
            raise UserError(
                f"members_per_program is {self.members_per_program}, expected 1 to {len(self.members)}, "
                "the number of members"
            )


def require_writable(path: Path, workdir: Path, run: Run) -> None:
    """Refuse a file that could not be written, or is a run's own, before what it will hold is computed.

    Args:
      path: the file.
      workdir: of the run that is looked at.
      run: the run, whose data are not to be written over.
    """
    if run.config.dataset.endswith(".npz") and path.resolve() == Path(run.config.dataset).resolve():
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


def json_text(value: Any) -> str:
    """JSON, readable by a person; infinities as null."""
    return json.dumps(_without_infinities(value), indent=2, allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable by a person, atomically; infinities as null."""
    text = json_text(value)
    write_atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_infinities(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_run(workdir: Path) -> Run:
    """The run a workdir holds."""
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{workdir} holds no run, expected a config.json written by experiments.train"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    return run_of_record(record, str(path))


def as_record(run: Run) -> dict[str, Any]:
    """A run as JSON can hold it; infinities as null."""
    return _without_infinities(dataclasses.asdict(run) | {"random_generator": GENERATOR})


def run_of_record(record: Any, where: str) -> Run:
    """The run of a record.

    Args:
      record: what `as_record` made.
      where: it was read, for a person.

    Raises:
      UserError: if it describes no run of this version.
    """
    try:
        if record["kind"] not in _KINDS:
            raise UserError(f"{where} has kind {record['kind']!r}, expected one of {', '.join(_KINDS)}")
        # Runs of earlier versions record none: they had this one.
        if (generator := record.get("random_generator", GENERATOR)) != GENERATOR:
            raise UserError(f"{where} has random_generator {generator!r}, expected {GENERATOR!r}")
        # JSON has lists alone.
        settings: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record["config"].items()
        }
        # JSON holds no infinities.
        numbers: list[dict[str, Any]] = [
            {name: math.inf if value is None else value for name, value in member.items()}
            for member in record["members"]
        ]
        members = tuple(Member(**each) for each in numbers)
        return Run(
            kind=record["kind"],
            config=Config(**settings),
            members=members,
            members_per_program=record["members_per_program"],
            data_dir=record["data_dir"],
            checkpoint_every=record["checkpoint_every"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where} does not describe a run of this version: {error}") from None


def require_same_run(workdir: Path, run: Run) -> None:
    """Refuse a workdir that records another run.

    More epochs than recorded continue the run, unless its learning rate falls over them; anything else that differs is
    refused.
    """
    if (workdir / "config.json").exists():
        differing = differences(read_run(workdir), run)
        if differing:
            raise UserError(
                f"{workdir} holds a run with other settings: {'; '.join(differing)}; "
                "expected the same, or another --workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file, expected a folder")


def claim(workdir: Path, run: Run) -> None:
    """Record a run in its workdir, unless the workdir records another run."""
    require_same_run(workdir, run)
    write_json(workdir / "config.json", as_record(run))


@contextlib.contextmanager
def training_lock(workdir: Path) -> Iterator[None]:
    """Hold a workdir for this process, which trains in it. The system ends what a killed process holds.

    Raises:
      UserError: if another process does, naming it.

    Warns:
      UserWarning: where the file system has no locks: nothing is held then.
    """
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with locked(workdir / "train.lock", f"process {os.getpid()} on {socket.gethostname()} since {since}"):
            remove_abandoned(workdir)
            yield
    except LockedError as error:
        raise UserError(
            f"{workdir} is being written by {error}: expected to wait for its end, or another --workdir"
        ) from None
    finally:
        # Of a run that was refused nothing is to be left.
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def differences(old: Run, new: Run) -> list[str]:
    """What a run that is to go on has otherwise than it is recorded, in words."""
    if old.kind != new.kind:
        return [f"it is a {_KINDS[old.kind]} there, not a {_KINDS[new.kind]}"]
    if len(old.members) != len(new.members):
        return [f"it has {len(old.members)} members there, not {len(new.members)}"]
    if old.members_per_program != new.members_per_program:
        return [f"members_per_program is {old.members_per_program} there, not {new.members_per_program}"]
    pairs = [(old.config, new.config, ""), *zip(old.members, new.members, _of_member(old), strict=True)]
    return [
        f"{name}{whose} is {before} there, not {after}"
        for old_settings, new_settings, whose in pairs
        for name, after in dataclasses.asdict(new_settings).items()
        if (before := getattr(old_settings, name)) != after
        and not (name == "epochs" and after > before and new.config.learning_rate_schedule != "cosine")
    ][:6]


def _of_member(run: Run) -> list[str]:
    return [""] if run.kind == "train" else [f" of member {i}" for i in range(len(run.members))]


def is_current(workdir: Path, run: Run, results: Path) -> bool:
    """Whether `config.json` and the dates of the files leave no doubt that results are of this run and its data."""
    if not (workdir / "config.json").exists() or read_run(workdir).data_dir != run.data_dir:
        return False
    own = Path(run.config.dataset)
    return not own.is_file() or own.stat().st_mtime <= results.stat().st_mtime


def missing(workdir: Path, names: Iterable[str]) -> list[str]:
    """Which of these files a workdir lacks."""
    return [name for name in names if not (workdir / name).exists()]


def finished_summary(workdir: Path, run: Run) -> dict[str, Any] | None:
    """The summary of a run that has all its epochs behind it, or stopped early, else None."""
    summary = _read_json(workdir / "summary.json")
    whole = isinstance(summary, dict) and _has_numbers(summary.get("test"), _TERMS)
    return summary if whole and _is_finished(summary, run) else None


def finished_rows(workdir: Path, run: Run) -> list[dict[str, Any]] | None:
    """The results of a sweep that has all its epochs behind it, or whose members all stopped, else None."""
    rows = _read_rows(workdir)
    if rows is None or len(rows) != len(run.members) or not all(_is_finished(row, run) for row in rows):
        return None
    # JSON holds no infinities, and nothing that is no number.
    numbers = {f"{split}_{term}": math.nan for split in ("validation", "test") for term in _TERMS}
    return [
        row | {k: v for k, v in numbers.items() if row.get(k, v) is None} | dataclasses.asdict(member)
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
        *(f"test_{name}" for name in _TERMS),
        "validation_elbo",
    )
    whole = isinstance(rows, list) and all(isinstance(row, dict) and set(names) <= set(row) for row in rows)
    return rows if whole and rows else None


def _has_numbers(record: Any, names: Collection[str]) -> bool:
    """Whether a record has a number, or null for one that is not finite, under each name."""
    return isinstance(record, dict) and all(
        name in record and isinstance(record[name], (int, float, type(None))) for name in names
    )


def _is_finished(record: dict[str, Any], run: Run) -> bool:
    """Whether more training would change nothing of a summary or a row of results."""
    stopped = record.get("stopped_epoch") is not None or record.get("diverged") is not None
    epochs = record.get("epochs")
    return stopped or (isinstance(epochs, int) and epochs >= run.config.epochs)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, without a last line that a crash cut short; others are named."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    records = list(map(_parse, lines))
    # What follows the last end of a line is nothing, or was cut short.
    if damaged := [i for i, record in enumerate(records[:-1], 1) if record is None]:
        some = f"line {damaged[0]}" + (f" and {len(damaged) - 1} more" if len(damaged) > 1 else "")
        say("warning", f"{path}: {some} is no record of an epoch, left out")
    return [record for record in records if record is not None]


def test_line(summary: dict[str, Any]) -> str:
    """A run's test metrics in a line."""
    test = summary["test"]
    line = "test elbo {elbo:.2f} (rate {rate:.2f}, distortion {distortion:.2f}) nats".format(**test)
    return line + (", {bits_per_dim:.3f} bits per dimension".format(**test) if "bits_per_dim" in test else "")


class MetricsLog:
    """`metrics.jsonl`, a line per evaluation and member.

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
        kept = "".join(json.dumps(_without_infinities(record)) + "\n" for record in self.records)
        write_atomically(self._path, lambda file: file.write_text(kept, encoding="utf-8"))

    def to_disk(self) -> None:
        """Wait until all lines are on the disk: a checkpoint is never ahead of them."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def extend(self, records: list[dict[str, Any]]) -> None:
        """Write a line per record, and keep them."""
        self.records += records
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_without_infinities(record)) + "\n" for record in records)


def _parse(line: bytes) -> dict[str, Any] | None:
    """A record, or None for a line that is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = _has_numbers(record, ("member", "step", "epoch", "seconds")) and all(
        _has_numbers(record.get(split), _TERMS) for split in ("train", "validation")
    )
    return record if whole else None


def define_member_choice() -> None:
    """The flags that name one member of a sweep."""
    flags.DEFINE_integer("member", None, "Number of a sweep's member.")
    flags.DEFINE_bool("best", False, "The sweep's member of the best validation bound.")


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
