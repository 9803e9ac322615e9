"""The members of a sweep: every combination of some values, or random draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvae_jax.config import Member
from cvae_jax.errors import SettingError
from cvae_jax.options import as_float32, require_within

# More are a mistake: making them would take all memory before the first one trains.
MOST_MEMBERS = 100_000
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
    count = math.prod(map(len, axes.values()))
    if count > MOST_MEMBERS:
        raise SettingError(f"the grid has {count:,} members, expected at most {MOST_MEMBERS:,}")
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
    require_within("num_random", num)
    require_within("search_seed", search_seed)
    if num > MOST_MEMBERS:
        raise SettingError(f"num_random is {num}, expected at most {MOST_MEMBERS:,}")
    whole = {field.name: field.type == "int" for field in dataclasses.fields(Member)}
    rng = np.random.default_rng(search_seed)

    def draw(name: str, axis: Sequence[Any] | Uniform) -> Any:
        if isinstance(axis, Uniform):
            return axis.draw(rng, whole=whole[name])
        return axis[int(rng.integers(len(axis)))]

    possible = math.prod(_how_many(axis, whole=whole[name]) for name, axis in axes.items())
    members: dict[tuple[Any, ...], Member] = {}
    for _ in range(100 * num if num <= possible else 0):
        member = Member(**{name: draw(name, axis) for name, axis in axes.items()})
        members.setdefault(_as_trained(member), member)
        if len(members) == num:
            return tuple(members.values())
    found = min(possible, len(members) or possible)
    raise SettingError(f"num_random is {num}, but only {found} different members were found")


def _how_many(axis: Sequence[Any] | Uniform, *, whole: bool) -> float:
    """How many different values an axis has."""
    if not isinstance(axis, Uniform):
        return len(set(axis))
    return math.floor(axis.high) - math.ceil(axis.low) + 1 if whole else math.inf


def distinct(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The members, if no two are the same.

    Raises:
      SettingError: naming the first that comes twice.
    """
    seen: dict[tuple[Any, ...], int] = {}
    for i, member in enumerate(members):
        first = seen.setdefault(_as_trained(member), i)
        if first != i:
            values = ", ".join(f"{k}={v}" for k, v in dataclasses.asdict(member).items())
            what = "again" if member == members[first] else "again in float32"
            raise SettingError(f"member {i} is member {first} {what} ({values}), expected all different")
    return members


def _as_trained(member: Member) -> tuple[Any, ...]:
    """The member's settings in the precision that training has."""
    values = (getattr(member, name) for name in FIELDS)
    return tuple(as_float32(value) if isinstance(value, float) else value for value in values)
