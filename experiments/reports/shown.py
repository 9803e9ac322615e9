"""The conditions of the samples in a run's figures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cvae_jax.conditions import Label
from cvae_jax.runs.session import RunModel


class Shown(NamedTuple):
    """Conditions, each for a row of samples.

    Attributes:
      c: with a leading axis of rows.
      names: the title of each; empty without a condition.
      title: what the rows are.
    """

    c: Any
    names: tuple[str, ...]
    title: str

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.c.values())) if isinstance(self.c, dict) else self.c)


def first_of(count: int, most: int, what: str) -> str:
    """The end of a title if not all are drawn.

    Example:
      >>> first_of(26, 16, "classes"), first_of(10, 16, "classes")
      (', the first 16 of 26 classes', '')
    """
    return "" if count <= most else f", the first {most} of {count} {what}"


def conditions(session: RunModel, *, most_classes: int, most_others: int) -> Shown:
    """The classes of the training split in order, or the conditions of recorded test examples.

    Args:
      session: of the run.
      most_classes: the most rows for a label.
      most_others: the most rows for any other condition, or without one.
    """
    data, condition, examples = session.data, session.model.condition, session.examples
    if isinstance(condition, Label):
        classes = np.array(data.seen_classes[:most_classes])
        names = tuple(data.class_names[label] for label in classes)
        return Shown(
            classes, names, f"a row per class{first_of(len(data.seen_classes), most_classes, 'classes')}"
        )
    rows = min(most_others, len(examples))
    if condition is None:
        return Shown(np.zeros(rows, np.int32), (), "")
    c = examples.take(np.linspace(0, len(examples) - 1, rows).astype(int)).c
    return Shown(c, tuple(condition.describe(c, data.names)), "a row per test condition")
