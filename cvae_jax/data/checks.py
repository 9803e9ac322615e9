"""Checks of a dataset: what would train to nonsense is refused, and checksums show what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import DataError
from cvae_jax.likelihoods import LIKELIHOODS
from cvae_jax.likelihoods.base import Likelihood

if TYPE_CHECKING:
    from jaxtyping import Int

_LEAST_SIDE = 4


def require_examples(dataset: Dataset) -> None:
    """Refuse a dataset with an empty split, images that are too small, or pixels that are no numbers.

    Raises:
      DataError: naming the array and its first such example.
    """
    for name, split in dataset.splits.items():
        if not len(split):
            raise DataError(f"{dataset.name}: the {name} split is empty, expected at least one example")
        if np.issubdtype(split.x.dtype, np.floating) and not np.isfinite(split.x).all():
            bad = int(np.flatnonzero(~np.isfinite(split.x).all(axis=(1, 2, 3)))[0])
            raise DataError(f"{dataset.name}: x_{name}[{bad}] has NaN or infinite pixels")
    if min(dataset.shape[:2]) < _LEAST_SIDE:
        raise DataError(
            f"{dataset.name}: images of {dataset.shape[:2]} pixels, expected at least {_LEAST_SIDE} a side"
        )


def require_likely(dataset: Dataset, likelihood: Likelihood) -> None:
    """Refuse pixels to which a likelihood gives no probability.

    Raises:
      DataError: naming the split and what was expected.
    """
    name = LIKELIHOODS.name_of(likelihood)
    for split_name, split in dataset.splits.items():
        if not np.issubdtype(split.x.dtype, np.floating):
            continue
        if likelihood.whole_levels:
            raise DataError(
                f"{dataset.name}: x_{split_name} is {split.x.dtype}, expected uint8 under the {name} likelihood"
            )
        low, high = float(split.x.min()), float(split.x.max())
        if likelihood.unit_interval and (low < 0 or high > dataset.x_max):
            raise DataError(
                f"{dataset.name}: x_{split_name} lies in [{low:g}, {high:g}], expected [0, 1] under the {name} "
                "likelihood"
            )


def require_seen(train: Int[np.ndarray, " n"], other: Int[np.ndarray, " m"], where: str) -> None:
    """Refuse labels that the training split never has: nothing would be learned of them.

    Raises:
      DataError: naming the first of them.
    """
    unseen = np.setdiff1d(other, train)
    if len(unseen):
        raise DataError(
            f"{where} has label {unseen[0]}, which the training split never has: nothing is learned of it"
        )


def checksums(dataset: Dataset, *, pixels: bool = True) -> dict[str, str]:
    """A checksum of each split, by its name.

    Args:
      dataset: as it was read: standardized conditions may differ in their last bits between processors.
      pixels: whether they count, else only the conditions and factors.
    """
    names = (*(("x",) if pixels else ()), "c", "factors", "alternative")

    def of(split: Split) -> str:
        leaves = jax.tree.leaves_with_path({name: getattr(split, name) for name in names})
        return checksum(*(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), leaf)))

    return {name: of(split) for name, split in dataset.splits.items()}
