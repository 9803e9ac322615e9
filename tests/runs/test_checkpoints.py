"""Checkpoints: bit-exact, resumable, the latest few, and a damaged one skipped."""

import logging
import re
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.errors import CheckpointError
from cvae_jax.runs import checkpoints
from cvae_jax.training import population as sweep
from cvae_jax.training.population import Population

# When one array of a checkpoint cannot be read, orbax leaves its reads of the others to themselves.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


RECORD = {"run": {"beta": 0.1, "hidden": [4, 2]}, "data": "abc"}


def numbered(step):
    """A population of the size of a test, whose numbers tell its step."""
    rng = np.random.default_rng(step)
    arrays = {name: jnp.asarray(rng.normal(size=(2, 300, 50)), jnp.float32) for name in ("a", "b")}
    return Population(jnp.int32(step), arrays | {"count": jnp.full(2, step)})


def save_all(directory, populations):
    with checkpoints.open_manager(directory) as manager:
        for population in populations:
            checkpoints.save(manager, population, RECORD)
            manager.wait_until_finished()


def read(directory, like):
    with checkpoints.open_manager(directory, read_only=True) as manager:
        return checkpoints.restore(manager, jax.eval_shape(lambda: like))


def restore(directory, like):
    return read(directory, like).population


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
    (folder / "state" / "_METADATA").unlink()


def delete_state(folder):
    shutil.rmtree(folder / "state")


def flip_a_bit_of_an_array(folder):
    """Of the largest file: orbax and zstd do not notice all of these."""
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    flip_a_bit(file, file.stat().st_size // 2)


def flip_a_bit(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(bytes(content))


def rename(folder):
    """As a person might, who wants an older one to be read."""
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "10", folder)


DAMAGES = [truncate, empty, delete_arrays, delete_metadata, delete_state, flip_a_bit_of_an_array, rename]


def test_what_is_restored_is_what_was_saved(tmp_path):
    population = numbered(5)
    population.members["a"] = population.members["a"].at[0, 0, :3].set(jnp.array([jnp.nan, jnp.inf, -0.0]))
    save_all(tmp_path, [population])
    assert_same_bits(restore(tmp_path, population), population)


def test_none_are_none(tmp_path):
    assert read(tmp_path / "checkpoints", numbered(0)) is None
    assert not (tmp_path / "checkpoints").exists()


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
    with caplog.at_level(logging.WARNING, "cvae_jax.runs.checkpoints"):
        assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))
    (warning,) = (r for r in caplog.records if r.name == "cvae_jax.runs.checkpoints")
    assert warning.getMessage().startswith("checkpoint 20 cannot be read")
    assert warning.getMessage().endswith("; checkpoint 10 is read instead")
    # The run goes on from there and writes the damaged one anew; what could not be read stays there for a person.
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.set_aside_after(manager, 10)
        checkpoints.save(manager, numbered(20), RECORD)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["10", "20", "unreadable-20"]
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(20))


def test_reading_a_damaged_checkpoint_does_not_remove_it(tmp_path):
    save_all(tmp_path, map(numbered, (10, 20)))
    truncate(tmp_path / "20")
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))
    assert (tmp_path / "20").exists()


@pytest.mark.parametrize("damage", DAMAGES[:-1])
def test_no_checkpoint_that_can_be_read_is_an_error(tmp_path, damage):
    save_all(tmp_path, map(numbered, (10, 20)))
    for step in ("10", "20"):
        damage(tmp_path / step)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints 10, 20 in .* can be read") as error:
        restore(tmp_path, numbered(0))
    assert not re.search("remove|delete", str(error.value))
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["10", "20"]


def test_strange_names_beside_the_checkpoints_are_no_obstacle(tmp_path):
    save_all(tmp_path, map(numbered, (10, 20)))
    for name in ("99", "abc", "007", "-5", "٣٣", "unreadable-30", "part-0", "1e3"):
        (tmp_path / name).mkdir()
    (tmp_path / "55").write_text("a file")
    (tmp_path / "60").symlink_to("nowhere")
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(20))
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.set_aside_after(manager, 20)
        checkpoints.save(manager, numbered(30), RECORD)
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(30))


def test_the_record_comes_back_with_the_arrays_and_without_them(tmp_path):
    save_all(tmp_path, map(numbered, (10, 20)))
    assert read(tmp_path, numbered(0)).record == RECORD
    record = tmp_path / "20" / "record" / "metadata"
    record.write_text(record.read_text().replace("0.1", "0.2"))
    with checkpoints.open_manager(tmp_path, read_only=True) as manager:
        assert checkpoints.read_records(manager) == {10: RECORD}
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))


@pytest.mark.slow
def test_no_flipped_bit_passes(tmp_path):
    """In every file of a checkpoint, at every hundredth byte or so."""
    save_all(tmp_path, map(numbered, (10, 20)))
    rng = np.random.default_rng(0)
    for file in sorted(
        file for file in (tmp_path / "20").rglob("*") if file.stat().st_size and file.is_file()
    ):
        whole = file.read_bytes()
        for at in rng.integers(len(whole), size=8):
            flip_a_bit(file, at)
            found = read(tmp_path, numbered(0))
            assert_same_bits(found.population, numbered(found.step))
            assert found.record == RECORD
            file.write_bytes(whole)


def test_a_save_that_fails_ends_at_once_and_says_why(tmp_path):
    """In a process of its own: what hung were orbax's threads, when Python waited for them at its end."""
    program = """
import sys, pathlib, jax.numpy as jnp
from cvae_jax.runs import checkpoints
from cvae_jax.training.population import Population
folder = pathlib.Path(sys.argv[1])
with checkpoints.open_manager(folder) as manager:
    checkpoints.save(manager, Population(jnp.int32(1), {"a": jnp.zeros(3)}), {})
    checkpoints.finish(manager)
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("a file where the folder was")
    checkpoints.save(manager, Population(jnp.int32(2), {"a": jnp.zeros(3)}), {})
"""
    command = [sys.executable, "-c", program, tmp_path / "checkpoints"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    *_, last = ended.stderr.strip().splitlines()
    assert last.startswith("cvae_jax.errors.CheckpointError: a checkpoint cannot be written to ")
    assert last.endswith("Not a directory")


def test_a_save_that_fails_in_the_background_is_raised_by_the_next_look(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    def save_and_look():
        with checkpoints.open_manager(tmp_path) as manager:
            monkeypatch.setattr(manager._checkpointer._async_manager, "wait_until_finished", fail)
            checkpoints.save(manager, numbered(10), RECORD)
            for _ in range(1000):
                checkpoints.raise_failure(manager)
                time.sleep(0.01)
            pytest.fail("nothing was raised")

    with pytest.raises(CheckpointError, match=r"cannot be written to .*: no space left on the device"):
        save_and_look()


def test_a_save_that_was_cut_short_does_not_count(tmp_path):
    save_all(tmp_path, map(numbered, (10, 20)))
    (tmp_path / "20").rename(tmp_path / "20.orbax-checkpoint-tmp")
    assert_same_bits(restore(tmp_path, numbered(0)), numbered(10))
    assert (tmp_path / "20.orbax-checkpoint-tmp").exists()
    # It may be under way where one only reads; the next training removes it.
    save_all(tmp_path, [numbered(30)])
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["10", "30"]


def test_a_resumed_training_is_an_undisturbed_one_bit_for_bit(make_sweep, tmp_path):
    model, h, data = make_sweep({"latent_dim": 4}, {"latent_dim": 3, "seed": 1, "beta": 2.0})

    def advance(population):
        return sweep.run_steps(model, population, h, data, jnp.int32(6))

    undisturbed = advance(advance(sweep.init(model, h)))
    save_all(tmp_path, [advance(sweep.init(model, h))])
    resumed = restore(tmp_path, undisturbed)
    assert resumed.step == 6
    assert_same_bits(advance(resumed), undisturbed)
