"""The folder of a run: its `config.json`, its lock, and JSON files that are never half written."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvae_jax.errors import LockedError, UserError
from cvae_jax.files import locked, remove_abandoned, write_atomically
from cvae_jax.runs.logs import without_infinities
from cvae_jax.runs.run import Run, run_from_record


def json_text(value: Any) -> str:
    """A value as indented JSON text; a number that is not finite becomes null."""
    return json.dumps(without_infinities(value), indent=2, allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable by a person, atomically; null for a number that is not finite."""
    text = json_text(value)
    write_atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def read_run(workdir: Path) -> Run:
    """The run of a workdir.

    Raises:
      UserError: if it holds none, or its `config.json` is damaged.
    """
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{workdir} holds no run, expected a config.json that a training wrote") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    return run_from_record(record, str(path))


@contextlib.contextmanager
def training_lock(workdir: Path) -> Iterator[None]:
    """Lock a workdir for this process while it trains. If the process is killed, the system releases the lock.

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
            f"{workdir} is being written by {error}: expected to wait for its end, or another workdir"
        ) from None
    finally:
        # Of a run that was refused nothing is to be left.
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
