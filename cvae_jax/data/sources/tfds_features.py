"""Any TFDS dataset: one feature to model, others to condition on."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.conditions import Audio, Condition, Text, Vector
from cvae_jax.conditions.text import text_of
from cvae_jax.data.arrays import Named, assemble
from cvae_jax.data.dataset import SPLITS, Dataset
from cvae_jax.data.sources import audio, tfds
from cvae_jax.data.sources.cache import packed_once
from cvae_jax.errors import AudioError, DataError

# What most datasets call a condition, where it is not its own name.
_USUAL = {"vector": "attributes"}


def from_features(
    name: str,
    target: str,
    conditions: tuple[Condition, ...],
    features: tuple[str, ...],
    data_dir: Path | None,
    cache_dir: Path,
) -> Dataset:
    """A prepared TFDS dataset with a feature to model and features to condition on, packed at the first read.

    Args:
      name: as TFDS names it.
      target: the images that are modelled.
      conditions: what each is made of.
      features: which feature each is, nested ones with a slash, as `objects/text`; empty for what each is usually
        called.
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.
      cache_dir: where the packed file goes.

    Returns:
      The dataset; of several texts of an example the first, of a group of attributes all, as numbers, and of a sound
      the log-mel spectrogram, resampled to 8 kHz with a warning where it has another rate.

    Raises:
      DataError: if it is not prepared, lacks a feature, or a feature is of another kind.
    """
    chosen = features or tuple(_USUAL.get(condition.name, condition.name) for condition in conditions)
    builder = tfds.open_tfds(name, data_dir)
    known = _paths(builder.info.features or {})
    for feature in (target, *chosen):
        if feature not in known:
            raise DataError(f"dataset {name!r} has no feature {feature}, expected one of {', '.join(known)}")
    parts = dict(zip(chosen, conditions, strict=True))
    rates = {feature: getattr(known[feature], "sample_rate", None) or audio.SAMPLE_RATE for feature in chosen}
    for feature, condition in parts.items():
        if isinstance(condition, Audio) and rates[feature] != audio.SAMPLE_RATE:
            warnings.warn(
                f"feature {feature} of {name} is at {rates[feature]} Hz: resampled to {audio.SAMPLE_RATE}",
                stacklevel=2,
            )

    def decode() -> dict[str, np.ndarray]:
        arrays = {}
        for split in SPLITS:
            if split == "train" or split in builder.info.splits:
                with tfds.reading(builder, split, name):
                    source = tfds.in_order(tfds.open_split(builder, split))
                    arrays |= _decoded(source, split, target, parts, rates, name)
        return arrays

    kinds = tuple(type(condition).__qualname__ for condition in conditions)
    wanted = f"{target} {kinds} {chosen} {rates} {audio.ANALYSIS}"
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]
    packed = cache_dir / f"{builder.info.full_name.replace('/', '-')}-{digest}.npz"
    arrays = packed_once(packed, f"{os.fspath(builder.data_path)} {wanted}", decode)

    present = [split for split in SPLITS if f"{target}_{split}" in arrays]
    named = [
        Named(
            feature,
            condition,
            {split: arrays[f"{feature}_{split}"] for split in present},
            tuple(getattr(known[feature], "names", None) or ()),
        )
        for feature, condition in parts.items()
    ]
    x = {split: arrays[f"{target}_{split}"] for split in present}
    return assemble(name, f"dataset {name!r}", x, named, len(named) > 1)


def _paths(features: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """All features by name, nested ones after those that hold them."""
    paths = {}
    for name, feature in features.items():
        paths[before + name] = feature
        inner = getattr(feature, "feature", feature)
        if hasattr(inner, "items"):
            paths |= _paths(dict(inner.items()), f"{before}{name}/")
    return paths


def _value(example: Any, path: str) -> Any:
    """What a path leads to; of a sequence of groups, what each of them has there."""
    if path in example:
        return example[path]
    first, rest = path.split("/", 1)
    return _value(example[first], rest)


def _decoded(
    source: Any, split: str, target: str, parts: dict[str, Condition], rates: dict[str, int], name: str
) -> dict[str, np.ndarray]:
    """Arrays of one split by feature."""
    columns: dict[str, list[Any]] = {target: [], **{feature: [] for feature in parts}}
    for example in source:
        columns[target].append(np.asarray(_value(example, target)))
        for feature, condition in parts.items():
            columns[feature].append(
                _plain(_value(example, feature), condition, feature, rates[feature], name)
            )
    shapes = {x.shape for x in columns[target]}
    if len(shapes) > 1 or columns[target][0].dtype != np.uint8:
        raise DataError(
            f"dataset {name!r} has {columns[target][0].dtype} of shapes {sorted(shapes)[:2]} as {target}, expected "
            "uint8 images of one shape"
        )
    return {f"{feature}_{split}": np.stack(values) for feature, values in columns.items()}


def _plain(value: Any, condition: Condition, feature: str, rate: int, name: str) -> np.ndarray:
    """One example's condition as an array or a string."""
    match condition:
        case Text():
            first = np.asarray(value).reshape(-1)[0] if np.size(value) else ""
            return np.asarray(text_of(first, f"dataset {name!r}, feature {feature}"))
        case Vector() if isinstance(value, Mapping):
            return np.array([value[key] for key in sorted(value)], np.float32)
        case Audio():
            try:
                return audio.spectrogram(audio.recording(np.asarray(value), rate).samples)
            except AudioError as error:
                raise DataError(f"dataset {name!r}, feature {feature}: {error}") from None
        case _:
            return np.asarray(value)
