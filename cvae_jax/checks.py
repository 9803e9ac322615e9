"""Refusals of settings that nothing can use, each one line that names the setting."""

from __future__ import annotations

import math


class SettingError(ValueError):
    """A setting that cannot be used; its message is one line for a person."""


def require_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise SettingError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def require_finite(name: str, value: float, lowest: float, *, exclusive: bool = False) -> None:
    """Refuse what is not finite, or less than the lowest; `exclusive` refuses the lowest itself."""
    if not math.isfinite(value) or value < lowest or (exclusive and value == lowest):
        bound = ">" if exclusive else "≥"
        raise SettingError(f"{name} is {value}, expected a finite number {bound} {lowest:g}")


def require_integer(name: str, value: int, lowest: int) -> None:
    """Refuse what is not a whole number, or less than the lowest."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise SettingError(f"{name} is {value}, expected a whole number ≥ {lowest}")
