"""Numeric flags of scripts: each has bounds, and is checked before a script begins."""

import ast
import math
from pathlib import Path

import pytest
from absl import flags

from cvae_jax.conditions import CONDITIONS
from cvae_jax.errors import SettingError
from cvae_jax.options import options_of
from cvae_jax.training.config import TABLES, Config
from experiments.command_line import cli

ROOT = Path(__file__).parents[2]
# What depends on the run: the checkpoint's members, the test examples, the published schedule.
OF_A_RUN = {"member", "example", "stages"}


def flags_of_scripts():
    """Names of the numeric flags that scripts define one by one; those of options are in the tables of parts."""
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith(("DEFINE_integer", "DEFINE_float"))
                and isinstance(node.args[0], ast.Constant)
            ):
                yield node.args[0].value


def test_every_numeric_flag_of_a_script_has_bounds():
    parts = [Config, *(part for table in (*TABLES.values(), CONDITIONS) for part in table.values())]
    options = {name for part in parts for name in options_of(part)}
    numeric = set(flags_of_scripts())
    assert set(cli.BOUNDS) <= numeric
    # Options are checked by the part that they are set in.
    assert numeric - set(cli.BOUNDS) <= OF_A_RUN | options


@pytest.mark.parametrize(
    ("given", "message"),
    [
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
