"""Every numeric option: what its program would wrap, round or clip is refused in one line, nothing else."""

import ast
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from cvae_jax.config import Config, Member
from cvae_jax.errors import SettingError
from cvae_jax.options import BOUNDS, Real, Whole, as_float32, require_within
from cvae_jax.rng import root_key
from cvae_jax.training import population
from cvae_jax.training.grid import distinct, grid, random_members
from experiments import cli

ROOT = Path(__file__).parents[1]
# What depends on the run: the checkpoint's members, the test examples, the published schedule.
OF_A_RUN = {"member", "example", "stages"}
FIELDS = {field.name: owner for owner in (Config, Member) for field in dataclasses.fields(owner)}
WHOLE = [name for name, bounds in BOUNDS.items() if isinstance(bounds, Whole)]
REAL = [name for name, bounds in BOUNDS.items() if isinstance(bounds, Real)]
SEEDS = ["data_seed", "search_seed", "seed"]
TINY, HUGE = 2.0**-126, 3.5e38


def refuse(name, value):
    """The one line that says why, of the option's owner and of the table."""
    with pytest.raises(SettingError) as error:
        require_within(name, value)
    if name in FIELDS:
        with pytest.raises(SettingError) as same:
            FIELDS[name](**{name: (value,) if name == "hidden" else value})
        assert str(same.value) == str(error.value)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{name} is {value}, expected a ")
    return text


def flags_of_scripts():
    """Names of the numeric flags that scripts define one by one; those of members are `Member`'s fields."""
    for path in (ROOT / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("DEFINE_integer", "DEFINE_float")
            ):
                assert isinstance(node.args[0], ast.Constant)
                yield node.args[0].value


def test_every_numeric_option_has_bounds():
    numeric = {
        field.name
        for owner in (Config, Member)
        for field in dataclasses.fields(owner)
        if field.type in ("int", "float")
    }
    assert numeric | {"hidden"} | set(flags_of_scripts()) - OF_A_RUN == set(BOUNDS)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_that_would_wrap_are_refused(name):
    bounds = BOUNDS[name]
    assert bounds.high <= (2**32 if name in SEEDS else 2**31) - 1
    for value in (bounds.low, bounds.high):
        require_within(name, value)
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
        refuse(name, value)


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_is_no_other_seeds_alias(name):
    assert refuse(name, 2**32) == f"{name} is 4294967296, expected a whole number ≥ 0 and ≤ 4294967295"
    refuse(name, -1)


def test_keys_of_seeds_are_all_different():
    assert not (root_key(2**32 - 1) == root_key(0)).all()
    for seed in (2**32, -1):
        with pytest.raises(
            SettingError, match=f"seed is {seed}, expected a whole number ≥ 0 and ≤ 4294967295"
        ):
            root_key(seed)


@pytest.mark.parametrize("name", REAL)
def test_numbers_that_float32_does_not_hold_are_refused(name):
    bounds = BOUNDS[name]
    for value in (HUGE, 1e39, 10**400, math.nan, -math.inf, -HUGE, "1", True):
        refuse(name, value)
    if bounds.low <= 0:
        for value in (1e-39, 1e-46, 1e-50, 1e-320):
            assert "is 0 in float32" in refuse(name, value)
    if bounds.infinite is None:
        refuse(name, math.inf)
    else:
        require_within(name, math.inf)
    if bounds.low > -math.inf and not bounds.above_low:
        require_within(name, bounds.low)
        refuse(name, np.nextafter(bounds.low, -1))


@pytest.mark.parametrize("name", REAL)
def test_what_float32_holds_is_kept(name):
    """Its value in float32 has the same meaning: none of 0, inf and 1 that was not given."""
    bounds = BOUNDS[name]
    for value in (TINY, 1e-30, 0.3, 0.9999999, 1.0, 2.5, 1e30, 3.4e38):
        if bounds.fault(value) is None:
            single = float(np.float32(value))
            assert 0 < single < math.inf
            assert single < bounds.below
        else:
            assert value < bounds.low or value >= bounds.below or value > bounds.high


@pytest.mark.parametrize("name", ["dropout", "condition_dropout", "ema_decay"])
def test_shares_that_float32_rounds_to_1_are_refused(name):
    assert refuse(name, 1 - 1e-9).endswith("expected a number ≥ 0 and < 1; in float32 it is 1")
    require_within(name, 1 - 1e-7)


def test_rounding_is_float32s():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=1000), 10 ** rng.uniform(-37, 38, 1000), [0.0, math.inf]])
    assert [as_float32(value) for value in values.tolist()] == np.float32(values).tolist()


def test_a_range_of_betas_is_one_in_float32():
    with pytest.raises(SettingError, match=r"beta_min is 1\.0, expected less than beta_max 1\.00000000001"):
        Member(beta_min=1.0, beta_max=1.00000000001)


def test_members_alike_in_float32_are_one_member_twice():
    with pytest.raises(SettingError, match=r"member 1 is member 0 again in float32 \(beta=1\.00000000001"):
        distinct((Member(beta=1.0), Member(beta=1.00000000001)))
    assert len(distinct((Member(clip_norm=math.inf), Member(clip_norm=1.0)))) == 2


def test_more_steps_than_int32_counts_are_refused(digits):
    for epochs in (2**31 // 10 + 1, 2**31 - 1):
        with pytest.raises(
            SettingError, match=rf"epochs is {epochs}, expected at most 214748364 of 10 steps each"
        ):
            population.build_model(Config(epochs=epochs), digits, [Member()])
    population.build_model(Config(epochs=2**31 // 10), digits, [Member()])


def test_grids_are_counted_before_they_are_made():
    axis = list(range(1, 1001))
    with pytest.raises(SettingError, match="the grid has 1,000,000,000 members, expected at most 100,000"):
        grid(beta=axis, latent_dim=axis, seed=axis)
    with pytest.raises(SettingError, match="num_random is 1000000000, expected at most 100,000"):
        random_members(10**9, 0, beta=axis)


def test_random_searches_that_cannot_end_do_not_begin():
    with pytest.raises(SettingError, match="num_random is 90000, but only 6 different members were found"):
        random_members(90_000, 0, beta=[1.0, 2.0, 2.0], latent_dim=[1, 2, 3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 2**32}, "seed is 4294967296, expected"),
        ({"num": 0}, "num is 0, expected a whole number ≥ 1"),
        (
            {"temperature": 1e39},
            "temperature is 1e+39, expected a finite number ≥ 0; float32 ends at 3.4e+38",
        ),
        ({"guidance": math.nan}, "guidance is nan, expected a finite number"),
    ],
)
def test_flags_are_checked_before_a_script_begins(monkeypatch, given, message):
    values = flags.FlagValues()
    for name, value in given.items():
        define = flags.DEFINE_integer if isinstance(value, int) else flags.DEFINE_float
        define(name, value, "", flag_values=values)
    values(["script"])
    monkeypatch.setattr(cli.flags, "FLAGS", values)
    with pytest.raises(SettingError) as error:
        cli.require_flags_within_bounds()
    assert str(error.value).startswith(message)
