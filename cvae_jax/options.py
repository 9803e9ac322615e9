"""Options: fields of frozen dataclasses with a default, bounds and a help text, written once.

A choice, such as a network or an objective, is a `Part`: a frozen dataclass whose fields are its options. A *static*
option shapes the compiled program. A *traced* option is an array in it, so that members of a sweep can differ in it: a
part is a pytree whose leaves are its traced options.

    @dataclasses.dataclass(frozen=True)
    class FreeBits(Objective):
        free_bits: float = traced(0.0, bounds=WEIGHT, help="Least KL per latent, nats.")
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, cast

import jax

from cvae_jax.errors import SettingError

# Whole numbers become int32 in compiled programs, other numbers float32; a seed becomes a uint32. What these do not
# hold would be wrapped, rounded or clipped there without a word.
LARGEST_INT = 2**31 - 1
LARGEST_SEED = 2**32 - 1
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


SEED, COUNT = Whole(0, LARGEST_SEED), Whole(1)
NUMBER, WEIGHT, POSITIVE, SHARE = Real(), Real(0.0), Real(0.0, above_low=True), Real(0.0, below=1.0)
EPOCHS = Real(0.0, high=LARGEST_INT)


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


def require_within(name: str, value: Any, bounds: Whole | Real) -> None:
    """Refuse a number that a program would not hold, or that has no meaning.

    Raises:
      SettingError: naming the option, the value and what was expected.
    """
    fault = bounds.fault(value)
    if fault:
        raise SettingError(f"{name} is {value}, expected {fault}")


def require_one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise SettingError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known of a field beside its name, type and default.

    Attributes:
      help: one or two sentences for `--help`.
      traced: whether it is an array in the compiled program, else it shapes the program.
      bounds: of a number, or of each number of several; None for anything else.
      choices: names to choose from; of a tuple, each of its names.
      flag: whether the command line has a flag of this name.
    """

    help: str
    traced: bool = False
    bounds: Whole | Real | None = None
    choices: tuple[str, ...] = ()
    flag: bool = True

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that is out of bounds or none of the choices."""
        for each in value if isinstance(value, tuple) else (value,):
            if self.choices:
                require_one_of(name, each, self.choices)
            elif self.bounds is not None and each is not None:
                require_within(name, each, self.bounds)


def static(
    default: Any,
    *,
    help: str,
    bounds: Whole | Real | None = None,
    choices: tuple[str, ...] = (),
    flag: bool = True,
) -> Any:
    """A field that shapes the compiled program: the same for all members of a sweep. See `Option`."""
    option = Option(help, bounds=bounds, choices=choices, flag=flag)
    return dataclasses.field(default=default, metadata={"option": option})


def traced(default: float, *, help: str, bounds: Whole | Real = NUMBER) -> Any:
    """A field that is an array in the compiled program, in which members of a sweep can differ. See `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, traced=True, bounds=bounds)})


class Part:
    """A choice and its options: the base class of frozen dataclasses.

    Instances are pytrees: the leaves are traced options, also those of parts that are fields of this one.

    Attributes:
      kind: what it is a choice of, such as `objective`.
    """

    kind: ClassVar[str] = "part"

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Register the class as a pytree."""
        super().__init_subclass__(**arguments)
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten, lambda aux, leaves: _unflatten(cls, aux, leaves)
        )

    def __post_init__(self) -> None:
        """Check every option, then the part as a whole."""
        for name, option in options_of(type(self)).items():
            value, kind = getattr(self, name), values_of(type(self), name)
            if kind.several and isinstance(value, list):
                object.__setattr__(self, name, value := tuple(value))
            kind.check(name, value)
            option.check(name, value)
        self.check()

    def check(self) -> None:
        """Refuse options that do not go together; for subclasses.

        Raises:
          SettingError: naming the option.
        """


def options_of(part: type[Part]) -> dict[str, Option]:
    """The options of a class by name, in the order of its fields.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Blur(Part):
      ...     width: float = traced(1.0, bounds=POSITIVE, help="Of the filter, in pixels.")
      >>> list(options_of(Blur)), jax.tree.leaves(Blur(width=2.0))
      (['width'], [2.0])
    """
    fields = dataclasses.fields(cast("Any", part))
    return {field.name: field.metadata["option"] for field in fields if "option" in field.metadata}


class Values(NamedTuple):
    """What the values of an option are.

    Attributes:
      type: bool, int, float or str; Any for what is none of them.
      several: whether the option holds a tuple of such values.
    """

    type: Any
    several: bool

    def check(self, name: str, value: Any) -> None:
        """Refuse a truth value, a text or a tuple in the place of another; numbers are left to their bounds.

        Raises:
          SettingError: naming the option.
        """
        each = value if isinstance(value, tuple) else (value,)
        strict = self.type in (bool, str)
        if value is not None and (
            self.several != isinstance(value, tuple)
            or (strict and not all(isinstance(one, self.type) for one in each))
        ):
            raise SettingError(f"{name} is {value!r}, expected {self}")

    def __str__(self) -> str:
        """The type in words.

        Example:
          >>> str(Values(int, several=True)), str(Values(bool, several=False))
          ('a list of whole numbers', 'true or false')
        """
        one, many = _IN_WORDS.get(self.type, ("a value", "values"))
        return f"a list of {many}" if self.several else one


_IN_WORDS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
}


def values_of(part: type[Part], name: str) -> Values:
    """What the values of an option are, by its annotation.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Blur(Part):
      ...     widths: tuple[int, ...] = static((3, 5), help="Of the filters, in pixels.")
      >>> values_of(Blur, "widths")
      Values(type=<class 'int'>, several=True)
    """
    (annotation,) = (field.type for field in dataclasses.fields(cast("Any", part)) if field.name == name)
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    several = text.startswith("tuple[")
    inner = text.removeprefix("tuple[").partition(",")[0] if several else text.removesuffix(" | None")
    return Values({"bool": bool, "int": int, "float": float, "str": str}.get(inner, Any), several)


def with_values(part: Any, **values: Any) -> Any:
    """The part with other values of some fields, which may be arrays: nothing is checked."""
    changed = object.__new__(type(part))
    for field in dataclasses.fields(part):
        object.__setattr__(changed, field.name, values.get(field.name, getattr(part, field.name)))
    return changed


def _is_nested(value: Any) -> bool:
    """Whether a field holds parts: one, several, or pairs of a name and one."""
    if isinstance(value, tuple):
        return any(_is_nested(each) for each in value)
    return isinstance(value, Part)


def _flatten(part: Any) -> tuple[list[tuple[Any, Any]], tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]]:
    leaves, rest = [], []
    options = options_of(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        option = options.get(field.name)
        if (option is not None and option.traced) or _is_nested(value):
            leaves.append((jax.tree_util.GetAttrKey(field.name), value))
        else:
            rest.append((field.name, value))
    return leaves, (tuple(key.name for key, _ in leaves), tuple(rest))


def _unflatten(cls: type[Part], aux: Any, leaves: Any) -> Any:
    part = object.__new__(cls)
    names, rest = aux
    for name, value in (*zip(names, leaves, strict=True), *rest):
        object.__setattr__(part, name, value)
    return part


class Table(dict[str, type[Part]]):
    """The choices of one kind by name; a new one is one line more.

    Attributes:
      kind: what they are choices of.
      base: the class they extend.
    """

    def __init__(self, base: type[Part], choices: Mapping[str, type[Part]]) -> None:
        """List the choices, each under its name."""
        super().__init__(choices)
        self.kind, self.base = base.kind, base

    def name_of(self, part: Part | type[Part]) -> str:
        """The name of a part: that in the table, else `module:Class`."""
        cls = part if isinstance(part, type) else type(part)
        for name, each in self.items():
            if each is cls:
                return name
        return f"{cls.__module__}:{cls.__qualname__}"

    def find(self, name: str) -> type[Part]:
        """The class of a name of the table, or of `module:Class`.

        Raises:
          SettingError: if there is none.
        """
        if name in self:
            return self[name]
        module, colon, path = name.partition(":")
        if not colon:
            raise SettingError(
                f"{self.kind} is {name!r}, expected one of {', '.join(self)}, or module:Class of your own"
            )
        try:
            found: Any = importlib.import_module(module)
            for each in path.split("."):
                found = getattr(found, each)
        except (ImportError, AttributeError) as error:
            raise SettingError(f"{self.kind} {name!r} cannot be imported: {error}") from None
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise SettingError(f"{self.kind} is {name!r}, expected a class that extends {self.base.__name__}")
        return found
