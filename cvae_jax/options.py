"""What every option may be: one table of bounds, and refusals of one line that name the setting."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, cast

from cvae_jax.errors import SettingError

# Whole numbers become int32 in compiled programs, other numbers float32; a seed becomes a uint32. What these do not
# hold would be wrapped, rounded or clipped there without a word.
LARGEST_INT = 2**31 - 1
_LARGEST_SEED = 2**32 - 1
_FLOAT32_DIGITS, _FLOAT32_LEAST, _FLOAT32_LARGEST = 24, 2.0**-126, (2 - 2.0**-23) * 2.0**127


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number.

    Attributes:
      low, high: the ends, both allowed.
    """

    low: int
    high: int = LARGEST_INT

    def fault(self, value: Any) -> str | None:
        """What was expected, of a value that is not allowed."""
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return None
        return f"a whole number ≥ {self.low} and ≤ {self.high}"


@dataclasses.dataclass(frozen=True)
class Real:
    """A number that float32 holds.

    Attributes:
      low: the least.
      below: what it stays below, also after it is rounded to float32; `high` is allowed itself.
      above_low: whether low itself is refused.
      infinite: what inf does; None where it is refused.
      what: what it is a number of.
    """

    low: float = -math.inf
    below: float = math.inf
    high: float = math.inf
    above_low: bool = False
    infinite: str | None = None
    what: str = "number"

    def fault(self, value: Any) -> str | None:
        """What was expected, of a value that is not allowed."""
        expected = self._expected()
        # numpy's numbers are such, too.
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return expected
        value = cast("float", value)
        if value == math.inf and self.infinite is not None:
            return None
        # Whole numbers can be larger than any float.
        if abs(value) > _FLOAT32_LARGEST:
            finite = -math.inf < value < math.inf and self.low <= value <= self.high
            return f"{expected}; float32 ends at {_FLOAT32_LARGEST:.2g}" if finite else expected
        if (
            not self.low <= value <= self.high
            or (self.above_low and value == self.low)
            or value >= self.below
        ):
            return expected
        if value and abs(value) < _FLOAT32_LEAST:
            return f"{expected}; less than {_FLOAT32_LEAST:.2g} is 0 in float32"
        if as_float32(float(value)) >= self.below:
            return f"{expected}; in float32 it is {self.below:g}"
        return None

    def _expected(self) -> str:
        limits = [f"{'>' if self.above_low else '≥'} {self.low:g}"] if self.low > -math.inf else []
        limits += [f"< {self.below:g}"] if self.below < math.inf else []
        limits += [f"≤ {self.high:g}"] if self.high < math.inf else []
        finite = "finite " if self.infinite is None and len(limits) < 2 else ""
        text = " ".join((f"a {finite}{self.what}", " and ".join(limits))).rstrip()
        return text if self.infinite is None else f"{text} (inf {self.infinite})"


_SEED, _COUNT = Whole(0, _LARGEST_SEED), Whole(1)
_WEIGHT, _POSITIVE, _SHARE = Real(0.0), Real(0.0, above_low=True), Real(0.0, below=1.0)
_EPOCHS = Real(0.0, high=LARGEST_INT)
BOUNDS: dict[str, Whole | Real] = {
    # Of a configuration.
    "observed": Whole(1, 3),
    "mixture_parts": _COUNT,
    "pseudo_inputs": _COUNT,
    "sigma": _POSITIVE,
    "num_components": _COUNT,
    "batch_size": _COUNT,
    "epochs": _COUNT,
    "data_seed": _SEED,
    "num_samples": _COUNT,
    "discriminator_width": _COUNT,
    "hidden": _COUNT,
    # Of a member.
    "beta": _WEIGHT,
    "latent_dim": _COUNT,
    "learning_rate": _POSITIVE,
    "adam_epsilon": _POSITIVE,
    "warmup_epochs": _EPOCHS,
    "free_bits": _WEIGHT,
    "kl_target": _WEIGHT,
    "mi_weight": _WEIGHT,
    "marginal_weight": _WEIGHT,
    "dip_off_diagonal": _WEIGHT,
    "dip_diagonal": _WEIGHT,
    "tc_weight": _WEIGHT,
    "discriminator_learning_rate": _POSITIVE,
    "beta_min": _POSITIVE,
    "beta_max": _POSITIVE,
    "cvae_weight": Real(0.0, high=1.0),
    "condition_first_epochs": _EPOCHS,
    "condition_dropout": _SHARE,
    "rewording_weight": _WEIGHT,
    "weight_decay": _WEIGHT,
    "clip_norm": Real(0.0, above_low=True, infinite="does not clip"),
    "dropout": _SHARE,
    "ema_decay": _SHARE,
    "patience": Real(1.0, infinite="never stops", what="number of epochs"),
    "seed": _SEED,
    # Of scripts.
    "checkpoint_every": _COUNT,
    "guidance": Real(),
    "judges": _COUNT,
    "members_per_program": _COUNT,
    "nll_samples": _COUNT,
    "num": _COUNT,
    "num_random": _COUNT,
    "search_seed": _SEED,
    "temperature": _WEIGHT,
}


def as_float32(value: float) -> float:
    """The number that float32 holds in place of one whose size it can hold.

    Example:
      >>> as_float32(0.1), as_float32(1 - 1e-9)
      (0.10000000149011612, 1.0)
    """
    if not math.isfinite(value):
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, _FLOAT32_DIGITS)), exponent - _FLOAT32_DIGITS)


def require_within(name: str, value: Any) -> None:
    """Refuse a value of an option that its program would not hold, or that has no meaning.

    Raises:
      SettingError: naming the option, the value and what was expected.
    """
    fault = BOUNDS[name].fault(value)
    if fault:
        raise SettingError(f"{name} is {value}, expected {fault}")


def require_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise SettingError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
