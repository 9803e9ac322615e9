"""Checks of a dataset: what would train to nonsense is refused, and checksums show what has changed."""

from __future__ import annotations

from collections.abc import Sequence
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

# The largest root mean square of x with which a Gaussian likelihood trains well.
_LARGEST_RMS = 10.0


def require_examples(dataset: Dataset) -> None:
    """Refuse a dataset with an empty split, or x that is not finite.

    Raises:
      DataError: naming the array and its first such example.
    """
    for name, split in dataset.splits.items():
        if not len(split):
            raise DataError(f"{dataset.name}: the {name} split is empty, expected at least one example")
        if np.issubdtype(split.x.dtype, np.floating) and not np.isfinite(split.x).all():
            bad = int(np.flatnonzero(~np.isfinite(split.x).reshape(len(split), -1).all(axis=1))[0])
            raise DataError(
                f"{dataset.name}: x_{name}[{bad}] has NaN or infinite values, expected finite ones"
            )


def require_likely(dataset: Dataset, likelihood: Likelihood) -> None:
    """Refuse x to which a likelihood gives no probability, or in whose range training would diverge.

    Raises:
      DataError: naming the split and what was expected.
    """
    name = LIKELIHOODS.name_of(likelihood)
    for split_name, split in dataset.splits.items():
        if not np.issubdtype(split.x.dtype, np.floating):
            continue
        low, high = float(split.x.min()), float(split.x.max())
        found = f"{dataset.name}: x_{split_name} lies in {low:.4g} to {high:.4g}, expected"
        under = f"under the {name} likelihood"
        if likelihood.whole_levels:
            raise DataError(f"{found} whole numbers from 0 to 255, such as uint8, {under}")
        if likelihood.unit_interval and (low < 0 or high > dataset.x_max):
            remedy = f"divide by {_divisor(high):.4g}, or take" if low >= 0 else "scale it, or take"
            raise DataError(f"{found} 0 to 1 {under}: {remedy} --likelihood=gaussian_optimal")
        scaled = split.x.astype(np.float64) / dataset.x_max
        if np.sqrt(np.mean(np.square(scaled))) > _LARGEST_RMS:
            divisor = _divisor(max(high, -low))
            remedy = f"divide by {divisor:.4g}, or subtract the mean and divide by the standard deviation"
            raise DataError(f"{found} about -1 to 1 {under}: {remedy}")


def _divisor(largest: float) -> float:
    """What brings x to about 1: 255 for pixels of 8 bits."""
    return 255.0 if 127 < largest <= 255 else largest


def require_seen(
    train: Int[np.ndarray, " n"], other: Int[np.ndarray, " m"], names: Sequence[str], where: str
) -> None:
    """Refuse labels that the training split never has: nothing would be learned of them.

    Raises:
      DataError: naming the first of them.
    """
    unseen = np.setdiff1d(other, train)
    if len(unseen):
        raise DataError(
            f"{where} has label {names[unseen[0]]}, which the training split never has, expected labels that it has "
            "(or, for numbers, --condition=vector)"
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
