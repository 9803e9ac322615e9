"""Arrays in `.npz` files: read whole or not at all, and decoded once to be read again."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cvae_jax.errors import DataError
from cvae_jax.files import write_atomically

# What numpy raises for a file that is no .npz of plain arrays, or is damaged.
UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError, NotImplementedError,
    RuntimeError, SyntaxError, tokenize.TokenError, struct.error, lzma.LZMAError,
)  # fmt: skip


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Raises:
      UNREADABLE: one of them, if it has none.
    """
    # Opening a pipe would wait for a writer for ever.
    if path.exists() and not path.is_file():
        raise ValueError("it is no ordinary file")
    # numpy leaves a file it cannot read open, hence one of our own.
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single .npy array")
        arrays = {name: loaded[name] for name in loaded.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"its {name} is no array")
    return arrays


def read_own_npz(path: Path, expected: str, *, what: str = "") -> dict[str, np.ndarray]:
    """The arrays of a file that a user names.

    Args:
      path: the file.
      expected: what it should hold, for an error.
      what: the flag that names it, for an error.

    Raises:
      DataError: in one line, if there is no such file or it holds no plain arrays.
    """
    named = f"{what} {path}".lstrip()
    try:
        return read_npz(path)
    except FileNotFoundError:
        raise DataError(f"{named} does not exist, expected an .npz {expected}") from None
    except UNREADABLE as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{named} cannot be read as .npz with plain arrays: {why}") from None


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
        write_cached(path, arrays | {"source": np.array(source)})
    return arrays


def _read_packed(path: Path, source: str) -> dict[str, np.ndarray] | None:
    """The arrays packed from `source`, or None if there are none to be trusted."""
    try:
        arrays = read_npz(path)
    except UNREADABLE:
        return None
    return arrays if str(arrays.get("source")) == source else None


def write_cached(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a file of the cache folder.

    Raises:
      DataError: if it cannot be written.
    """
    try:
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    except OSError as error:
        raise DataError(
            f"the cache {path.parent} cannot be written ({error.strerror}): set --cache_dir"
        ) from None
