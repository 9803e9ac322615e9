"""Read data, refuse what would train to nonsense, and prepare them for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from cvae_jax.conditions import Condition, Label
from cvae_jax.conditions.several import parts_of
from cvae_jax.data.checks import checksums, require_examples, require_likely, require_seen
from cvae_jax.data.dataset import Dataset, Split, unit
from cvae_jax.data.preprocessing import standardized
from cvae_jax.data.settings import Data
from cvae_jax.data.sources import npz, shapes, tfds
from cvae_jax.data.sources.tfds_features import from_features
from cvae_jax.errors import DataError
from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.nn.conv import require_image
from cvae_jax.options import options_of
from cvae_jax.rng import Stream, root_key, stream


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset that is known by name.

    Attributes:
      read: from the folder of prepared TFDS datasets (None is TFDS's default) and the cache folder to the dataset.
      tfds: the TFDS dataset that has to be prepared for it; None for one that is made here.
    """

    read: Callable[[Path | None, Path], Dataset]
    tfds: str | None = None


def _made_here(make: Callable[[], Dataset]) -> Source:
    return Source(lambda data_dir, cache_dir: make())


# Datasets by name; any other name is a TFDS dataset of images with labels. Applications add theirs.
DATASETS = {
    "digits": _made_here(tfds.digits),
    "shapes": _made_here(partial(shapes.shapes, 64)),
    "shapes32": _made_here(partial(shapes.shapes, 32)),
}


def read_named(name: str, data_dir: Path | None, cache_dir: Path) -> Dataset:
    """A dataset of `DATASETS`, or one that TFDS prepared, packed to one file at the first read."""
    read = DATASETS[name].read if name in DATASETS else partial(tfds.from_tfds, name)
    return read(data_dir, cache_dir)


def load(
    data: Data,
    condition: tuple[Condition, ...] | None,
    likelihood: Likelihood,
    *,
    data_dir: Path | None,
    cache_dir: Path,
) -> Dataset:
    """Read a dataset and prepare it for training.

    Args:
      data: which dataset, and what happens to it.
      condition: what c is made of, one or several; None for what the dataset is made for, () for no condition.
      likelihood: p(x|z,c).
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.
      cache_dir: where packed arrays are kept.

    Returns:
      The three splits, see `prepared`, with checksums of what was read.

    Raises:
      DataError: if there is no such dataset, it is not prepared, or its arrays cannot be used.
    """
    dataset = read(data, condition, data_dir=data_dir, cache_dir=cache_dir)
    return prepared(dataset, data, condition, likelihood)


def read(
    data: Data,
    condition: tuple[Condition, ...] | None,
    *,
    data_dir: Path | None,
    cache_dir: Path,
) -> Dataset:
    """Read a dataset, with checksums of what was read; arguments as of `load`.

    Raises:
      DataError: if there is no such dataset, it is not prepared, or its arrays cannot be read.
    """
    dataset = _read(data, condition, data_dir, cache_dir)
    # Pixels that are drawn here are left out: another processor may round a few of them otherwise.
    source = DATASETS.get(data.dataset)
    sums = checksums(dataset, pixels=source is None or source.tfds is not None)
    return dataclasses.replace(dataset, checksums=sums)


def prepared(
    dataset: Dataset,
    data: Data,
    condition: tuple[Condition, ...] | None,
    likelihood: Likelihood,
) -> Dataset:
    """A dataset as training takes it: checked, numbers of conditions standardized, pixels binarized.

    Args:
      dataset: as it was read or made of arrays.
      data, condition, likelihood: as in `load`.

    Returns:
      With `dynamic` or `static` binarization validation and test are binary; with `static` so is train. With the
      condition `()` c stays, for evaluation by class; a condition that is made of x takes its place.

    Raises:
      DataError: if the data cannot be used so.
    """
    require_examples(dataset)
    require_likely(dataset, likelihood)
    if data.augment:
        require_image(dataset.shape, f"--augment={','.join(data.augment)}")
    of_x = _require_condition(dataset, condition)
    if isinstance(dataset.condition, Label) and of_x is None and condition != ():
        for name, split in dataset.splits.items():
            require_seen(dataset.train.labels, split.labels, dataset.class_names, f"{dataset.name}: c_{name}")
    dataset = _binarized(standardized(dataset), data.binarization(likelihood), data.data_seed)
    return dataset if of_x is None else _conditioned_on_x(dataset, of_x)


def _read(
    data: Data, condition: tuple[Condition, ...] | None, data_dir: Path | None, cache_dir: Path
) -> Dataset:
    """The dataset of a name."""
    own = data.dataset.endswith(".npz")
    if condition and data.condition_feature and len(condition) != len(data.condition_feature):
        raise DataError(
            f"condition_feature is {','.join(data.condition_feature)}, expected one for each of the {len(condition)} "
            "conditions"
        )
    if own or data.dataset in DATASETS:
        for name in ("target_feature",) if own else ("target_feature", "condition_feature"):
            if getattr(data, name) != getattr(Data(), name):
                raise DataError(
                    f"{name} is {getattr(data, name)}, expected none with the dataset {data.dataset}"
                )
    if own:
        return npz.from_npz(Path(data.dataset), condition, data.condition_feature)
    wanted = (Label(),) if condition is None else tuple(each for each in condition if not each.reads_x)
    usual = data.target_feature == Data().target_feature and not data.condition_feature
    if data.dataset in DATASETS or (
        usual and all(type(each) is Label for each in wanted) and len(wanted) < 2
    ):
        return read_named(data.dataset, data_dir, cache_dir)
    return from_features(
        data.dataset, data.target_feature, wanted, data.condition_feature, data_dir, cache_dir
    )


def _require_condition(dataset: Dataset, condition: tuple[Condition, ...] | None) -> Condition | None:
    """Refuse conditions that the data are not made for; return one that is made of x."""
    found = dataset.condition
    if condition is None:
        return found if found is not None and found.reads_x else None
    if len(condition) == 1 and condition[0].reads_x:
        return condition[0]
    offered = parts_of(found)
    if condition and list(map(type, condition)) != list(map(type, offered)):
        chosen = ",".join(part.name for part in condition)
        names = f"{found.name} or none" if found is not None else "none"
        raise DataError(f"condition is {chosen!r}, expected {names} with the dataset {dataset.name}")
    for chosen, bound in zip(condition, offered, strict=bool(condition)):
        if not _fits(chosen, bound):
            raise DataError(f"condition is {chosen}, expected {bound} with the dataset {dataset.name}")
    return None


def _fits(chosen: Condition, bound: Condition) -> bool:
    """Whether a condition has the fields of the one that data are bound to, but for what it takes from the data."""
    options = options_of(type(chosen))
    return all(
        getattr(chosen, field.name) == getattr(bound, field.name)
        or (field.name not in options and getattr(chosen, field.name) == field.default)
        for field in dataclasses.fields(cast("Any", bound))
    )


def _binarized(dataset: Dataset, how: str, seed: int) -> Dataset:
    """Draw the binary pixels that stay the same all through a run, from a seed."""
    if how == "none":
        return dataset
    root = stream(root_key(seed), Stream.FIXED_BINARIZE)

    def binary(index: int, split: Split) -> Split:
        if np.isin(split.x, (0, dataset.x_max)).all():
            return split
        key = jax.random.fold_in(root, index)
        x = jax.random.bernoulli(key, unit(split.x, dataset.x_max))
        x = np.asarray(x).astype(split.x.dtype) * np.asarray(dataset.x_max, split.x.dtype)
        return dataclasses.replace(split, x=x)

    return dataclasses.replace(
        dataset,
        train=binary(0, dataset.train) if how == "static" else dataset.train,
        validation=binary(1, dataset.validation),
        test=binary(2, dataset.test),
    )


def _conditioned_on_x(dataset: Dataset, condition: Condition) -> Dataset:
    """The same images, conditioned on what is made of them; each training step makes it anew of its own pixels."""
    bound, splits = condition, {}
    for name, split in dataset.splits.items():
        bound, c = condition.of_data(unit(split.x, dataset.x_max))
        splits[name] = dataclasses.replace(split, c=c, alternative=None)
    return dataclasses.replace(dataset, condition=bound, names=(), **splits)
