"""Checkpoints: bit-exact, resumable, the latest few, and a damaged one skipped."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax import checkpoints, sweep
from cvae_jax.checkpoints import CheckpointError
from cvae_jax.config import Member
from cvae_jax.sweep import Population

# When one array of a checkpoint cannot be read, orbax leaves its reads of the others to themselves.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def numbered(step):
    """A population of the size of a test, whose numbers tell its step."""
    rng = np.random.default_rng(step)
    arrays = {name: jnp.asarray(rng.normal(size=(2, 300, 50)), jnp.float32) for name in ("a", "b")}
    return Population(jnp.int32(step), arrays | {"count": jnp.full(2, step)})


def save_all(directory, populations):
    with checkpoints.open_manager(directory) as manager:
        for population in populations:
            checkpoints.save(manager, population)
            manager.wait_until_finished()


def restore(directory, like):
    with checkpoints.open_manager(directory) as manager:
        return checkpoints.restore(manager, jax.eval_shape(lambda: like))


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def truncate(folder):
    """Cut the files that hold the arrays."""
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    for file in files[-3:]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def delete_arrays(folder):
    for part in list(folder.rglob("d")):
        shutil.rmtree(part)


def delete_metadata(folder):
    (folder / "default" / "_METADATA").unlink()


DAMAGES = [truncate, empty, delete_arrays, delete_metadata]


def test_what_is_restored_is_what_was_saved(tmp_path):
    population = numbered(5)
    population.members["a"] = population.members["a"].at[0, 0, :3].set(jnp.array([jnp.nan, jnp.inf, -0.0]))
    save_all(tmp_path, [population])
    assert_same_bits(restore(tmp_path, population), population)


def test_none_are_none(tmp_path):
    assert restore(tmp_path / "checkpoints", numbered(0)) is None


def test_the_latest_three_are_kept(tmp_path):
    save_all(tmp_path, map(numbered, range(1, 6)))
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["3", "4", "5"]
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(5))


def test_a_checkpoint_that_exists_is_left_alone(tmp_path):
    save_all(tmp_path, [numbered(5)])
    save_all(tmp_path, [Population(jnp.int32(5), numbered(6).members)])
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(5))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    save_all(tmp_path, map(numbered, (10, 20)))
    damage(tmp_path / "20")
    with caplog.at_level(logging.WARNING, "cvae_jax.checkpoints"):
        assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))
    (warning,) = (r for r in caplog.records if r.name == "cvae_jax.checkpoints")
    assert warning.getMessage().startswith("checkpoint 20 cannot be read")
    # The run goes on from there and writes the damaged one anew.
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.discard_after(manager, 10)
    save_all(tmp_path, [numbered(20)])
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(20))


def test_reading_a_damaged_checkpoint_does_not_remove_it(tmp_path):
    save_all(tmp_path, map(numbered, (10, 20)))
    truncate(tmp_path / "20")
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))
    assert (tmp_path / "20").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_checkpoint_that_can_be_read_is_an_error(tmp_path, damage):
    save_all(tmp_path, map(numbered, (10, 20)))
    for step in ("10", "20"):
        damage(tmp_path / step)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints 10, 20 in .* can be read"):
        restore(tmp_path, numbered(0))


def test_a_save_that_was_cut_short_does_not_count(tmp_path):
    save_all(tmp_path, map(numbered, (10, 20)))
    (tmp_path / "20").rename(tmp_path / "20.orbax-checkpoint-tmp")
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))


def test_a_resumed_training_is_an_undisturbed_one_bit_for_bit(make_sweep, tmp_path):
    model, h, data = make_sweep(Member(latent_dim=4), Member(latent_dim=3, seed=1, beta=2.0))

    def advance(population):
        return sweep.run_steps(model, population, h, data, jnp.int32(6))

    undisturbed = advance(advance(sweep.init(model, h)))
    save_all(tmp_path, [advance(sweep.init(model, h))])
    resumed = restore(tmp_path, undisturbed)
    assert resumed.step == 6
    assert_same_bits(advance(resumed), undisturbed)
