"""The files of a run: what lies in a workdir, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvae_jax.config import Config, Member
from experiments.cli import UserError

# A run may be continued with other values of these.
_MAY_CHANGE = ("data_dir", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Run:
    """What `config.json` records.

    Attributes:
      config: the shared settings.
      members: the settings of each member; one in an ordinary run.
      data_dir: where TFDS keeps prepared datasets, None for its default.
      checkpoint_every: epochs between checkpoints.
    """

    config: Config
    members: tuple[Member, ...]
    data_dir: str | None
    checkpoint_every: int

    def __post_init__(self) -> None:
        """Refuse what the loop cannot follow."""
        if self.checkpoint_every < 1:
            raise UserError(f"checkpoint_every is {self.checkpoint_every}, expected a whole number ≥ 1")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable by a person, atomically; infinities as null."""
    text = json.dumps(_without_infinities(value), indent=2, allow_nan=False, ensure_ascii=False)
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
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    try:
        members = tuple(
            Member(**(member | ({"clip_norm": math.inf} if member["clip_norm"] is None else {})))
            for member in record["members"]
        )
        return Run(Config(**record["config"]), members, record["data_dir"], record["checkpoint_every"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not describe a run of this version: {error}") from None


def claim(workdir: Path, run: Run) -> None:
    """Record a run in its workdir, or check that the run recorded there is this one.

    More epochs than recorded continue the run; anything else that differs is refused.
    """
    if (workdir / "config.json").exists():
        differences = _differences(read_run(workdir), run)
        if differences:
            raise UserError(
                f"{workdir} holds a run with other settings: {'; '.join(differences)}; "
                "expected the same, or another --workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file, expected a folder")
    write_json(
        workdir / "config.json",
        {
            "config": dataclasses.asdict(run.config),
            "members": [dataclasses.asdict(member) for member in run.members],
            "data_dir": run.data_dir,
            "checkpoint_every": run.checkpoint_every,
        },
    )


def _differences(old: Run, new: Run) -> list[str]:
    def settings(run: Run) -> dict[str, Any]:
        return dataclasses.asdict(run.config) | dataclasses.asdict(run.members[0])

    if len(old.members) != len(new.members):
        return [f"{len(old.members)} members, not {len(new.members)}"]
    before, after = settings(old), settings(new)
    return [
        f"{name} is {before[name]} there, not {after[name]}"
        for name in after
        if before[name] != after[name] and not (name == "epochs" and after[name] > before[name])
    ]


def finished_summary(workdir: Path, run: Run) -> dict[str, Any] | None:
    """The summary of a run that has all its epochs behind it, else None."""
    try:
        summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return summary if summary["epochs"] >= run.config.epochs else None


class MetricsLog:
    """`metrics.jsonl`, a line per evaluation; opening it at a step drops the lines after that step."""

    def __init__(self, workdir: Path, *, step: int) -> None:
        """Open the log of a run that resumes at `step`."""
        self._path = workdir / "metrics.jsonl"
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self.records = [record for line in lines if (record := _parse(line)) and record["step"] <= step]
        kept = "".join(json.dumps(record) + "\n" for record in self.records)
        write_atomically(self._path, lambda file: file.write_text(kept, encoding="utf-8"))

    def append(self, record: dict[str, Any]) -> None:
        """Write one line, and keep the record."""
        self.records.append(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_without_infinities(record)) + "\n")


def _parse(line: str) -> dict[str, Any] | None:
    """A record, or None for a line that a crash cut short."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
