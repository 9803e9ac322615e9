"""Values on the command line: one, or many as `0.5,1,2`, `logspace(0.1,10,9)`, `loguniform(0.1,10)`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from cvae_jax.errors import UserError
from cvae_jax.options import Values
from cvae_jax.training.grid import Uniform

_MOST_VALUES = 1_000_000
_CALL = re.compile(r"\s*([a-z]+)\s*\((.*)\)\s*")


def single(name: str, text: str, values: Values) -> Any:
    """The value of an option that a flag's text holds.

    Args:
      name: of the flag, for errors.
      text: a number or a text; of an option with several, these with commas between.
      values: what the option's values are.

    Raises:
      UserError: if the text is none of these.

    Example:
      >>> single("hidden", "512,256", Values(int, several=True)), single("beta", "inf", Values(float, several=False))
      ((512, 256), inf)
    """
    parts = text.split(",") if values.several else [text]
    if values.several and not text:
        return ()
    if values.type not in (int, float):
        return tuple(part.strip() for part in parts) if values.several else text
    try:
        found = tuple(values.type(part) for part in parts)
    except ValueError:
        expected = f"{values}, with commas between" if values.several else values
        raise UserError(f"{name} is {text!r}, expected {expected}") from None
    return found if values.several else found[0]


def parse(name: str, text: str, *, whole: bool) -> list[Any] | Uniform:
    """The values that a flag's text names.

    Args:
      name: of the flag, for errors.
      text: numbers with commas between, `linspace(first,last,count)`, `logspace(first,last,count)` (both with the
        ends themselves), `range(first,end)` (whole numbers, without the end), or a distribution, `uniform(low,high)` or
        `loguniform(low,high)`.
      whole: whether the values are whole numbers.

    Returns:
      The values, or the distribution.

    Raises:
      UserError: if the text is none of these.
    """
    match = _CALL.fullmatch(text)
    if not match:
        return [_number(name, part, text, whole=whole) for part in text.split(",")]
    function, arguments = match.groups()
    if function not in _FUNCTIONS:
        raise UserError(f"{name} is {text!r}: unknown {function}, expected one of {', '.join(_FUNCTIONS)}")
    count, make = _FUNCTIONS[function]
    values = [_number(name, part, text, whole=False) for part in arguments.split(",")]
    if len(values) != count:
        raise UserError(f"{name} is {text!r}: {function} has {len(values)} arguments, expected {count}")
    if not all(map(math.isfinite, values)):
        raise UserError(f"{name} is {text!r}: expected finite arguments")
    made = make(name, text, *values)
    if isinstance(made, list) and whole:
        return list(dict.fromkeys(round(value) for value in made))
    return made


def _number(name: str, part: str, text: str, *, whole: bool) -> Any:
    try:
        return int(part) if whole else float(part)
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise UserError(
            f"{name} is {text!r}: {part.strip()!r} is none, expected {kind} with commas between, or one of "
            f"{', '.join(_FUNCTIONS)} with arguments in parentheses"
        ) from None


def _spaced(space: Callable[..., np.ndarray], *, positive: bool) -> Callable[..., list[float]]:
    def make(name: str, text: str, first: float, last: float, count: float) -> list[float]:
        if not 1 <= count <= _MOST_VALUES or count != int(count):
            raise UserError(
                f"{name} is {text!r}: count is {count:g}, expected a whole number from 1 to {_MOST_VALUES:,}"
            )
        if positive and min(first, last) <= 0:
            raise UserError(f"{name} is {text!r}: expected ends > 0")
        # Rounded, so that 0.1 to 10 in 9 steps has a 1 in the middle.
        return [float(f"{value:.12g}") for value in space(first, last, int(count))]

    return make


def _range(name: str, text: str, first: float, end: float) -> list[float]:
    if first != int(first) or end != int(end) or end <= first:
        raise UserError(f"{name} is {text!r}: expected whole numbers, the first < the end, which is left out")
    if end - first > _MOST_VALUES:
        raise UserError(f"{name} is {text!r}: expected {_MOST_VALUES:,} values at most")
    return [float(value) for value in range(int(first), int(end))]


def _uniform(name: str, text: str, low: float, high: float) -> Uniform:
    return Uniform(low, high)


def _loguniform(name: str, text: str, low: float, high: float) -> Uniform:
    return Uniform(low, high, log=True)


_FUNCTIONS: dict[str, tuple[int, Callable[..., list[float] | Uniform]]] = {
    "linspace": (3, _spaced(np.linspace, positive=False)),
    "logspace": (3, _spaced(np.geomspace, positive=True)),
    "range": (2, _range),
    "uniform": (2, _uniform),
    "loguniform": (2, _loguniform),
}
