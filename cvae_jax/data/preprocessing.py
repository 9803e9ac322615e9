"""Conditions that are numbers, standardized."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cvae_jax.conditions import Audio, Condition, Several, Vector
from cvae_jax.data.dataset import Dataset, Scaling
from cvae_jax.errors import DataError

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Conditions

# A number whose standard deviation is this share of its largest value, or less, counts as constant.
_LEAST_VARIATION = 1e-6
_MOST_NAMED = 10


def standardized(dataset: Dataset) -> Dataset:
    """The same dataset, less the training split's mean and over its standard deviation where conditions are numbers.

    Each number of a vector has a mean and a deviation of its own, all of a spectrogram have one. Both are made of the
    training split alone, after validation and test are held out. A number of a vector that is constant there, or
    nearly, is left out with a warning: divided by next to nothing, another value in the test split would be enormous.
    A dataset that is standardized stays as it is.

    Raises:
      DataError: if nothing of a condition varies.
    """
    condition = dataset.condition
    if dataset.scalings:
        return dataset
    several = isinstance(condition, Several)
    parts = condition.parts if isinstance(condition, Several) else (("", condition),)
    every = [c for split in dataset.splits.values() for c in (split.c, split.alternative) if c is not None]
    bound: dict[str, Condition] = {}
    scalings: dict[str, Scaling] = {}
    for name, part in parts:
        if isinstance(part, Vector | Audio):
            where = f"{dataset.name}: {f'the condition {name}' if several else 'the condition'}"
            bound[name], scalings[name] = _scaling(
                part, [c[name] if isinstance(c, dict) else c for c in every], where
            )
    if not scalings:
        return dataset

    def scaled(c: Conditions) -> Conditions:
        if isinstance(c, dict):
            return {
                name: scalings[name].of(array) if name in scalings else array for name, array in c.items()
            }
        return scalings[""].of(c)

    splits = {
        name: dataclasses.replace(
            split,
            c=scaled(split.c),
            alternative=None if split.alternative is None else scaled(split.alternative),
        )
        for name, split in dataset.splits.items()
    }
    if isinstance(condition, Several):
        condition = Several(tuple((name, bound.get(name, part)) for name, part in condition.parts))
    else:
        condition = bound[""]
    return dataclasses.replace(dataset, condition=condition, scalings=scalings, **splits)


def _scaling(
    condition: Vector | Audio, arrays: Sequence[np.ndarray], where: str
) -> tuple[Vector | Audio, Scaling]:
    """A condition as it is standardized, and how, from its arrays of all splits, that of train first."""
    train = arrays[0]
    if isinstance(condition, Audio):
        mean, deviation = train.mean(), train.std()
        if deviation <= _LEAST_VARIATION * max(float(np.abs(array).max()) for array in arrays):
            raise DataError(f"{where} is constant in the training split, expected spectrograms that differ")
        return condition, Scaling(condition, None, mean, deviation)
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    largest = np.max([np.abs(array).max(axis=0) for array in arrays], axis=0)
    varies = deviation > _LEAST_VARIATION * largest
    constant, kept = np.flatnonzero(~varies), np.flatnonzero(varies)
    if not len(kept):
        raise DataError(
            f"{where} has no column that varies in the training split, expected one at least (or --condition=none)"
        )
    if len(constant):
        some = ", ".join(map(str, constant[:_MOST_NAMED]))
        more = f" and {len(constant) - _MOST_NAMED} more" if len(constant) > _MOST_NAMED else ""
        warnings.warn(
            f"{where}: column {some}{more} of {condition.size} is constant in the training split, or nearly: left out",
            stacklevel=2,
        )
    scaling = Scaling(condition, tuple(kept.tolist()), mean[kept], deviation[kept])
    return dataclasses.replace(condition, size=len(kept)), scaling
