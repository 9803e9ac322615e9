"""Lists of values on the command line, and the members they make."""

import dataclasses
import functools
import itertools
import math

import pytest
from absl import flags
from cvae_jax.config import Member

from cvae_jax.errors import SettingError, UserError
from cvae_jax.training.grid import Uniform, distinct, grid, random_members
from experiments import settings
from experiments.lists import parse


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
        ("range(2,4)", [2.0, 3.0, 4.0]),
        ("range(-1,-1)", [-1.0]),
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


def test_inf_is_a_value():
    assert parse("clip_norm", "1,inf", whole=False) == [1.0, math.inf]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,7,3", [0, 7, 3]),
        ("range(0,3)", [0, 1, 2, 3]),
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
        ("range(3,1)", True, ("expected whole numbers, the first ≤ the last",)),
        ("range(0.5,2)", True, ("expected whole numbers, the first ≤ the last",)),
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


# All combinations


def test_the_last_axis_changes_fastest():
    members = grid(beta=[1.0, 4.0], latent_dim=[2, 8], seed=[0, 1, 2])
    settings = [(m.beta, m.latent_dim, m.seed) for m in members]
    assert settings == [(b, d, s) for b in (1.0, 4.0) for d in (2, 8) for s in (0, 1, 2)]


def test_settings_not_named_keep_their_default():
    assert grid(beta=[2.0]) == (Member(beta=2.0),)
    assert grid() == (Member(),)


def test_an_empty_grid_is_refused():
    refused(SettingError, lambda: grid(beta=[1.0], seed=[]), "seed has no values", "the grid is empty")


def test_a_member_that_comes_twice_is_refused():
    message = "member 2 is member 0 again (beta=1.0, latent_dim=16"
    refused(SettingError, lambda: grid(beta=[1.0, 2.0, 1.0]), message, "expected all different")
    refused(SettingError, lambda: distinct((Member(), Member())), "member 1 is member 0 again")


def test_a_value_that_no_training_can_use_is_refused():
    refused(SettingError, lambda: grid(beta=[1.0, -1.0]), "beta is -1.0, expected a finite number ≥ 0")


# Random search


AXES = {
    "beta": Uniform(0.1, 10.0, log=True),
    "latent_dim": Uniform(2, 4),
    "learning_rate": Uniform(1e-4, 1e-2),
    "clip_norm": [1.0, math.inf],
    "seed": [0],
}


def test_draws_lie_between_the_ends():
    members = random_members(300, 0, **AXES)
    assert len(set(members)) == 300
    assert all(0.1 <= m.beta <= 10 and 1e-4 <= m.learning_rate <= 1e-2 for m in members)
    assert {m.latent_dim for m in members} == {2, 3, 4}
    assert {m.clip_norm for m in members} == {1.0, math.inf}
    assert all(type(value) in (int, float) for value in dataclasses.astuple(members[0]))
    # The logarithm is uniform: as many below 1 as above.
    assert 120 < sum(m.beta < 1 for m in members) < 180
    # Ends are as likely as what lies between them.
    assert 70 < sum(m.latent_dim == 2 for m in members) < 130


def test_draws_are_reproducible_and_more_of_them_begin_alike():
    members = random_members(8, 3, **AXES)
    assert members == random_members(8, 3, **AXES)
    assert members[:5] == random_members(5, 3, **AXES)
    assert members != random_members(8, 4, **AXES)


def test_too_few_different_members_are_refused():
    refused(
        SettingError,
        lambda: random_members(4, 0, beta=[1.0, 2.0]),
        "num_random is 4, but only 2 different members were found",
    )
    refused(SettingError, lambda: random_members(0, 0), "num_random is 0, expected a whole number ≥ 1")
    refused(SettingError, lambda: random_members(1, -1), "search_seed is -1, expected a whole number ≥ 0")


# The flags of a sweep


@pytest.fixture
def members_of(monkeypatch):
    """A function from the flags of a sweep to its members."""

    def members(*arguments):
        values = flags.FlagValues()
        for kind, define in defines.items():
            monkeypatch.setattr(flags, kind, functools.partial(define, flag_values=values))
        settings.define_grid_flags()
        values(["sweep", *arguments])
        monkeypatch.setattr(settings, "FLAGS", values)
        return settings.grid_members()

    defines = {kind: getattr(flags, kind) for kind in ("DEFINE_string", "DEFINE_integer")}
    return members


def test_flags_make_a_grid(members_of):
    members = members_of("--seed=range(0,1)", "--beta=logspace(0.5,2,3)")
    assert [(m.beta, m.seed) for m in members] == [(b, s) for b in (0.5, 1.0, 2.0) for s in (0, 1)]
    assert members_of() == (Member(),)


def test_flags_make_a_random_search(members_of):
    arguments = ("--num_random=3", "--beta=loguniform(0.1,10)", "--seed=0,1")
    members = members_of(*arguments)
    assert len(set(members)) == 3
    assert members == members_of(*arguments)
    assert members != members_of(*arguments, "--search_seed=1")


def test_a_distribution_needs_a_random_search(members_of):
    refused(
        UserError,
        lambda: members_of("--beta=uniform(0,1)"),
        "beta is 'uniform(0,1)', a distribution: expected --num_random with it",
    )
