"""Read a configuration's data, refuse what would train to nonsense, and binarize what is binarized once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.conditions.kinds import Observed, names_of
from cvae_jax.config import Config
from cvae_jax.data import npz, shapes, tfds
from cvae_jax.data.dataset import Dataset, Split, unit
from cvae_jax.data.preprocessing import standardized
from cvae_jax.data.tfds_features import from_features
from cvae_jax.errors import DataError
from cvae_jax.rng import Stream, root_key, stream


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset that is known by name.

    Attributes:
      read: from the folder of prepared TFDS datasets (None is TFDS's default) and the cache folder to the dataset.
      condition: the conditions it is made for, as `Config.condition` names them.
      tfds: the TFDS dataset that has to be prepared for it; None for one that is made here.
    """

    read: Callable[[Path | None, Path], Dataset]
    condition: str = "label"
    tfds: str | None = None


def _made_here(make: Callable[[], Dataset]) -> Source:
    return Source(lambda data_dir, cache_dir: make())


# Datasets by name; any other name is a TFDS dataset of images with labels. Applications add theirs.
DATASETS = {
    "digits": _made_here(tfds.digits),
    "shapes": _made_here(partial(shapes.shapes, 64)),
    "shapes32": _made_here(partial(shapes.shapes, 32)),
}

# What a split holds beside its pixels.
_BESIDE_PIXELS = ("c", "factors", "reworded")


def read_named(name: str, data_dir: Path | None, cache_dir: Path) -> Dataset:
    """A dataset of `DATASETS`, or one that TFDS prepared, packed to one file at the first read."""
    read = DATASETS[name].read if name in DATASETS else partial(tfds.from_tfds, name)
    return read(data_dir, cache_dir)


def usual_condition(name: str) -> str:
    """The conditions that a dataset is made for.

    Example:
      >>> usual_condition("digits")
      'label'
    """
    return DATASETS[name].condition if name in DATASETS else "label"


def load(config: Config, *, data_dir: Path | None, cache_dir: Path) -> Dataset:
    """Read a configuration's dataset, check it, and binarize what is binarized once.

    Args:
      config: `dataset`, `condition`, `likelihood`, `binarize` and `data_seed` are read.
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.
      cache_dir: where packed arrays are kept.

    Returns:
      The three splits. With `dynamic` or `static` binarization validation and test are binary; with `static` so
      is train.

    Raises:
      DataError: if there is no such dataset, it is not prepared, or its arrays cannot be used.
    """
    if config.dataset.endswith(".npz"):
        dataset = npz.from_npz(Path(config.dataset), config.conditions, config.condition_feature)
    elif _names_features(config):
        dataset = from_features(
            config.dataset,
            config.target_feature,
            config.conditions,
            config.condition_feature,
            data_dir,
            cache_dir,
        )
    else:
        dataset = read_named(config.dataset, data_dir, cache_dir)
    _check(dataset, config)
    # Of what is read: standardized conditions may differ in their last bits between processors.
    dataset = dataclasses.replace(dataset, checksums=_checksums(dataset, config))
    dataset = _binarize_once(standardized(dataset), config)
    return _observed(dataset, config.observed) if config.condition == "observed" else dataset


def _checksums(dataset: Dataset, config: Config) -> dict[str, str]:
    """A checksum of each split, by its name.

    Pixels that are drawn here, not read, are left out: another processor may round a few of them otherwise.
    """
    source = DATASETS.get(config.dataset)
    pixels = () if source is not None and source.tfds is None else ("x",)

    def of(split: Split) -> str:
        leaves = jax.tree.leaves_with_path(
            {name: getattr(split, name) for name in (*pixels, *_BESIDE_PIXELS)}
        )
        return checksum(*(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), leaf)))

    return {name: of(getattr(dataset, name)) for name in ("train", "validation", "test")}


def _names_features(config: Config) -> bool:
    """Whether a TFDS dataset is to be read otherwise than as it is made for."""
    if config.dataset in DATASETS:
        return False
    usual = config.target_feature == "image" and not config.condition_feature
    return not (usual and config.condition in ("label", "none", "observed"))


def _check(dataset: Dataset, config: Config) -> None:
    """Refuse arrays that would train to nonsense."""
    is_own = config.dataset.endswith(".npz")
    if config.dataset in DATASETS or is_own:
        for name in ("target_feature",) if is_own else ("target_feature", "condition_feature"):
            if getattr(config, name) != Config.__dataclass_fields__[name].default:
                raise DataError(
                    f"{name} is {getattr(config, name)}, expected none with the dataset {dataset.name}"
                )
    offered = ",".join(names_of(dataset.condition))
    if config.condition not in (offered, "none") and not (
        config.condition == "observed" and dataset.labelled
    ):
        raise DataError(
            f"condition is {config.condition!r}, expected {offered} or none with the dataset {dataset.name}"
        )
    for name in ("train", "validation", "test"):
        split: Split = getattr(dataset, name)
        if not len(split):
            raise DataError(f"{dataset.name}: the {name} split is empty, expected at least one example")
        if np.issubdtype(split.x.dtype, np.floating):
            if config.likelihood == "logistic_mixture":
                raise DataError(
                    f"{dataset.name}: x_{name} is {split.x.dtype}, expected uint8 under the logistic_mixture likelihood"
                )
            if not np.isfinite(split.x).all():
                bad = int(np.flatnonzero(~np.isfinite(split.x).all(axis=(1, 2, 3)))[0])
                raise DataError(f"{dataset.name}: x_{name}[{bad}] has NaN or infinite pixels")
            low, high = float(split.x.min()), float(split.x.max())
            if config.likelihood in ("bernoulli", "continuous_bernoulli") and (
                low < 0 or high > dataset.x_max
            ):
                raise DataError(
                    f"{dataset.name}: x_{name} lies in [{low:g}, {high:g}], expected [0, 1] under the "
                    f"{config.likelihood} likelihood"
                )
        if config.condition != "label":
            continue
        if split.labels.min() < 0:
            raise DataError(f"{dataset.name}: c_{name} has label {split.labels.min()}, expected labels ≥ 0")
        unseen = set(np.unique(split.labels)) - set(np.unique(dataset.train.labels))
        if unseen:
            raise DataError(
                f"{dataset.name}: c_{name} has label {min(unseen)}, which c_train never has: nothing was learned of it"
            )
    if min(dataset.shape[:2]) < 4:
        raise DataError(f"{dataset.name}: images of {dataset.shape[:2]} pixels, expected at least 4 a side")
    if len(dataset.train) < config.batch_size:
        raise DataError(
            f"batch_size is {config.batch_size}, expected at most the {len(dataset.train)} examples of the "
            f"{dataset.name} training split"
        )


def _binarize_once(dataset: Dataset, config: Config) -> Dataset:
    """Draw the binary pixels that stay the same all through a run, from `data_seed`."""
    if config.binarize == "none":
        return dataset
    root = stream(root_key(config.data_seed), Stream.FIXED_BINARIZE)

    def binary(index: int, split: Split) -> Split:
        if np.isin(split.x, (0, dataset.x_max)).all():
            return split
        key = jax.random.fold_in(root, index)
        x = jax.random.bernoulli(key, unit(split.x, dataset.x_max))
        x = np.asarray(x).astype(split.x.dtype) * np.asarray(dataset.x_max, split.x.dtype)
        return dataclasses.replace(split, x=x)

    return dataclasses.replace(
        dataset,
        train=binary(0, dataset.train) if config.binarize == "static" else dataset.train,
        validation=binary(1, dataset.validation),
        test=binary(2, dataset.test),
    )


def _observed(dataset: Dataset, quadrants: int) -> Dataset:
    """The same images, conditioned on their observed pixels; training observes what each step binarizes."""
    kind = Observed(dataset.shape, quadrants)

    def given(split: Split) -> Split:
        return dataclasses.replace(split, c=(split.x > dataset.x_max / 2) & kind.mask)

    return dataclasses.replace(
        dataset,
        train=given(dataset.train),
        validation=given(dataset.validation),
        test=given(dataset.test),
        class_names=(),
        kinds=kind,
    )
