"""The members of a sweep: every combination of some values, or random draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cvae_jax.errors import SettingError
from cvae_jax.options import COUNT, SEED, Whole, as_float32, require_within
from cvae_jax.training.config import Config, owners, replace
from cvae_jax.training.hooks import HOOKS

# More are a mistake: making them would take all memory before the first one trains.
MOST_MEMBERS = 100_000

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A uniform distribution, of the logarithm if `log`. For a setting that is a whole number, it gives whole numbers.

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


def grid(**axes: Sequence[Any]) -> tuple[Settings, ...]:
    """Every combination of some values, the last axis changing fastest.

    Args:
      **axes: values by the flat name of a traced option.

    Returns:
      Settings of one member each, for `members`.

    Raises:
      SettingError: if an axis is empty, or there are too many combinations.

    Example:
      >>> grid(beta=[1.0, 4.0], seed=[0, 1])[1:3]
      ({'beta': 1.0, 'seed': 1}, {'beta': 4.0, 'seed': 0})
    """
    for name, values in axes.items():
        if not len(values):
            raise SettingError(f"{name} has no values, expected at least one: the grid is empty")
    count = math.prod(map(len, axes.values()))
    if count > MOST_MEMBERS:
        raise SettingError(f"the grid has {count:,} members, expected at most {MOST_MEMBERS:,}")
    combinations = itertools.product(*axes.values())
    return tuple(dict(zip(axes, values, strict=True)) for values in combinations)


def random_search(
    config: Config, num: int, search_seed: int, /, **axes: Sequence[Any] | Uniform
) -> tuple[Settings, ...]:
    """Settings that are drawn independently.

    Args:
      config: has the options of the axes.
      num: how many members.
      search_seed: of the draws; the first members do not depend on `num`.
      **axes: by the flat name of a traced option, a `Uniform` or values to choose from.

    Returns:
      Settings of one member each, all different, for `members`.

    Raises:
      SettingError: if a drawn value cannot be used, or the axes do not hold so many different members.

    References:
      Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, 2012.
    """
    require_within("num_random", num, COUNT)
    require_within("search_seed", search_seed, SEED)
    if num > MOST_MEMBERS:
        raise SettingError(f"num_random is {num}, expected at most {MOST_MEMBERS:,}")
    whole = {name: _is_whole(config, name, axis) for name, axis in axes.items()}
    rng = np.random.default_rng(search_seed)

    def draw(name: str, axis: Sequence[Any] | Uniform) -> Any:
        if isinstance(axis, Uniform):
            return axis.draw(rng, whole=whole[name])
        return axis[int(rng.integers(len(axis)))]

    possible = math.prod(_how_many(axis, whole=whole[name]) for name, axis in axes.items())
    found: dict[tuple[Any, ...], Settings] = {}
    for _ in range(100 * num if num <= possible else 0):
        settings = {name: draw(name, axis) for name, axis in axes.items()}
        found.setdefault(_as_trained(settings.values()), settings)
        if len(found) == num:
            return tuple(found.values())
    different = min(possible, len(found) or possible)
    raise SettingError(f"num_random is {num}, but only {different} different members were found")


def _is_whole(config: Config, name: str, axis: Sequence[Any] | Uniform) -> bool:
    """Whether an option is a whole number.

    Raises:
      SettingError: if the configuration has no such option.
    """
    # The option of a hook switches it on, whatever its value.
    known = owners(replace(config, **{name: getattr(HOOKS[name](), name)}) if name in HOOKS else config)
    if name not in known:
        replace(config, **{name: axis.high if isinstance(axis, Uniform) else axis[0]})
    return isinstance(known[name].option.bounds, Whole)


def _how_many(axis: Sequence[Any] | Uniform, *, whole: bool) -> float:
    """How many different values an axis has."""
    if not isinstance(axis, Uniform):
        return len(set(axis))
    return math.floor(axis.high) - math.ceil(axis.low) + 1 if whole else math.inf


def members(config: Config, settings: Sequence[Settings]) -> tuple[Config, ...]:
    """The members of a sweep: a configuration with the settings of each.

    Args:
      config: what they share.
      settings: of each member, by the flat name of a traced option.

    Raises:
      SettingError: if an option shapes the program, a value cannot be used, or two members are the same.

    Example:
      >>> [member.objective.beta for member in members(Config(), grid(beta=[1.0, 4.0]))]
      [1.0, 4.0]
    """
    every = tuple(replace(config, **each) for each in settings)
    names = sorted({name for each in settings for name in each})
    for member in every[:1]:
        known = owners(member)
        for name in names:
            if name not in known or not known[name].option.traced:
                raise SettingError(
                    f"{name} has several values, expected one: it shapes the program that all members share"
                )
    seen: dict[tuple[Any, ...], int] = {}
    for i, (member, each) in enumerate(zip(every, settings, strict=True)):
        first = seen.setdefault(_as_trained(_values(member)), i)
        if first != i:
            named = ", ".join(f"{k}={v}" for k, v in each.items())
            what = "again" if member == every[first] else "again in float32"
            raise SettingError(f"member {i} is member {first} {what} ({named}), expected all different")
    return every


def _values(config: Config) -> list[Any]:
    return [getattr(owner.part, name) for name, owner in owners(config).items() if owner.option.traced]


def _as_trained(values: Iterable[Any]) -> tuple[Any, ...]:
    """Settings in the precision that training has."""
    return tuple(as_float32(value) if isinstance(value, float) else value for value in values)
