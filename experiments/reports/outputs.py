"""Files of samples: pictures and arrays. Applications add formats of theirs to `FORMATS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data.dataset import as_in_data
from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from experiments.command_line.choices import Chosen


class Format(NamedTuple):
    """A format of files of samples.

    Attributes:
      text: what it holds, for `--help`.
      write: writes samples of x, one after another in the first axis, and their conditions to a file.
      dataset: the only dataset whose samples can be written in it, None for any.
    """

    text: str
    write: Callable[[Path, np.ndarray, Chosen], None]
    dataset: str | None = None


def require_format(output: Path, dataset: str) -> Format:
    """The format that a file's name asks for.

    Args:
      output: the file.
      dataset: name of the samples' dataset.

    Raises:
      UserError: for another ending, or a format that the dataset's samples cannot be written in.
    """
    possible = [end for end, each in FORMATS.items() if each.dataset in (None, dataset)]
    expected = ", ".join(possible[:-1]) + f" or {possible[-1]}"
    if output.suffix not in FORMATS:
        raise UserError(f"output is {output}, expected a name ending in {expected}")
    if output.suffix not in possible:
        only = FORMATS[output.suffix].dataset
        raise UserError(
            f"output is {output}, expected a name ending in {expected} for samples of {dataset}: "
            f"{output.suffix} is for {only}"
        )
    return FORMATS[output.suffix]


def _write_arrays(output: Path, x: np.ndarray, chosen: Chosen) -> None:
    c = chosen.c if chosen.raw is None else chosen.raw
    c = c if isinstance(c, dict) else {"c": c}
    write_atomically(output, lambda file: np.savez(file, x=as_in_data(x), **c))


def _write_picture(output: Path, x: np.ndarray, chosen: Chosen) -> None:
    from cvae_jax.plots import drawing

    columns = math.ceil(math.sqrt(len(x)))
    rows = math.ceil(len(x) / columns)
    x = drawing.pictures(x, x.shape[1:], chosen.limits)
    grid = np.ones((rows * columns, *x.shape[1:]), x.dtype)
    grid[: len(x)] = x
    figure = drawing.image_grid(grid.reshape(rows, columns, *x.shape[1:]), title=chosen.title)
    write_atomically(output, figure.savefig)


FORMATS: dict[str, Format] = {
    ".png": Format("a picture", _write_picture),
    ".npz": Format("the arrays x and c", _write_arrays),
}
