"""Where data comes from: scikit-learn's digits, or TFDS by name."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Dataset, Split, with_splits
from cvae_jax.data.sources.cache import packed_once
from cvae_jax.errors import DataError, shortened

# TFDS datasets whose features `label_*` are the factors their images were made from: which of them is the class.
_CLASS_FACTORS = {"dsprites": "label_shape", "shapes3d": "label_shape", "smallnorb": "label_category"}
_READ_AT_ONCE = 256


def digits() -> Dataset:
    """1,797 scans of handwritten digits, 8×8 pixels of 17 grey levels, that scikit-learn brings along."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    train = Split(bunch.images[..., None].astype(np.uint8), bunch.target.astype(np.int32))
    return with_splits("digits", train, None, None, 16.0, Label(10), tuple("0123456789"))


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


def open_tfds(name: str, data_dir: Path | None) -> Any:
    """TFDS's builder of a prepared dataset.

    Args:
      name: as TFDS names it, `mnist` or `emnist/balanced`.
      data_dir: where TFDS keeps prepared datasets; None is TFDS's default.

    Raises:
      DataError: if there is no such dataset, or it is not prepared.
    """
    require_tfds_name(name)
    where: dict[str, Any] = {} if data_dir is None else {"data_dir": os.fspath(data_dir)}
    builder = tfds_builder(name, **where)
    if not builder.data_path.exists():
        raise DataError(
            f"dataset {name!r} is not prepared in {data_dir or '~/tensorflow_datasets'}: run {_command(name, data_dir)}"
        )
    return builder


def tfds_builder(name: str, **where: Any) -> Any:
    """TFDS's builder of a dataset.

    Raises:
      DataError: if TFDS has none of this name, config and version, or what is prepared of it is damaged.
    """
    import tensorflow_datasets as tfds

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return tfds.builder(name, **where)
    except ImportError:
        raise _needs_tensorflow(name) from None
    except Exception as error:  # Of many types, and of many lines.
        root = Path(
            where.get("data_dir") or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        ).expanduser()
        if damaged := _damaged_json(root / re.split("[/:]", name)[0]):
            raise DataError(f"dataset {name!r}: {damaged} is damaged: {_anew(root, name)}") from None
        what = re.sub(r'^Failed to construct dataset .*?}": ', "", str(error).strip())
        raise DataError(
            f"dataset {name!r} cannot be opened: {shortened(_first_line(what), 200)}; expected a prepared NAME, "
            "NAME/CONFIG or NAME:VERSION of TFDS, the version as in 3.0.1"
        ) from None


def open_split(builder: Any, split: str) -> Any:
    """The examples of one split of a prepared dataset, in the order of their files; to be read within `reading`."""
    if split not in builder.info.splits:
        raise DataError(
            f"dataset {builder.name!r} has no split {split} in {builder.data_path}, expected one: it has "
            f"{', '.join(builder.info.splits) or 'none, or its dataset_info.json is missing'}"
        )
    return builder.as_data_source(split)


@contextlib.contextmanager
def reading(builder: Any, split: str, name: str) -> Iterator[None]:
    """Within the block examples of a split are opened and read.

    Raises:
      DataError: if their files are damaged, of a format that cannot be read, or not without TensorFlow.
    """
    try:
        yield
    except DataError:
        raise
    except ImportError:
        raise _needs_tensorflow(name) from None
    except NotImplementedError:
        raise DataError(
            f"dataset {name!r} in {builder.data_path} is prepared in another format than array_record, expected "
            f"array_record: {_anew(_root(builder), name)}"
        ) from None
    except Exception as error:  # Each format and each library behind it raises its own.
        raise DataError(
            f"dataset {name!r}: {_damaged_file(builder, split)} is damaged or missing "
            f"({shortened(_first_line(str(error)), 120)}): {_anew(_root(builder), name)}"
        ) from None


def _command(name: str, data_dir: os.PathLike[str] | None) -> str:
    """The command that prepares a dataset."""
    words = ["./launch.sh", "prepare", f"--dataset={name}"]
    return shlex.join(words + ([f"--data_dir={os.fspath(data_dir)}"] if data_dir else []))


def _root(builder: Any) -> Path:
    """The folder of all prepared datasets."""
    return Path(getattr(builder, "data_dir_root", builder.data_path))


def _anew(root: Path, name: str) -> str:
    """What to do where a prepared dataset cannot be used: in the same folder TFDS would leave it as it is."""
    data_dir = root.with_name(f"{root.name}-array_record")
    return f"run {_command(name, data_dir)} and give that --data_dir"


def _damaged_json(folder: Path) -> Path | None:
    """The first description of a prepared dataset that cannot be read."""
    for path in sorted(folder.rglob("*.json")):
        try:
            json.loads(path.read_bytes())
        except (ValueError, OSError):
            return path
    return None


def _damaged_file(builder: Any, split: str) -> str:
    """The first file of a split that cannot be read alone; the folder, where all can."""
    from array_record.python.array_record_module import ArrayRecordReader

    for path in getattr(builder.info.splits[split], "filepaths", ()):
        try:
            reader = ArrayRecordReader(os.fspath(path))
            reader.read_all()
            reader.close()
        except Exception:
            return os.fspath(path)
    return os.fspath(builder.data_path)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def in_order(source: Any) -> Iterator[dict[str, Any]]:
    """The examples of a split one after another, read a few hundred at a time: each alone takes twice as long."""
    for first in range(0, len(source), _READ_AT_ONCE):
        yield from source.__getitems__(range(first, min(first + _READ_AT_ONCE, len(source))))


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
    builder = open_tfds(name, data_dir)
    features = builder.info.features or {}
    label = _label_feature(builder)
    missing = lacking(builder)
    if missing:
        raise DataError(
            f"dataset {name!r} has no feature {' or '.join(missing)}, expected images with labels; "
            f"it has {', '.join(features)}"
        )
    factors = [f for f in features if f.startswith("label_")] if builder.name in _CLASS_FACTORS else []
    packed = cache_dir / f"{builder.info.full_name.replace('/', '-')}.npz"
    arrays = packed_once(
        packed, os.fspath(builder.data_path), lambda: _decode_tfds(builder, name, label, factors)
    )
    splits = {s: Split(arrays[f"x_{s}"], arrays[f"c_{s}"], arrays.get(f"factors_{s}"))
              for s in ("train", "validation", "test") if f"x_{s}" in arrays}  # fmt: skip
    return with_splits(
        name,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        1.0 if builder.name == "dsprites" else 255.0,  # dSprites' pixels are 0 and 1
        Label(len(features[label].names)),
        tuple(features[label].names),
        tuple(f.removeprefix("label_") for f in factors),
    )


def _label_feature(builder: Any) -> str:
    return _CLASS_FACTORS.get(builder.name, "label")


def lacking(builder: Any) -> list[str]:
    """Features that a dataset of TFDS lacks to be images with labels."""
    return sorted({"image", _label_feature(builder)} - set(builder.info.features or {}))


def _decode_tfds(builder: Any, name: str, label: str, factors: list[str]) -> dict[str, np.ndarray]:
    """Decode every image of a prepared dataset into arrays, without TensorFlow."""
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "validation", "test"):
        if split != "train" and split not in builder.info.splits:
            continue
        with reading(builder, split, name):
            source = open_split(builder, split)
            first = source[0]["image"]
            x = np.empty((len(source), *first.shape), np.uint8)
            c = np.empty(len(source), np.int32)
            known = np.empty((len(source), len(factors)), np.int32)
            for i, example in enumerate(in_order(source)):
                if example["image"].shape != first.shape:
                    raise DataError(
                        f"dataset {name!r} has images of shapes {first.shape} and {example['image'].shape}, "
                        "expected one shape"
                    )
                x[i], c[i] = example["image"], example[label]
                known[i] = [example[factor] for factor in factors]
        arrays |= {f"x_{split}": x, f"c_{split}": c} | ({f"factors_{split}": known} if factors else {})
    return arrays
