"""Where data comes from: scikit-learn's digits, an `.npz` of your own, or TFDS by name."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.dataset import DataError, Dataset, Split, with_splits

# What numpy raises for a file that is no .npz of plain arrays, or is damaged.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)

# The model has an embedding for every label up to the largest.
_LARGEST_LABEL = 2**20 - 1

# TFDS datasets whose features `label_*` are the factors their images were made from: which of them is the class.
_CLASS_FACTORS = {"dsprites": "label_shape", "shapes3d": "label_shape", "smallnorb": "label_category"}


def digits() -> Dataset:
    """1,797 scans of handwritten digits, 8×8 pixels of 17 grey levels, that scikit-learn brings along."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    train = Split(bunch.images[..., None].astype(np.uint8), bunch.target.astype(np.int32))
    return with_splits("digits", train, None, None, 16.0, tuple("0123456789"))


def from_npz(path: Path, *, needs_labels: bool) -> Dataset:
    """Arrays `x_train`, `c_train` and optionally `x_`, `c_validation` and `x_`, `c_test`, and factors of each.

    Args:
      path: the file.
      needs_labels: whether labels may be absent.

    Returns:
      The dataset; splits that the file lacks are held out of train.

    Raises:
      DataError: if the file or its arrays cannot be used.
    """
    try:
        arrays = _read_npz(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist, expected an .npz with x_train and c_train") from None
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read as .npz with plain arrays: {error}") from None

    found = ", ".join(sorted(arrays)) or "nothing"

    def split(name: str) -> Split | None:
        x, c = arrays.get(f"x_{name}"), arrays.get(f"c_{name}")
        if x is None:
            if name == "train":
                raise DataError(f"{path} has no x_train, expected it beside c_train; it holds {found}")
            if c is not None:
                raise DataError(f"{path} has c_{name} but no x_{name}")
            return None
        if c is None:
            if needs_labels:
                raise DataError(f"{path} has no c_{name}, expected labels of x_{name} (or --condition=none)")
            c = np.zeros(len(x), np.int32)
        given = _npz_split(path, name, x, c)
        return dataclasses.replace(given, factors=_npz_factors(path, name, len(x), arrays))

    train, validation, test = split("train"), split("validation"), split("test")
    assert train is not None
    for name, other in (("validation", validation), ("test", test)):
        if other is not None and other.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{path}: x_{name} has images of shape {other.x.shape[1:]}, expected {train.x.shape[1:]} as x_train"
            )
        if other is not None and other.x.dtype != train.x.dtype:
            raise DataError(f"{path}: x_{name} is {other.x.dtype}, expected {train.x.dtype} as x_train")
    x_max = 255.0 if train.x.dtype == np.uint8 else 1.0
    class_names = tuple(str(i) for i in range(int(train.labels.max(initial=0)) + 1))
    factor_names = _npz_factor_names(path, train, arrays)
    return with_splits(path.stem, train, validation, test, x_max, class_names, factor_names)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # numpy leaves a file it cannot read open, hence one of our own.
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single .npy array")
        return {name: loaded[name] for name in loaded.files}


def _npz_split(path: Path, name: str, x: np.ndarray, c: np.ndarray) -> Split:
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        raise DataError(f"{path}: x_{name} has shape {x.shape}, expected (n, H, W) or (n, H, W, C)")
    if c.ndim != 1 or len(x) != len(c):
        raise DataError(
            f"{path}: x_{name} has {len(x)} examples and c_{name} has shape {c.shape}, expected ({len(x)},)"
        )
    if not np.issubdtype(c.dtype, np.integer):
        raise DataError(f"{path}: c_{name} is {c.dtype}, expected whole numbers")
    if c.size and not -_LARGEST_LABEL <= int(c.min()) <= int(c.max()) <= _LARGEST_LABEL:
        raise DataError(
            f"{path}: c_{name} has labels from {c.min()} to {c.max()}, expected from 0 to {_LARGEST_LABEL}"
        )
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
    elif x.dtype != np.uint8:
        raise DataError(f"{path}: x_{name} is {x.dtype}, expected uint8 (0 to 255) or floating (0 to 1)")
    return Split(x, c.astype(np.int32))


def _npz_factors(path: Path, name: str, n: int, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """The factors of a split, as wide as those of train; None where the file has none at all."""
    factors = arrays.get(f"factors_{name}")
    if factors is None:
        if any(other.startswith("factors_") for other in arrays):
            raise DataError(
                f"{path} has no factors_{name}, expected factors of x_{name} as of the other splits"
            )
        return None
    if factors.ndim != 2 or len(factors) != n or factors.shape[1:] != arrays["factors_train"].shape[1:]:
        raise DataError(
            f"{path}: factors_{name} has shape {factors.shape}, expected ({n}, f), f the same in all splits"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise DataError(f"{path}: factors_{name} is {factors.dtype}, expected whole numbers")
    return factors.astype(np.int32)


def _npz_factor_names(path: Path, train: Split, arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    """`factor_names`, or a number for each factor."""
    count = 0 if train.factors is None else train.factors.shape[1]
    names = tuple(map(str, np.atleast_1d(arrays.get("factor_names", np.arange(count)))))
    if len(names) != count:
        raise DataError(
            f"{path}: factor_names has {len(names)} names, expected one for each of {count} factors"
        )
    return names


def require_tfds_name(name: str) -> None:
    """Refuse a name that TFDS does not know, naming the closest it does.

    Raises:
      DataError: if TFDS is not installed or knows no such dataset.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise DataError(
            f"dataset {name!r} needs tensorflow-datasets: install the extra cvae_jax[experiments]"
        ) from None
    builders = tfds.list_builders(with_community_datasets=False)
    if not re.fullmatch(r"[a-z][\w/:.]*", name) or re.split("[/:]", name)[0] not in builders:
        close = difflib.get_close_matches(name, ["digits", "shapes", *builders], n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise DataError(
            f"unknown dataset {name!r}: {hint}expected digits, shapes, shapes32, a path ending in .npz, or a TFDS "
            "name such as mnist, fashion_mnist, kmnist, emnist/balanced, cifar10 or svhn_cropped"
        )


def open_tfds(name: str, data_dir: Path | None) -> tuple[Any, str]:
    """A prepared TFDS dataset, and the command that prepares it.

    Args:
      name: as TFDS names it, `mnist` or `emnist/balanced`.
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.

    Returns:
      TFDS's builder, and the command.

    Raises:
      DataError: if there is no such dataset, or it is not prepared.
    """
    require_tfds_name(name)
    import tensorflow_datasets as tfds

    where: dict[str, Any] = {} if data_dir is None else {"data_dir": os.fspath(data_dir)}
    prepare = f"python -m experiments.prepare --dataset={name}" + (
        f" --data_dir={data_dir}" if data_dir else ""
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder: Any = tfds.builder(name, **where)
    except ImportError:
        raise _needs_tensorflow(name) from None
    if not builder.data_path.exists():
        raise DataError(
            f"dataset {name!r} is not prepared in {data_dir or '~/tensorflow_datasets'}: run {prepare}"
        )
    return builder, prepare


def open_split(builder: Any, split: str, name: str, prepare: str) -> Any:
    """The examples of one split of a prepared dataset, in the order of their files.

    Raises:
      DataError: if they are in a format that cannot be read, or not without TensorFlow.
    """
    try:
        return builder.as_data_source(split)
    except NotImplementedError:
        raise DataError(
            f"dataset {name!r} is prepared in another format than array_record, expected array_record: "
            f"run {prepare} with an empty --data_dir"
        ) from None
    except ImportError:
        raise _needs_tensorflow(name) from None


def _needs_tensorflow(name: str) -> DataError:
    return DataError(
        f"dataset {name!r} cannot be read without TensorFlow: install the extra cvae_jax[prepare]"
    )


def from_tfds(name: str, data_dir: Path | None, cache_dir: Path) -> Dataset:
    """A prepared TFDS dataset of images and labels, packed to one file at the first read.

    Args:
      name: as TFDS names it, `mnist` or `emnist/balanced`.
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.
      cache_dir: where the packed file goes.

    Returns:
      The dataset; splits that TFDS has none of are held out of train.

    Raises:
      DataError: if there is no such dataset, it is not prepared, or it has no images with labels.
    """
    builder, prepare = open_tfds(name, data_dir)
    features = builder.info.features or {}
    label = _CLASS_FACTORS.get(builder.name, "label")
    missing = {"image", label} - set(features)
    if missing:
        raise DataError(
            f"dataset {name!r} has no feature {' or '.join(sorted(missing))}, expected images with labels; "
            f"it has {', '.join(features)}"
        )
    factors = [f for f in features if f.startswith("label_")] if builder.name in _CLASS_FACTORS else []
    packed = cache_dir / f"{builder.info.full_name.replace('/', '-')}.npz"
    arrays = packed_once(
        packed, os.fspath(builder.data_path), lambda: _decode_tfds(builder, name, label, factors, prepare)
    )
    splits = {s: Split(arrays[f"x_{s}"], arrays[f"c_{s}"], arrays.get(f"factors_{s}"))
              for s in ("train", "validation", "test") if f"x_{s}" in arrays}  # fmt: skip
    return with_splits(
        name,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        1.0 if builder.name == "dsprites" else 255.0,  # dSprites' pixels are 0 and 1
        tuple(features[label].names),
        tuple(f.removeprefix("label_") for f in factors),
    )


def _decode_tfds(
    builder: Any, name: str, label: str, factors: list[str], prepare: str
) -> dict[str, np.ndarray]:
    """Decode every image of a prepared dataset into arrays, without TensorFlow."""
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "validation", "test"):
        if split not in builder.info.splits:
            continue
        source = open_split(builder, split, name, prepare)
        first = source[0]["image"]
        x = np.empty((len(source), *first.shape), np.uint8)
        c = np.empty(len(source), np.int32)
        known = np.empty((len(source), len(factors)), np.int32)
        for i, example in enumerate(source):
            if example["image"].shape != first.shape:
                raise DataError(
                    f"dataset {name!r} has images of shapes {first.shape} and {example['image'].shape}, "
                    "expected one shape"
                )
            x[i], c[i] = example["image"], example[label]
            known[i] = [example[factor] for factor in factors]
        arrays |= {f"x_{split}": x, f"c_{split}": c} | ({f"factors_{split}": known} if factors else {})
    return arrays


def packed_once(
    path: Path, source: str, decode: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays from the file they were packed to, or decoded now and packed to it.

    Args:
      path: the file.
      source: what the arrays depend on: a file packed from another one is made anew.
      decode: makes the arrays.

    Returns:
      The arrays.

    Raises:
      DataError: if the file cannot be written.
    """
    arrays = _read_packed(path, source)
    if arrays is None:
        arrays = decode()
        _write_packed(path, arrays | {"source": np.array(source)})
    return arrays


def _read_packed(path: Path, source: str) -> dict[str, np.ndarray] | None:
    """The arrays packed from `source`, or None if there are none to be trusted."""
    try:
        arrays = _read_npz(path)
    except _UNREADABLE:
        return None
    return arrays if str(arrays.get("source")) == source else None


def _write_packed(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(file.name, path)
    except OSError as error:
        raise DataError(
            f"the cache {path.parent} cannot be written ({error.strerror}): set --cache_dir"
        ) from None
