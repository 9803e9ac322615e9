"""Values on the command line: one, or lists of them."""

import itertools
import math

import pytest

from cvae_jax.errors import SettingError, UserError
from cvae_jax.options import Values
from cvae_jax.training.grid import Uniform
from experiments.command_line.lists import parse, single


def refused(error, call, *parts):
    """Assert that a call raises one line that holds all parts."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message


# Values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2", [2.0]),
        ("0.5,1,2", [0.5, 1.0, 2.0]),
        (" 4 , 1e-3,-2 ", [4.0, 1e-3, -2.0]),
        ("linspace(0,1,5)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("linspace(2,1,3)", [2.0, 1.5, 1.0]),
        ("logspace(0.01,100,5)", [0.01, 0.1, 1.0, 10.0, 100.0]),
        ("logspace(3,3,1)", [3.0]),
        ("range(2,5)", [2.0, 3.0, 4.0]),
        ("range(-1,0)", [-1.0]),
        (" linspace ( 0 , 1 , 2 ) ", [0.0, 1.0]),
    ],
)
def test_values(text, values):
    assert parse("beta", text, whole=False) == values


def test_logspace_meets_its_ends_and_a_whole_middle_exactly():
    values = parse("beta", "logspace(0.1,10,9)", whole=False)
    assert len(values) == 9
    assert (values[0], values[4], values[8]) == (0.1, 1.0, 10.0)
    ratios = [after / before for before, after in itertools.pairwise(values)]
    assert ratios == pytest.approx([10**0.25] * 8, rel=1e-11)


def test_range_is_half_open_as_in_python():
    assert parse("seed", "range(0,16)", whole=True) == list(range(0, 16))


def test_inf_is_a_value():
    assert parse("clip_norm", "1,inf", whole=False) == [1.0, math.inf]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,7,3", [0, 7, 3]),
        ("range(0,4)", [0, 1, 2, 3]),
        ("linspace(2,8,4)", [2, 4, 6, 8]),
        ("logspace(1,64,7)", [1, 2, 4, 8, 16, 32, 64]),
        ("logspace(1,4,7)", [1, 2, 3, 4]),  # those that round to the same come once
    ],
)
def test_whole_values(text, values):
    parsed = parse("latent_dim", text, whole=True)
    assert parsed == values
    assert all(type(value) is int for value in parsed)


def test_distributions():
    assert parse("beta", "uniform(0,2)", whole=False) == Uniform(0.0, 2.0)
    assert parse("beta", "loguniform(0.1,10)", whole=False) == Uniform(0.1, 10.0, log=True)


@pytest.mark.parametrize(
    ("text", "whole", "parts"),
    [
        ("", False, ("beta is ''", "expected numbers")),
        ("0.5,,1", False, ("beta is '0.5,,1'", "expected numbers with commas between")),
        ("0.5;1", False, ("'0.5;1' is none",)),
        ("one", False, ("'one' is none", "linspace, logspace, range, uniform, loguniform")),
        ("1,linspace(1,2,3)", False, ("'linspace(1' is none",)),
        ("0.5", True, ("'0.5' is none", "expected whole numbers")),
        ("linspace(0,1", False, ("beta is 'linspace(0,1'",)),
        ("linspace(0,1,x)", False, ("'x' is none",)),
        ("linspace()", False, ("beta is 'linspace()'",)),
        ("linspace(0,1)", False, ("linspace has 2 arguments, expected 3",)),
        ("logspace(0,1,2,3)", False, ("logspace has 4 arguments, expected 3",)),
        ("range(3)", False, ("range has 1 arguments, expected 2",)),
        ("uniform(1)", False, ("uniform has 1 arguments, expected 2",)),
        ("geomspace(1,2,3)", False, ("unknown geomspace, expected one of linspace, logspace, range",)),
        ("linspace(0,1,0)", False, ("count is 0, expected a whole number from 1 to 1,000,000",)),
        ("linspace(0,1,2.5)", False, ("count is 2.5, expected a whole number from 1 to 1,000,000",)),
        ("linspace(0,1,nan)", False, ("expected finite arguments",)),
        ("linspace(0,1,inf)", False, ("expected finite arguments",)),
        ("linspace(0,inf,3)", False, ("expected finite arguments",)),
        ("logspace(0,1,3)", False, ("expected ends > 0",)),
        ("logspace(-1,1,3)", False, ("expected ends > 0",)),
        ("range(3,1)", True, ("expected whole numbers, the first < the end, which is left out",)),
        ("range(3,3)", True, ("expected whole numbers, the first < the end, which is left out",)),
        ("range(0.5,2)", True, ("expected whole numbers, the first < the end, which is left out",)),
        ("range(0,inf)", True, ("expected finite arguments",)),
        ("range(0,1e12)", True, ("expected 1,000,000 values at most",)),
        ("uniform(0,inf)", False, ("expected finite arguments",)),
    ],
)
def test_malformed_lists_are_refused_in_one_line(text, whole, parts):
    refused(UserError, lambda: parse("beta", text, whole=whole), "beta is ", *parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uniform(2,1)", "uniform(2,1) is refused, expected finite low < high"),
        ("uniform(1,1)", "uniform(1,1) is refused, expected finite low < high"),
        ("loguniform(0,1)", "loguniform(0,1) is refused, expected finite 0 < low < high"),
    ],
)
def test_distributions_without_numbers_between_their_ends_are_refused(text, message):
    refused(SettingError, lambda: parse("beta", text, whole=False), message)
    refused(SettingError, lambda: Uniform(0.0, math.inf), "uniform(0,inf) is refused")


# One value


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("4", Values(int, several=False), 4),
        ("1e-3", Values(float, several=False), 1e-3),
        ("inf", Values(float, several=False), math.inf),
        ("a,b", Values(str, several=False), "a,b"),
        ("512,256", Values(int, several=True), (512, 256)),
        ("512", Values(int, several=True), (512,)),
        ("shift, flip", Values(str, several=True), ("shift", "flip")),
        ("", Values(str, several=True), ()),
    ],
)
def test_single_values(text, values, expected):
    found = single("name", text, values)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("a", Values(int, several=False), "name is 'a', expected a whole number"),
        ("1.5", Values(int, several=False), "name is '1.5', expected a whole number"),
        ("1,2", Values(float, several=False), "name is '1,2', expected a number"),
        ("", Values(float, several=False), "name is '', expected a number"),
        (
            "1,x",
            Values(int, several=True),
            "name is '1,x', expected a list of whole numbers, with commas between",
        ),
    ],
)
def test_single_values_that_are_none_are_refused(text, values, message):
    refused(UserError, lambda: single("name", text, values), message)
