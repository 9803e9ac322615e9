"""Checkpoints of a population, with orbax. They are written in the background, only the latest few are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.errors import CheckpointError, load_package
from cvae_jax.training.population import Population

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
    from jaxtyping import PyTree

_KEPT = 3
_NO_ROOM = ("No space left", "Disk quota exceeded", "RESOURCE_EXHAUSTED")
_log = logging.getLogger(__name__)


def _orbax() -> Any:
    """The package that writes checkpoints, which takes a second to import."""
    return load_package("orbax.checkpoint", extra="experiments")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds.

    Attributes:
      step: the number of updates made.
      population: the members.
      record: what was saved beside them, as JSON has it.
    """

    step: int
    population: Population
    record: dict[str, Any]


@contextlib.contextmanager
def open_manager(directory: Path, *, read_only: bool = False) -> Iterator[ocp.CheckpointManager]:
    """A context manager for the checkpoints in a directory. At its end it waits for saves that still run.

    Each checkpoint holds the latest parameters and, within `TrainState.best`, the best by validation, so that the
    best of every member outlives the older files.

    Args:
      directory: of the checkpoints.
      read_only: for a process that does not train: nothing in the directory is touched.

    Raises:
      CheckpointError: if a save under way fails.
      UserError: if orbax is missing.
    """
    orbax = _orbax()
    options = orbax.CheckpointManagerOptions(
        max_to_keep=None if read_only else _KEPT,
        save_interval_steps=0 if read_only else 1,
        create=not read_only,
        read_only=read_only,
        # What a killed save left.
        cleanup_tmp_directories=not read_only,
        enable_async_checkpointing=True,
        # Made in the background, a directory that cannot be made leaves threads that wait for it for ten minutes.
        async_options=orbax.options.AsyncOptions(create_directories_asynchronously=False),
    )
    # Orbax warns of each folder that it is asked to read only.
    with _only_errors_of("absl") if read_only else contextlib.nullcontext():
        manager = orbax.CheckpointManager(
            directory.absolute(),
            options=options,
            # Named here: orbax would otherwise take the layout of the newest directory for that of all.
            item_handlers={
                "state": orbax.StandardCheckpointHandler(),
                "record": orbax.JsonCheckpointHandler(),
            },
        )
    try:
        yield manager
        finish(manager)
    finally:
        # Waiting again for what failed would raise the same error again.
        with contextlib.suppress(Exception):
            manager.close()


@contextlib.contextmanager
def _only_errors_of(name: str) -> Iterator[None]:
    """Let a logger pass on nothing below an error."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def save(manager: ocp.CheckpointManager, population: Population, record: Mapping[str, Any]) -> None:
    """Write a checkpoint in the background, named by the step. An existing one is not overwritten.

    Args:
      manager: of the run's checkpoints.
      population: the members.
      record: what is to be known of the run, as JSON can hold it.

    Raises:
      CheckpointError: if it cannot be written, or the one before could not; what fails in the background is raised by
        the next call, by `raise_failure` and by `finish`.
    """
    # A copy on the host: the population's own buffers are donated to the next step.
    host = jax.tree.map(lambda a: np.array(a), population)
    step = int(host.step)
    if step in manager.all_steps():
        return
    contents = {"record": dict(record), "step": step, "arrays": _checksum_of(host)}
    args = _orbax().args
    items = args.Composite(
        state=args.StandardSave(host),
        record=args.JsonSave(contents | {"checksum": _checksum_of_json(contents)}),
    )
    with _named_failure(manager):
        if not manager.save(step, args=items):
            raise ValueError(f"there is one of step {manager.latest_step()}, after step {step}")


def raise_failure(manager: ocp.CheckpointManager) -> None:
    """Raise the error of a save that failed in the background, without waiting for saves that still run.

    Raises:
      CheckpointError: if a save failed.
    """
    # The thread that saves keeps its failure to itself until it is waited for.
    if not manager.is_saving_in_progress():
        finish(manager)


def finish(manager: ocp.CheckpointManager) -> None:
    """Wait until all saves are done.

    Raises:
      CheckpointError: if one fails.
    """
    with _named_failure(manager):
        manager.wait_until_finished()


def restore(manager: ocp.CheckpointManager, like: PyTree) -> Checkpoint | None:
    """The latest checkpoint that is not damaged, or None if there are none.

    Args:
      manager: of the run's checkpoints.
      like: a population of the same structure, shapes and types.

    Returns:
      The checkpoint. Those that cannot be read, or whose checksum is another, are named in a warning.

    Raises:
      CheckpointError: if there are checkpoints but none is whole.
    """
    orbax = _orbax()
    target = jax.tree.map(orbax.utils.to_shape_dtype_struct, like)

    def read(step: int) -> Checkpoint:
        contents = _contents(manager, step)
        items = orbax.args.Composite(state=orbax.args.StandardRestore(target))
        state = manager.restore(step, args=items)["state"]
        if _checksum_of(jax.tree.map(np.asarray, state)) != contents["arrays"]:
            raise ValueError("its arrays have another checksum than when they were saved")
        return Checkpoint(step, jax.tree.map(jax.numpy.asarray, state), contents["record"])

    return _newest_readable(manager, read)


def read_records(manager: ocp.CheckpointManager) -> dict[int, dict[str, Any]]:
    """The record of each checkpoint, by step. Damaged records are left out, and no arrays are read."""
    records = {}
    for step in manager.all_steps():
        with contextlib.suppress(Exception):
            records[step] = _contents(manager, step)["record"]
    return records


def set_aside_after(manager: ocp.CheckpointManager, step: int) -> None:
    """Rename the unreadable checkpoints that are later than the one from which training continues."""
    directory = Path(manager.directory)
    for later in [other for other in manager.all_steps() if other > step]:
        aside = directory / f"unreadable-{later}"
        shutil.rmtree(aside, ignore_errors=True)
        (directory / str(later)).rename(aside)
    manager.reload()


def _newest_readable(manager: ocp.CheckpointManager, read: Callable[[int], Checkpoint]) -> Checkpoint | None:
    failures: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            checkpoint = read(step)
        except Exception as error:
            failures[step] = _reason(error)
            continue
        for failed, reason in failures.items():
            _log.warning(
                "checkpoint %d cannot be read (%s); checkpoint %d is read instead", failed, reason, step
            )
        return checkpoint
    if failures:
        newest = max(failures)
        steps = ", ".join(map(str, sorted(failures)))
        raise CheckpointError(
            f"none of the checkpoints {steps} in {manager.directory} can be read ({newest}: {failures[newest]}): "
            "expected at least one, from a copy of them, or another workdir"
        )
    return None


def _contents(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The record of a checkpoint, if it is whole and of this step."""
    args = _orbax().args
    items = args.Composite(record=args.JsonRestore())
    contents = dict(manager.restore(step, args=items)["record"])
    found = contents.pop("checksum", None)
    if found != _checksum_of_json(contents):
        raise ValueError("its record has another checksum than when it was saved")
    if contents["step"] != step:
        raise ValueError(f"it is of step {contents['step']}")
    return contents


def _checksum_of(population: Population) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(population)
    return checksum(
        *(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), np.asarray(leaf)))
    )


def _checksum_of_json(value: Mapping[str, Any]) -> str:
    return checksum(json.dumps(value, sort_keys=True))


@contextlib.contextmanager
def _named_failure(manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"a checkpoint cannot be written to {manager.directory}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """An error in a few words: orbax's go on for pages."""
    text = str(error)
    if any(name in text for name in _NO_ROOM):
        return "no space left on the device"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = text.strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
