"""One generator of random numbers, whatever JAX is set to, and streams of keys that no two consumers share."""

import ast
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from cvae_jax import rng
from cvae_jax.errors import SettingError, UserError
from cvae_jax.rng import Stream, evaluation_key, root_key, stream
from cvae_jax.runs.description import claim
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run
from cvae_jax.training.config import Config, from_flat
from cvae_jax.training.hparams import hparams
from experiments.command_line import caching

ROOT = Path(__file__).parents[1]
SOURCES = [
    path for folder in ("cvae_jax", "experiments", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]


def test_every_stream_has_a_key_of_its_own():
    keys = [jax.random.key_data(stream(jax.random.key(0), name)).tolist() for name in Stream]
    assert len({tuple(key) for key in keys}) == len(Stream)


@pytest.mark.parametrize("default", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_are_of_one_generator_whatever_the_default(default):
    expected = jax.random.key_data(jax.random.key(7, impl="threefry2x32")).tolist()
    with jax.default_prng_impl(default):
        member = hparams(from_flat(seed=7), capacity=16)
        for key in (root_key(7), member.key):
            assert str(jax.random.key_impl(key)) == "threefry2x32"
            assert jax.random.key_data(key).tolist() == expected
        assert str(jax.random.key_impl(evaluation_key())) == "threefry2x32"


def test_all_keys_are_made_in_one_place():
    """Calls that make a key from a number, outside doctests."""
    made = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("key", "PRNGKey"):
                owner = ast.unparse(node.value)
                made |= {path.relative_to(ROOT)} if owner in ("jax.random", "random", "jr") else set()
    assert made == {Path("cvae_jax/rng.py")}


@pytest.fixture
def set_jax():
    """A function that sets JAX for one test."""
    before = {name: getattr(jax.config, name) for name in rng._EXPECTED}
    yield jax.config.update
    for name, value in before.items():
        jax.config.update(name, value)


OTHER = {"jax_enable_x64": True, "jax_threefry_partitionable": False, "jax_random_seed_offset": 3}


@pytest.mark.parametrize("name", OTHER)
def test_what_would_change_every_number_is_refused(set_jax, name):
    expected = getattr(jax.config, name)
    set_jax(name, OTHER[name])
    with pytest.raises(SettingError, match=f"{name} is {OTHER[name]}, expected {expected}"):
        root_key(0)


def test_scripts_set_what_the_environment_would_change(set_jax, monkeypatch):
    expected = jax.random.key_data(root_key(5)).tolist()
    for name, value in OTHER.items():
        set_jax(name, value)
    monkeypatch.setattr(caching.flags, "FLAGS", SimpleNamespace(cache_dir="cache", compilation_cache=False))
    caching.use()
    assert jax.random.key_data(root_key(5)).tolist() == expected


def test_a_run_records_its_generator(tmp_path):
    run = Run("train", (Config(),))
    claim(tmp_path, run)
    assert read_run(tmp_path) == run
    file = tmp_path / "config.json"
    text = file.read_text()
    assert f'"random_generator": "{rng.GENERATOR}"' in text
    file.write_text(text.replace("threefry2x32", "rbg"))
    with pytest.raises(UserError, match="random_generator 'rbg, partitionable', expected 'threefry2x32"):
        read_run(tmp_path)
