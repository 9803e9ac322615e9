"""Files written whole or not at all, what killed writers leave, and locks that die with their process."""

import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from cvae_jax import files
from cvae_jax.data.sources import cache
from cvae_jax.errors import DataError, LockedError
from cvae_jax.files import folder_atomically, locked, remove_abandoned, write_atomically


@pytest.fixture
def process():
    """A function that starts Python with a program, which prints `ready` and then stays; killed at the end."""
    started = []

    def start(program, *arguments):
        program = f"import sys, time, pathlib\nfrom cvae_jax import files\n{program}"
        command = [sys.executable, "-c", program, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            end(each)


WRITES = """
def stay(temporary):
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
files.write_atomically(pathlib.Path(sys.argv[1]), stay)
"""
HOLDS = """
with files.locked(pathlib.Path(sys.argv[1]), "the first"):
    print("ready", flush=True)
    time.sleep(60)
"""


def end(process):
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail(temporary):
    temporary.write_text("half")
    raise OSError(28, "No space left on device")


def test_a_file_that_fails_leaves_the_one_before(tmp_path):
    write_atomically(tmp_path / "a.txt", lambda file: file.write_text("whole"))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.txt", fail)
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


def test_files_have_ordinary_modes(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.txt", lambda file: file.write_text("a"))
        cache.packed_once(tmp_path / "packed.npz", "here", lambda: {"x": np.zeros(3)})
        with folder_atomically(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"a.txt": 0o640, "packed.npz": 0o640, "folder": 0o750}


def test_content_and_name_are_on_the_disk_before_it_is_said_to_be_written(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files, "_to_disk", lambda path: done.append(("flushed", path.name, path.exists())))
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (done.append(("renamed", b.name)), replace(a, b)))
    write_atomically(tmp_path / "a.txt", lambda file: file.write_text("a"))
    (flushed, temporary, was_there), renamed, folder = done
    assert flushed == "flushed"
    assert temporary.endswith(".txt")
    assert was_there
    assert (renamed, folder) == (("renamed", "a.txt"), ("flushed", tmp_path.name, True))


def test_what_a_killed_writer_leaves_is_removed_by_the_next_and_what_is_being_written_is_not(
    tmp_path, process
):
    killed, writing = (process(WRITES, tmp_path / f"{name}.npz") for name in "ab")
    assert len(names(tmp_path)) == 2
    end(killed)
    (tmp_path / ".hidden").write_text("a person's")
    write_atomically(tmp_path / "c.txt", lambda file: file.write_text("c"))
    unfinished, *others = names(tmp_path)
    assert unfinished.startswith(".cvae_jax-unfinished-")
    assert others == [".hidden", "c.txt"]
    end(writing)
    remove_abandoned(tmp_path)
    assert names(tmp_path) == [".hidden", "c.txt"]


def test_without_locks_a_day_tells_what_is_abandoned(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    for name, age in (("old", 25), ("new", 1)):
        path = tmp_path / f".cvae_jax-unfinished-{name}"
        path.write_text("")
        then = path.stat().st_mtime - 3600 * age
        os.utime(path, (then, then))
    write_atomically(tmp_path / "a.txt", lambda file: file.write_text("a"))
    assert names(tmp_path) == [".cvae_jax-unfinished-new", "a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="No space left"), folder_atomically(tmp_path / "run") as folder:
        fail(folder / "a")
    assert names(tmp_path) == []
    with folder_atomically(tmp_path / "run") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "a").write_text("a")
        remove_abandoned(tmp_path)
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run" / "part" / "a").read_text() == "a"
    with pytest.raises(OSError, match="run"), folder_atomically(tmp_path / "run"):
        pass
    assert names(tmp_path) == ["run"]


def test_a_folder_of_a_killed_process_is_removed(tmp_path, process):
    program = """
with files.folder_atomically(pathlib.Path(sys.argv[1])) as folder:
    (folder / "a").write_text("a")
    print("ready", flush=True)
    time.sleep(60)
"""
    end(process(program, tmp_path / "run"))
    assert len(names(tmp_path)) == 1
    remove_abandoned(tmp_path)
    assert names(tmp_path) == []


def test_a_lock_is_of_one_process_and_ends_with_it(tmp_path, process):
    path = tmp_path / "train.lock"
    holder = process(HOLDS, path)
    with pytest.raises(LockedError, match="the first"), locked(path, "the second"):
        pass
    end(holder)
    assert path.exists()
    with locked(path, "the second"):
        assert path.read_text() == "the second"
        with pytest.raises(LockedError, match="the second"), locked(path, "the third"):
            pass
    assert names(tmp_path) == []


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    warns = pytest.warns(UserWarning, match=r"train\.lock cannot be locked \(this system has no file locks\)")
    with warns, locked(tmp_path / "train.lock", "me"):
        assert (tmp_path / "train.lock").read_text() == "me"


def test_packed_arrays_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file cannot be written .*set --cache_dir"):
        cache.packed_once(tmp_path / "file" / "packed.npz", "here", lambda: {"x": np.zeros(3)})


def test_a_script_mends_the_cache_that_a_killed_one_left(tmp_path):
    """Half files of its own, and half a compiled program of JAX's; in a process, because JAX opens its cache once."""
    program = """
import pathlib, sys
import jax
from experiments.command_line import caching, cli
def compile_anew():
    jax.clear_caches()
    jax.jit(lambda x: x + 1)(1.0)
def main():
    caching.use()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compile_anew()
    files = list((pathlib.Path(sys.argv[1].partition("=")[2]) / "compiled").glob("*-cache"))
    for file in files:
        file.write_bytes(file.read_bytes()[:50])
    compile_anew()
    print(*(file.stat().st_size for file in files))
caching.define_flags()
cli.run(main, [])
"""
    (tmp_path / "classifiers").mkdir()
    abandoned = [folder / ".cvae_jax-unfinished-a.npz" for folder in (tmp_path, tmp_path / "classifiers")]
    for file in abandoned:
        file.write_text("half")
    command = [sys.executable, "-c", program, f"--cache_dir={tmp_path}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    warnings = ended.stderr.splitlines()
    assert warnings
    assert all(
        line.startswith("warning: Error reading persistent compilation cache entry") for line in warnings
    )
    assert min(map(int, ended.stdout.split())) > 50
    assert not any(file.exists() for file in abandoned)
