"""Checkpoints of a population with orbax: asynchronous, the latest few kept, a damaged one skipped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
import orbax.checkpoint as ocp

from cvae_jax.sweep import Population

if TYPE_CHECKING:
    from jaxtyping import PyTree

_KEPT = 3
_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """No checkpoint can be read; the message is one line for a person."""


@contextlib.contextmanager
def open_manager(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """A manager of the checkpoints in a directory; leaving it waits for saves under way.

    Each checkpoint holds the latest parameters and, within `TrainState.best`, the best by validation, so that the
    best of every member outlives the older files.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, enable_async_checkpointing=True)
    manager = ocp.CheckpointManager(directory.absolute(), options=options)
    try:
        yield manager
        manager.wait_until_finished()
    finally:
        manager.close()


def save(manager: ocp.CheckpointManager, population: Population) -> None:
    """Write a checkpoint in the background, named by the step; one that exists is left alone."""
    # A copy on the host: the population's own buffers are donated to the next step.
    host = jax.tree.map(lambda a: np.array(a), population)
    step = int(host.step)
    if step not in manager.all_steps():
        manager.save(step, args=ocp.args.StandardSave(host))


def restore(manager: ocp.CheckpointManager, like: PyTree) -> Population | None:
    """The latest checkpoint that can be read, or None if there are none.

    Args:
      manager: of the run's checkpoints.
      like: a population of the same structure, shapes and types.

    Returns:
      The population. A damaged checkpoint is named in a warning, and the one before it is read.

    Raises:
      CheckpointError: if there are checkpoints but none can be read.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    for step in steps:
        try:
            restored = manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:
            reason = str(error).strip().splitlines()
            _log.warning(
                "checkpoint %d cannot be read (%s); falling back to the one before it",
                step,
                reason[0][:120] if reason else type(error).__name__,
            )
            continue
        return jax.tree.map(jax.numpy.asarray, restored)
    if steps:
        raise CheckpointError(
            f"none of the checkpoints {', '.join(map(str, sorted(steps)))} in {manager.directory} can be read: "
            "remove the directory to train anew"
        )
    return None


def discard_after(manager: ocp.CheckpointManager, step: int) -> None:
    """Remove checkpoints later than the one that training goes on from: they could not be read."""
    for later in [other for other in manager.all_steps() if other > step]:
        manager.delete(later)
