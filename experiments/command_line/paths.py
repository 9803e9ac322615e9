"""Paths that a run records: absolute, so that it is found again from any folder."""

from __future__ import annotations

import os

from absl import flags


def define_data_dir() -> None:
    """The flag of the folder that TFDS reads from."""
    flags.DEFINE_string(
        "data_dir", None, "Folder of the datasets that TFDS has prepared; if not set, TFDS's own."
    )


def data_dir() -> str | None:
    """The folder that TFDS reads from, None for its default."""
    return None if flags.FLAGS.data_dir is None else os.path.abspath(flags.FLAGS.data_dir)


def dataset(text: str) -> str:
    """A dataset as a run records it: a name, or the absolute path of an `.npz`.

    Example:
      >>> dataset("mnist"), os.path.isabs(dataset("my.npz"))
      ('mnist', True)
    """
    return os.path.abspath(text) if text.endswith(".npz") else text
