"""The members of a sweep: every combination of some values, or random draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvae_jax.checks import SettingError
from cvae_jax.config import Member

FIELDS = tuple(field.name for field in dataclasses.fields(Member))


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A uniform distribution, of the logarithm if `log`; whole numbers for a setting that is one.

    Attributes:
      low, high: the ends, finite, low < high; whole numbers include both.
      log: whether the logarithm is uniform, with low > 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse ends that no number lies between."""
        if not (0 if self.log else -math.inf) < self.low < self.high < math.inf:
            name, bound = ("loguniform", "0 < low < high") if self.log else ("uniform", "low < high")
            raise SettingError(f"{name}({self.low:g},{self.high:g}) is refused, expected finite {bound}")

    def draw(self, rng: np.random.Generator, *, whole: bool) -> float | int:
        """One number."""
        low, high = (self.low - 0.5, self.high + 0.5) if whole and not self.log else (self.low, self.high)
        value = np.exp(rng.uniform(np.log(low), np.log(high))) if self.log else rng.uniform(low, high)
        return int(np.clip(np.round(value), self.low, self.high)) if whole else float(value)


def grid(**axes: Sequence[Any]) -> tuple[Member, ...]:
    """Every combination of the given values, the last axis changing fastest.

    Args:
      **axes: values by the name of a `Member` field; fields not named keep their default.

    Returns:
      The members.

    Raises:
      SettingError: if an axis is empty, a value cannot be used, or two members are the same.

    Example:
      >>> [(m.beta, m.seed) for m in grid(beta=[1.0, 4.0], seed=[0, 1])]
      [(1.0, 0), (1.0, 1), (4.0, 0), (4.0, 1)]
    """
    for name, values in axes.items():
        if not len(values):
            raise SettingError(f"{name} has no values, expected at least one: the grid is empty")
    combinations = itertools.product(*axes.values())
    return distinct(tuple(Member(**dict(zip(axes, values, strict=True))) for values in combinations))


def random_members(num: int, search_seed: int, /, **axes: Sequence[Any] | Uniform) -> tuple[Member, ...]:
    """Members whose settings are drawn independently: random search.

    Args:
      num: how many.
      search_seed: of the draws; the first members do not depend on `num`.
      **axes: by the name of a `Member` field, a `Uniform` or values to choose from.

    Returns:
      The members, all different.

    Raises:
      SettingError: if a drawn value cannot be used, or the axes do not hold so many different members.

    References:
      Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, 2012.
    """
    if num < 1:
        raise SettingError(f"num_random is {num}, expected a whole number ≥ 1")
    if search_seed < 0:
        raise SettingError(f"search_seed is {search_seed}, expected a whole number ≥ 0")
    whole = {field.name: field.type == "int" for field in dataclasses.fields(Member)}
    rng = np.random.default_rng(search_seed)

    def draw(name: str, axis: Sequence[Any] | Uniform) -> Any:
        if isinstance(axis, Uniform):
            return axis.draw(rng, whole=whole[name])
        return axis[int(rng.integers(len(axis)))]

    members: dict[Member, None] = {}
    for _ in range(100 * num):
        members.setdefault(Member(**{name: draw(name, axis) for name, axis in axes.items()}))
        if len(members) == num:
            return tuple(members)
    raise SettingError(f"num_random is {num}, but only {len(members)} different members were found")


def distinct(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The members, if no two are the same.

    Raises:
      SettingError: naming the first that comes twice.
    """
    seen: dict[Member, int] = {}
    for i, member in enumerate(members):
        if member in seen:
            values = ", ".join(f"{k}={v}" for k, v in dataclasses.asdict(member).items())
            raise SettingError(
                f"member {i} is member {seen[member]} again ({values}), expected all different"
            )
        seen[member] = i
    return members
