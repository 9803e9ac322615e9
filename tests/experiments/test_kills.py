"""Trainings that are killed again and again, and checkpoints that are damaged: they end as undisturbed ones do."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from scripts import Scripts, metrics_lines, read_json, tensorboard_scalars, without_seconds

pytestmark = pytest.mark.slow

TRAIN = ("train", "--latent_dim=4", "--epochs=40", "--checkpoint_every=2")
SWEEP = (
    "sweep", "--learning_rate=2e-3,1e-3", "--seed=0,1", "--latent_dim=4", "--epochs=20", "--checkpoint_every=2",
    "--members_per_program=2",
)  # fmt: skip
COMMANDS = {"train": TRAIN, "sweep": SWEEP}
KILLS = 10


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def undisturbed(scripts, tmp_path_factory):
    """By name a command, the workdir where it was left alone, and the seconds that it took as a process of its own."""
    return {name: leave_alone(scripts, name, tmp_path_factory) for name in COMMANDS}


def leave_alone(scripts, name, tmp_path_factory):
    command = COMMANDS[name]
    workdirs = [tmp_path_factory.mktemp(name) / folder for folder in ("compiles", "undisturbed")]
    for workdir in workdirs:
        start = time.monotonic()
        ended = scripts.end(scripts.start(*command, f"--workdir={workdir}"))
        assert ended.code == 0, ended.err
    return command, workdirs[-1], time.monotonic() - start


def numbers(workdir):
    """All that a run says of its training, without the seconds."""
    output = {"metrics": metrics_lines(workdir), "tensorboard": tensorboard_scalars(workdir)}
    if (workdir / "summary.json").exists():
        seconds = ("seconds", "examples_per_second")
        summary = read_json(workdir / "summary.json")
        return output | {"summary": {k: v for k, v in summary.items() if k not in seconds}}
    table = read_json(workdir / "results.json")
    lines = (workdir / "results.csv").read_text(encoding="utf-8").splitlines()
    return output | {"rows": without_seconds(table), "csv": [line.rpartition(",")[0] for line in lines]}


def left_over(*folders):
    """Temporary files, locks, and checkpoints of which one half is there."""
    return [
        path.name
        for folder in folders
        for path in folder.rglob("*")
        if "unfinished" in path.name or "tmp" in path.name or path.name == "train.lock"
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_training_that_is_killed_ten_times_ends_as_an_undisturbed_one(scripts, undisturbed, tmp_path, name):
    command, alone, seconds = undisturbed[name]
    workdir = tmp_path / "killed"
    rng = np.random.default_rng(len(command))
    kills = 0
    while kills < KILLS:
        process = scripts.start(*command, f"--workdir={workdir}")
        # Spread over the whole life of a process: its imports, its training, its pictures.
        time.sleep(seconds * rng.uniform(0.2, 1.0))
        process.kill()
        killed = scripts.end(process).code == -signal.SIGKILL
        kills += killed
        # The machine may be less busy than when it was measured.
        seconds *= 1 if killed else 0.7
        if (workdir / "summary.json").exists() or (workdir / "results.json").exists():
            shutil.rmtree(workdir)
    ended = scripts.end(scripts.start(*command, f"--workdir={workdir}"))
    assert ended.code == 0, ended.err
    assert numbers(workdir) == numbers(alone)
    assert left_over(workdir, scripts.cache) == []


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGES = {"truncated": truncate, "zeroed": zero, "deleted": os.unlink, "flipped": flip}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_newest_checkpoint_costs_no_digit(scripts, undisturbed, tmp_path, damage):
    """Each file in turn; the run goes on for the epochs that the newest checkpoint was ahead."""
    command, alone, _ = undisturbed["train"]
    whole = tmp_path / "whole"
    shutil.copytree(alone, whole)
    for name in ("summary.json", "results.json"):
        (whole / name).unlink(missing_ok=True)
    folder = whole / "checkpoints"
    part = "part-1" if (folder / "part-1").exists() else "."
    newest = max(int(path.name) for path in (folder / part).iterdir() if path.name.isdigit())
    files = [
        path for path in (folder / part / str(newest)).rglob("*") if path.is_file() and path.stat().st_size
    ]
    assert len(files) > 8
    expected = numbers(alone)
    for file in files:
        workdir = tmp_path / "damaged"
        shutil.copytree(whole, workdir)
        DAMAGES[damage](workdir / file.relative_to(whole))
        ended = scripts.run(*command, f"--workdir={workdir}")
        assert ended.code == 0, (file, ended.err)
        assert numbers(workdir) == expected, file
        shutil.rmtree(workdir)
