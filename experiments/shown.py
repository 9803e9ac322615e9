"""Conditions that a run's pictures show samples of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cvae_jax.conditions.kinds import describe
from experiments.loop import Session


class Shown(NamedTuple):
    """Conditions to draw, a row of samples for each.

    Attributes:
      c: with a leading axis of rows.
      names: what a person calls each; empty without a condition.
      title: what the rows are.
    """

    c: Any
    names: tuple[str, ...]
    title: str

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.c.values())) if isinstance(self.c, dict) else self.c)


def conditions(session: Session, *, most_classes: int, most_others: int) -> Shown:
    """Classes in order, conditions of test examples from all over the split, or none.

    Args:
      session: of the run.
      most_classes: rows of a label at most.
      most_others: rows of any other condition, or of none, at most.
    """
    dataset, condition = session.dataset, session.run.config.condition
    if condition == "label":
        classes = min(dataset.num_classes, most_classes)
        return Shown(np.arange(classes), dataset.class_names[:classes], "a row per class")
    rows = min(most_others, len(dataset.test))
    if condition == "none":
        return Shown(np.zeros(rows, np.int32), (), "")
    c = dataset.test.take(np.linspace(0, len(dataset.test) - 1, rows).astype(int)).c
    return Shown(c, tuple(describe(dataset.condition, c, dataset.names)), "a row per test condition")
