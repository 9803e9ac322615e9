"""Any TFDS dataset: one feature to model, others to condition on."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.data import audio, tfds
from cvae_jax.data.cache import packed_once
from cvae_jax.data.dataset import Dataset, Split, with_splits
from cvae_jax.data.preprocessing import made_of, text_of
from cvae_jax.errors import AudioError, DataError

# What each kind of condition is called in most datasets.
_USUAL = {"label": "label", "vector": "attributes", "image": "image", "text": "text", "audio": "audio"}
_SPLITS = ("train", "validation", "test")


def from_features(
    name: str,
    target: str,
    conditions: tuple[str, ...],
    features: tuple[str, ...],
    data_dir: Path | None,
    cache_dir: Path,
) -> Dataset:
    """A prepared TFDS dataset with a feature to model and features to condition on, packed at the first read.

    Args:
      name: as TFDS names it.
      target: the images that are modelled.
      conditions: what each condition is: `label`, `vector`, `image`, `text` or `audio`.
      features: which feature each is, nested ones with a slash, as `captions/text`; empty for what each is usually
        called.
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.
      cache_dir: where the packed file goes.

    Returns:
      The dataset; of several texts of an example the first, of a group of attributes all, as numbers, and of a sound
      the log-mel spectrogram, resampled to 8 kHz with a warning where it has another rate.

    Raises:
      DataError: if it is not prepared, lacks a feature, or a feature is of another kind.
    """
    chosen = features or tuple(_USUAL[condition] for condition in conditions)
    builder = tfds.open_tfds(name, data_dir)
    known = _paths(builder.info.features or {})
    for feature in (target, *chosen):
        if feature not in known:
            raise DataError(f"dataset {name!r} has no feature {feature}, expected one of {', '.join(known)}")
    rates = {feature: getattr(known[feature], "sample_rate", None) or audio.SAMPLE_RATE for feature in chosen}
    for feature, condition in zip(chosen, conditions, strict=True):
        if condition == "audio" and rates[feature] != audio.SAMPLE_RATE:
            warnings.warn(
                f"feature {feature} of {name} is at {rates[feature]} Hz: resampled to {audio.SAMPLE_RATE}",
                stacklevel=2,
            )

    def decode() -> dict[str, np.ndarray]:
        arrays = {}
        for split in _SPLITS:
            if split == "train" or split in builder.info.splits:
                with tfds.reading(builder, split, name):
                    source = tfds.in_order(tfds.open_split(builder, split))
                    arrays |= _decoded(
                        source, split, target, dict(zip(chosen, conditions, strict=True)), rates, name
                    )
        return arrays

    wanted = f"{target} {conditions} {chosen} {rates} {audio.ANALYSIS}"
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]
    packed = cache_dir / f"{builder.info.full_name.replace('/', '-')}-{digest}.npz"
    arrays = packed_once(packed, f"{os.fspath(builder.data_path)} {wanted}", decode)

    known_as = {feature: tuple(getattr(known[feature], "names", None) or ()) for feature in chosen}
    return _dataset(name, arrays, target, dict(zip(chosen, conditions, strict=True)), known_as)


def _dataset(
    name: str,
    arrays: dict[str, np.ndarray],
    target: str,
    conditions: dict[str, str],
    known_as: dict[str, tuple[str, ...]],
) -> Dataset:
    """The dataset of decoded arrays: images and, by feature, conditions and the names that TFDS has for classes."""
    present = [split for split in _SPLITS if f"{target}_{split}" in arrays]
    kinds, names, by_split = [], {}, {split: {} for split in present}
    for feature, condition in conditions.items():
        raw = {split: arrays[f"{feature}_{split}"] for split in present}
        made = made_of(condition, raw, f"feature {feature}")
        kinds.append((feature, made.kind))
        if made.names:
            known = known_as[feature]
            names[feature] = tuple(known[int(i)] for i in made.names) if known else made.names
        for split, c in made.c.items():
            by_split[split][feature] = c
    first, *others = conditions
    splits = {
        split: Split(arrays[f"{target}_{split}"], c if others else c[first]) for split, c in by_split.items()
    }
    by_label = not others and conditions[first] == "label"
    return with_splits(
        name, splits["train"], splits.get("validation"), splits.get("test"), 255.0,
        names[first] if by_label else (),
        kinds=None if by_label else tuple(kinds) if others else kinds[0][1],
        names=names,
    )  # fmt: skip


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
    source: Any, split: str, target: str, conditions: dict[str, str], rates: dict[str, int], name: str
) -> dict[str, np.ndarray]:
    """Arrays of one split by feature."""
    columns: dict[str, list[Any]] = {target: [], **{feature: [] for feature in conditions}}
    for example in source:
        columns[target].append(np.asarray(_value(example, target)))
        for feature, condition in conditions.items():
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


def _plain(value: Any, condition: str, feature: str, rate: int, name: str) -> np.ndarray:
    """One example's condition as an array or a string."""
    match condition:
        case "text":
            first = np.asarray(value).reshape(-1)[0] if np.size(value) else ""
            return np.asarray(text_of(first, f"dataset {name!r}, feature {feature}"))
        case "vector" if isinstance(value, Mapping):
            return np.array([value[key] for key in sorted(value)], np.float32)
        case "audio":
            try:
                return audio.spectrogram(audio.recording(np.asarray(value), rate).samples)
            except AudioError as error:
                raise DataError(f"dataset {name!r}, feature {feature}: {error}") from None
        case _:
            return np.asarray(value)
