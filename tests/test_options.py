"""Options: what a program would wrap, round or clip is refused in one line; parts are pytrees of traced options."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.data.settings import Data
from cvae_jax.errors import SettingError
from cvae_jax.objectives import MultiRate
from cvae_jax.options import (
    COUNT,
    LARGEST_INT,
    NUMBER,
    POSITIVE,
    SEED,
    SHARE,
    WEIGHT,
    Part,
    Real,
    Table,
    Whole,
    as_float32,
    options_of,
    require_one_of,
    require_within,
    static,
    traced,
    with_values,
)
from cvae_jax.rng import root_key
from cvae_jax.training import population
from cvae_jax.training.config import CONDITIONS, HOOKS, TABLES, Config

TINY, HUGE = 2.0**-126, 3.5e38


# Every option of every part


CHOICES = (*TABLES.values(), CONDITIONS, HOOKS)
PARTS = (Config, Data, *dict.fromkeys(part for table in CHOICES for part in table.values()))
OPTIONS = [(part, name, option) for part in PARTS for name, option in options_of(part).items()]
NUMERIC = [(part, name, option.bounds) for part, name, option in OPTIONS if option.bounds is not None]
WHOLE, REAL = (
    [pytest.param(*each, id=f"{each[0].__name__}.{each[1]}") for each in NUMERIC if isinstance(each[2], kind)]
    for kind in (Whole, Real)
)


def refuse(part, name, value):
    """The one line of the part that says why."""
    several = isinstance(dataclasses.asdict(part())[name], tuple)
    with pytest.raises(SettingError) as error:
        part(**{name: (value,) if several else value})
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{name} is {value}, expected a ")
    return text


@pytest.mark.parametrize("number", ["int", "float", "tuple[int, ...]"])
def test_every_numeric_option_has_bounds(number):
    bounded = {(part, name) for part, name, _ in NUMERIC}
    numeric = {
        (part, field.name)
        for part in PARTS
        for field in dataclasses.fields(part)
        # Fields of conditions that the data fill in are no options.
        if field.type == number and (field.metadata or part not in CONDITIONS.values())
    }
    assert numeric
    assert numeric <= bounded


def test_every_option_has_a_help_text():
    for part, name, option in OPTIONS:
        assert option.help.endswith((".", ".)")), (part, name)


def test_traced_options_are_numbers():
    for part, name, option in OPTIONS:
        if option.traced:
            assert isinstance(getattr(part(), name), (int, float)), (part, name)


@pytest.mark.parametrize(("part", "name", "bounds"), WHOLE)
def test_whole_numbers_that_would_wrap_are_refused(part, name, bounds):
    assert bounds.high <= (2**32 if name.endswith("seed") else 2**31) - 1
    for value in (bounds.low, bounds.high):
        require_within(name, value, bounds)
    for value in (
        bounds.low - 1,
        bounds.high + 1,
        2**32 + 1,
        2**64 + 1,
        -(2**32),
        1.0,
        1.5,
        True,
        math.nan,
        "1",
    ):
        refuse(part, name, value)


@pytest.mark.parametrize(("part", "name", "bounds"), REAL)
def test_numbers_that_float32_does_not_hold_are_refused(part, name, bounds):
    for value in (HUGE, 1e39, 10**400, math.nan, -math.inf, -HUGE, "1", True):
        refuse(part, name, value)
    if bounds.low <= 0:
        for value in (1e-39, 1e-46, 1e-50, 1e-320):
            assert "is 0 in float32" in refuse(part, name, value)
    if bounds.infinite is None:
        refuse(part, name, math.inf)
    else:
        require_within(name, math.inf, bounds)
    if bounds.low > -math.inf and not bounds.above_low:
        require_within(name, bounds.low, bounds)
        refuse(part, name, np.nextafter(bounds.low, -1))


@pytest.mark.parametrize(("part", "name", "bounds"), REAL)
def test_what_float32_holds_is_kept(part, name, bounds):
    """Its value in float32 has the same meaning: none of 0, inf and 1 unless the value is that."""
    for value in (TINY, 1e-30, 0.3, 0.9999999, 1.0, 2.5, 1e30, 3.4e38):
        if bounds.fault(value) is None:
            single = float(np.float32(value))
            assert 0 < single < math.inf
            assert single < bounds.below
        else:
            assert value < bounds.low or value >= bounds.below or value > bounds.high


# Bounds


@pytest.mark.parametrize(
    ("bounds", "value", "expected"),
    [
        (COUNT, 0, "a whole number ≥ 1 and ≤ 2147483647"),
        (Whole(2, 8), 9, "a whole number ≥ 2 and ≤ 8"),
        (SEED, 2**32, "a whole number ≥ 0 and ≤ 4294967295"),
        (NUMBER, math.inf, "a finite number"),
        (NUMBER, 1e39, "a finite number; float32 ends at 3.4e+38"),
        (WEIGHT, -1.0, "a finite number ≥ 0"),
        (WEIGHT, 1e-39, "a finite number ≥ 0; less than 1.2e-38 is 0 in float32"),
        (POSITIVE, 0.0, "a finite number > 0"),
        (SHARE, 1.0, "a number ≥ 0 and < 1"),
        (SHARE, 1 - 1e-9, "a number ≥ 0 and < 1; in float32 it is 1"),
        (Real(0.0, high=1.0), 1.5, "a number ≥ 0 and ≤ 1"),
        (Real(1.0, infinite="never stops", what="number of epochs"), 0.5, "a number of epochs ≥ 1 (inf never stops)"),
    ],
)  # fmt: skip
def test_errors_name_option_value_and_what_was_expected(bounds, value, expected):
    with pytest.raises(SettingError) as error:
        require_within("width", value, bounds)
    assert str(error.value) == f"width is {value}, expected {expected}"


@pytest.mark.parametrize(
    ("bounds", "values"),
    [
        (COUNT, (1, LARGEST_INT)),
        (SEED, (0, 2**32 - 1)),
        (NUMBER, (-1e38, 0, 0.0, np.float64(2), np.float32(0.5))),
        (WEIGHT, (0.0, 1e38)),
        (POSITIVE, (TINY, 1)),
        (SHARE, (0.0, 1 - 1e-7)),
        (Real(0.0, above_low=True, infinite="does not clip"), (math.inf, 1e-3)),
    ],
)
def test_ends_are_allowed(bounds, values):
    for value in values:
        require_within("width", value, bounds)


def test_names_are_those_of_the_choices():
    require_one_of("mode", "a", ("a", "b"))
    with pytest.raises(SettingError, match=r"^mode is 'c', expected one of a, b$"):
        require_one_of("mode", "c", ("a", "b"))


def test_keys_of_seeds_are_all_different():
    assert not (root_key(2**32 - 1) == root_key(0)).all()
    for seed in (2**32, -1):
        with pytest.raises(
            SettingError, match=f"seed is {seed}, expected a whole number ≥ 0 and ≤ 4294967295"
        ):
            root_key(seed)


def test_rounding_is_float32s():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=1000), 10 ** rng.uniform(-37, 38, 1000), [0.0, math.inf]])
    assert [as_float32(value) for value in values.tolist()] == np.float32(values).tolist()


def test_a_range_of_betas_is_one_in_float32():
    with pytest.raises(SettingError, match=r"beta_min is 1\.0, expected less than beta_max 1\.00000000001"):
        MultiRate(beta_min=1.0, beta_max=1.00000000001)


def test_more_steps_than_int32_counts_are_refused(digits):
    for epochs in (2**31 // 10 + 1, 2**31 - 1):
        with pytest.raises(
            SettingError, match=rf"epochs is {epochs}, expected at most 214748364 of 10 steps each"
        ):
            population.build_model([Config(epochs=epochs)], digits)
    population.build_model([Config(epochs=2**31 // 10)], digits)


# Parts


class Filter(Part):
    """A kind of choice."""

    kind = "filter"


@dataclasses.dataclass(frozen=True)
class Blur(Filter):
    """Two traced options and three static ones."""

    width: float = traced(1.0, bounds=POSITIVE, help="In pixels.")
    taps: int = static(3, bounds=COUNT, help="Pixels.")
    sides: tuple[int, ...] = static((1, 1), bounds=COUNT, help="Pixels on either side.")
    mode: str = static("edge", choices=("edge", "wrap"), help="Beyond the border.")
    shift: float = traced(0.0, help="In pixels.")

    def check(self):
        """Refuse a filter that is wider than its taps."""
        if self.width > self.taps:
            raise SettingError(f"width is {self.width}, expected at most taps {self.taps}")


@dataclasses.dataclass(frozen=True)
class Sharpen(Filter):
    """The same fields, but another choice."""

    width: float = traced(1.0, bounds=POSITIVE, help="In pixels.")


@dataclasses.dataclass(frozen=True)
class Chain(Part):
    """Parts within a part."""

    first: Blur = Blur()
    others: tuple[Filter, ...] = ()
    named: tuple[tuple[str, Filter], ...] = ()
    gain: float = traced(1.0, help="A factor.")
    size: int = static(8, bounds=COUNT, help="Pixels.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width is 0.0, expected a finite number > 0"),
        ({"taps": 0}, "taps is 0, expected a whole number ≥ 1 and ≤ 2147483647"),
        ({"sides": (1, 0)}, "sides is 0, expected a whole number ≥ 1 and ≤ 2147483647"),
        ({"mode": "none"}, "mode is 'none', expected one of edge, wrap"),
        ({"mode": 3}, "mode is 3, expected a text"),
        ({"sides": 3}, "sides is 3, expected a list of whole numbers"),
        ({"taps": (3,)}, "taps is (3,), expected a whole number"),
        ({"width": 4.0}, "width is 4.0, expected at most taps 3"),
    ],
)
def test_a_part_refuses_what_cannot_be_used(options, message):
    with pytest.raises(SettingError) as error:
        Blur(**options)
    assert str(error.value) == message
    with pytest.raises(SettingError):
        dataclasses.replace(Blur(), **options)


def test_a_list_becomes_a_tuple():
    assert Blur(sides=[2, 3]).sides == (2, 3)


def test_options_are_listed_in_the_order_of_the_fields():
    options = options_of(Blur)
    assert list(options) == ["width", "taps", "sides", "mode", "shift"]
    assert [option.traced for option in options.values()] == [True, False, False, False, True]
    assert list(options_of(Chain)) == ["gain", "size"]


def test_the_leaves_of_a_part_are_its_traced_options():
    assert jax.tree.leaves(Blur(width=2.0, shift=-1.0)) == [2.0, -1.0]
    paths, _ = jax.tree_util.tree_flatten_with_path(Blur())
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".width", ".shift"]


CHAIN = Chain(
    Blur(width=2.0), (Sharpen(3.0), Blur(taps=5, width=4.0)), (("a", Sharpen(5.0)), ("b", Blur())), gain=7.0
)


def test_parts_within_parts_are_leaves_too():
    paths, structure = jax.tree_util.tree_flatten_with_path(CHAIN)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in paths if leaf not in ("a", "b")}
    assert named == {
        ".first.width": 2.0, ".first.shift": 0.0, ".others[0].width": 3.0, ".others[1].width": 4.0,
        ".others[1].shift": 0.0, ".named[0][1].width": 5.0, ".named[1][1].width": 1.0, ".named[1][1].shift": 0.0,
        ".gain": 7.0,
    }  # fmt: skip
    assert jax.tree.unflatten(structure, [leaf for _, leaf in paths]) == CHAIN


def test_the_same_part_comes_back():
    for part in (Blur(width=0.5, taps=7), Sharpen(), Chain(others=(Blur(), Sharpen()))):
        leaves, structure = jax.tree.flatten(part)
        again = jax.tree.unflatten(structure, leaves)
        assert type(again) is type(part)
        assert again == part


def test_leaves_may_be_arrays_of_several_members():
    members = (Blur(width=0.5), Blur(width=2.0, shift=1.0))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(jnp.array(leaves, jnp.float32)), *members)
    np.testing.assert_array_equal(stacked.width, [0.5, 2.0])
    assert stacked.taps == 3
    edges = jax.vmap(lambda blur: blur.shift + blur.width * blur.taps)(stacked)
    np.testing.assert_array_equal(edges, [1.5, 7.0])


def test_members_that_differ_in_static_options_do_not_stack():
    with pytest.raises(ValueError, match="different pytree metadata"):
        jax.tree.map(lambda a, b: (a, b), Blur(), Blur(taps=5))


def test_a_traced_option_does_not_compile_anew_and_a_static_one_does():
    traces = []

    @jax.jit
    def width(blur):
        traces.append(blur.taps)
        return blur.width * blur.taps

    assert [float(width(Blur(width=w))) for w in (1.0, 2.0)] == [3.0, 6.0]
    assert float(width(Blur(taps=5))) == 5.0
    assert traces == [3, 5]


def test_gradients_reach_traced_options():
    gradient = jax.grad(lambda chain: chain.first.width**2 * chain.gain)(Chain(Blur(width=3.0), gain=2.0))
    assert (gradient.first.width, gradient.gain, gradient.first.shift) == (12.0, 9.0, 0.0)


def test_equal_parts_are_one_key_of_a_cache():
    assert Blur(width=2.0) == Blur(width=2.0)
    assert hash(Blur(width=2.0)) == hash(Blur(width=2.0))
    assert len({Blur(), Blur(), Blur(taps=4), Sharpen(), Chain(), Chain(others=(Blur(),))}) == 5
    assert Blur() != Sharpen()

    traces = []

    def reach(blur):
        traces.append(blur)
        return jnp.zeros(blur.taps)

    compiled = jax.jit(reach, static_argnums=0)
    assert [compiled(blur).shape for blur in (Blur(), Blur(), Blur(taps=4))] == [(3,), (3,), (4,)]
    assert len(traces) == 2


def test_a_part_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Blur().width = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_values_are_replaced_unchecked():
    blur = with_values(Blur(), width=jnp.array([1.0, 9.0]))
    np.testing.assert_array_equal(blur.width, [1.0, 9.0])
    assert (type(blur), blur.taps, blur.mode) == (Blur, 3, "edge")


# Tables

FILTERS = Table(Filter, {"blur": Blur})


def test_a_table_finds_its_choices_and_classes_of_others():
    assert FILTERS.find("blur") is Blur
    assert FILTERS.kind == "filter"
    assert Table(Part, {}).find("cvae_jax.objectives:MultiRate") is MultiRate


def test_a_class_has_the_name_of_its_table_or_its_own():
    assert FILTERS.name_of(Blur) == FILTERS.name_of(Blur(taps=5)) == "blur"
    assert FILTERS.name_of(Sharpen()) == f"{__name__}:Sharpen"
    own = Table(Part, {}).name_of(MultiRate())
    assert Table(Part, {}).find(own) is MultiRate


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sharp", "filter is 'sharp', expected one of blur, or module:Class of your own"),
        ("cvae_jax.options:None_", "filter 'cvae_jax.options:None_' cannot be imported: module"),
        ("no_such_module:Blur", "filter 'no_such_module:Blur' cannot be imported: No module named"),
        ("cvae_jax.options:Part", "filter is 'cvae_jax.options:Part', expected a class that extends Filter"),
        (
            "cvae_jax.options:COUNT",
            "filter is 'cvae_jax.options:COUNT', expected a class that extends Filter",
        ),
        ("math:pi", "filter is 'math:pi', expected a class that extends Filter"),
    ],
)
def test_a_name_of_nothing_is_refused(name, message):
    with pytest.raises(SettingError) as error:
        FILTERS.find(name)
    assert str(error.value).startswith(message)
