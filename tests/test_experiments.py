"""The scripts as a person runs them: outputs, resuming, and errors of one line."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from cvae_jax.config import Config, Member
from experiments.cli import UserError
from experiments.workdir import MetricsLog, Run, claim, finished_summary, read_run, write_json

ROOT = Path(__file__).parents[1]
EPOCHS = 30
STEPS = EPOCHS * 10
SETTINGS = ("--latent_dim=4", f"--epochs={EPOCHS}", "--checkpoint_every=3")


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Scripts:
    """Starts scripts on one device, with one cache of compiled programs for all."""

    def __init__(self, cache):
        self._cache = cache

    def start(self, script, *flags):
        env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")}
        command = [sys.executable, "-m", f"experiments.{script}", f"--cache_dir={self._cache}", *flags]
        return subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def end(self, process):
        out, err = process.communicate(timeout=240)
        return Result(process.returncode, out, err)

    def run(self, script, *flags):
        return self.end(self.start(script, *flags))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trained(scripts, tmp_path_factory):
    """The workdir of a finished run, and what its command said."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    result = scripts.run("train", *SETTINGS, f"--workdir={workdir}")
    assert result.code == 0, result.err
    return workdir, result


@pytest.fixture(scope="module")
def launched(scripts, trained, tmp_path_factory):
    """Results of all other commands by name, two at a time: most of each is the start of Python."""
    workdir, _ = trained
    other = tmp_path_factory.mktemp("other")
    continued = other / "continued"
    shutil.copytree(workdir, continued)
    damaged = other / "damaged"
    shutil.copytree(workdir, damaged)
    for folder in list((damaged / "checkpoints" / str(STEPS)).rglob("d")):
        shutil.rmtree(folder)
    (other / "file").write_text("")
    again = ("train", *SETTINGS, f"--workdir={workdir}")
    look = (f"--workdir={workdir}", "--seed=3", "--num=5")
    commands = {
        "evaluate": ("evaluate", f"--workdir={workdir}", "--nll_samples=20"),
        "no draws": ("evaluate", f"--workdir={workdir}", "--nll_samples=0"),
        "damaged": ("evaluate", f"--workdir={damaged}"),
        "png": ("sample", *look, "--label=7", f"--output={other / 'seven.png'}"),
        "npz": ("sample", *look, "--label=7", f"--output={other / 'seven.npz'}"),
        "unknown label": ("sample", *look, "--label=ten", f"--output={other / 'ten.png'}"),
        "continued": ("train", *SETTINGS, f"--epochs={EPOCHS + 2}", f"--workdir={continued}"),
        "again": again,
        "other beta": (*again, "--beta=2"),
        "negative beta": ("train", "--beta=-1", f"--workdir={other / 'a'}"),
        "no latents": ("train", "--latent_dim=0", f"--workdir={other / 'b'}"),
        "unknown dataset": ("train", "--dataset=fashion_mnits", f"--workdir={other / 'c'}"),
        "diverging": ("train", *SETTINGS, "--learning_rate=1e6", f"--workdir={other / 'd'}"),
        "a file": ("train", f"--workdir={other / 'file'}"),
    }
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(scripts.run, *command) for name, command in commands.items()}
        yield lambda name: futures[name].result(), other


@pytest.fixture
def result(launched):
    return launched[0]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def records(workdir):
    """Lines of `metrics.jsonl`, without the seconds, which no run repeats."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def repeatable(summary):
    return {k: v for k, v in summary.items() if k not in ("seconds", "examples_per_second")}


# What a run leaves behind


def test_config_json_describes_the_run(trained):
    run = read_run(trained[0])
    assert run.config == Config(epochs=EPOCHS)
    assert run.members == (Member(latent_dim=4),)
    assert run.checkpoint_every == 3


def test_metrics_jsonl_has_a_line_per_epoch(trained):
    lines = records(trained[0])
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert [line["step"] for line in lines] == list(range(10, STEPS + 1, 10))
    for line in lines:
        for split in ("train", "validation"):
            metrics = line[split]
            assert set(metrics) == {"elbo", "rate", "distortion", "loss"}
            assert metrics["elbo"] == -(metrics["rate"] + metrics["distortion"])
            np.testing.assert_allclose(metrics["loss"], -metrics["elbo"], rtol=1e-6)
    assert lines[-1]["validation"]["elbo"] > lines[0]["validation"]["elbo"] + 2


def test_summary_json_is_of_the_best_epoch(trained):
    summary = read(trained[0] / "summary.json")
    assert set(summary) == {
        "validation", "test", "best_epoch", "epochs", "steps", "seconds", "examples_per_second", "params"
    }  # fmt: skip
    assert (summary["epochs"], summary["steps"]) == (EPOCHS, STEPS)
    elbos = [line["validation"]["elbo"] for line in records(trained[0])]
    assert summary["best_epoch"] == 1 + int(np.argmax(elbos))
    np.testing.assert_allclose(summary["validation"]["elbo"], max(elbos), rtol=1e-5)
    for split in ("validation", "test"):
        metrics = summary[split]
        assert metrics["elbo"] == -(metrics["rate"] + metrics["distortion"])
    assert summary["validation"] != summary["test"]
    np.testing.assert_allclose(summary["examples_per_second"] * summary["seconds"], STEPS * 128)


def tensorboard_events(workdir):
    """Events of a run: each a length, a checksum, a message and its checksum."""
    (file,) = (workdir / "tensorboard").iterdir()
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


def test_tensorboard_shows_what_metrics_jsonl_says(trained):
    shown = {
        (event.step, value.tag): value.simple_value
        for event in tensorboard_events(trained[0])
        for value in event.summary.value
    }
    expected = {
        (line["step"], f"{split}/{name}"): np.float32(value)
        for line in records(trained[0])
        for split in ("train", "validation")
        for name, value in line[split].items()
    }
    assert shown == expected


@pytest.mark.parametrize("name", ["samples", "reconstructions", "traversals"])
def test_pictures_show_something(trained, name):
    from matplotlib.image import imread

    picture = imread(trained[0] / f"{name}.png")
    assert min(picture.shape[:2]) > 200
    assert len(np.unique(picture[..., 0])) > 50


def test_the_last_checkpoints_are_kept(trained):
    steps = sorted(int(folder.name) for folder in (trained[0] / "checkpoints").iterdir())
    assert steps == [STEPS - 60, STEPS - 30, STEPS]


def test_no_temporary_files_are_left(trained):
    assert not [path for path in trained[0].iterdir() if path.name.startswith(".")]


def test_a_run_says_its_result(trained):
    workdir, said = trained
    elbo = read(workdir / "summary.json")["test"]["elbo"]
    assert f"test elbo {elbo:.2f}" in said.out.splitlines()[-1]
    assert said.err == ""


# Commands on a finished run


def test_the_same_command_says_it_is_finished(trained, result):
    assert result("again").code == 0
    assert f"{trained[0]} is finished: {EPOCHS} epochs" in result("again").out
    assert result("again").err == ""


def test_more_epochs_continue_the_run(trained, launched):
    result, other = launched
    assert result("continued").code == 0, result("continued").err
    assert f"resuming at step {STEPS} of {STEPS + 20}" in result("continued").out
    assert read(other / "continued" / "summary.json")["epochs"] == EPOCHS + 2
    assert read_run(other / "continued").config.epochs == EPOCHS + 2
    lines = records(other / "continued")
    assert len(lines) == EPOCHS + 2
    assert lines[:EPOCHS] == records(trained[0])


def test_evaluate_repeats_the_summary_to_the_last_digit(trained, result):
    assert result("evaluate").code == 0, result("evaluate").err
    summary, metrics = read(trained[0] / "summary.json"), json.loads(result("evaluate").out)
    nll, error, count = (metrics["test"].pop(f"nll{name}") for name in ("", "_standard_error", "_samples"))
    assert metrics == {name: summary[name] for name in ("validation", "test", "best_epoch")}
    assert count == 20
    assert 0 < error < 1
    assert -metrics["test"]["elbo"] - 3 < nll < -metrics["test"]["elbo"]


def test_a_damaged_checkpoint_is_named_in_one_line(result):
    assert result("damaged").code == 0
    warning = result("damaged").err.removesuffix("\n")
    assert "\n" not in warning, warning
    assert f"checkpoint {STEPS} cannot be read" in warning
    assert json.loads(result("damaged").out)["best_epoch"] <= EPOCHS - 3


def test_samples_are_written_as_arrays(launched):
    result, other = launched
    assert result("npz").code == 0, result("npz").err
    with np.load(other / "seven.npz") as file:
        x, c = file["x"], file["c"]
    assert x.shape == (5, 8, 8, 1)
    assert x.dtype == np.float32
    assert (x >= 0).all()
    assert (x <= 1).all()
    assert len({image.tobytes() for image in x}) == 5
    np.testing.assert_array_equal(c, 7)


def test_samples_are_written_as_a_picture(launched):
    from matplotlib.image import imread

    result, other = launched
    assert result("png").code == 0, result("png").err
    assert min(imread(other / "seven.png").shape[:2]) > 100


# A run that is disturbed


def wait_until(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"ended too soon: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_killed_and_terminated_ends_as_an_undisturbed_one(scripts, trained, tmp_path):
    workdir = tmp_path / "run"
    command = ("train", *SETTINGS, f"--workdir={workdir}")

    killed = scripts.start(*command)
    checkpoints = workdir / "checkpoints"
    wait_until(lambda: checkpoints.exists() and any(f.name.isdigit() for f in checkpoints.iterdir()), killed)
    killed.kill()
    assert scripts.end(killed).code == -signal.SIGKILL
    epoch = len(records(workdir))
    assert 3 <= epoch < EPOCHS - 5
    assert not (workdir / "summary.json").exists()

    terminated = scripts.start(*command)
    wait_until(lambda: len(records(workdir)) > epoch, terminated)
    terminated.send_signal(signal.SIGTERM)
    code, out, err = scripts.end(terminated)
    assert (code, err) == (128 + signal.SIGTERM, "")
    assert f"of {STEPS}\n" in out
    assert "resuming at step " in out
    *_, last = out.splitlines()
    assert last.startswith("SIGTERM: saved step ")
    assert last.endswith("the same command continues from there")
    step = int(last.removeprefix("SIGTERM: saved step ").split(";")[0])
    assert 10 * epoch < step < STEPS

    code, out, err = scripts.run(*command)
    assert (code, err) == (0, "")
    assert f"resuming at step {step} of {STEPS}" in out
    undisturbed = trained[0]
    assert records(workdir) == records(undisturbed)
    summaries = [repeatable(read(folder / "summary.json")) for folder in (workdir, undisturbed)]
    assert summaries[0] == summaries[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_is_named(scripts, trained, tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("this system does not let even root mount")
    try:
        assert_one_line_error(
            scripts.run("train", *SETTINGS, f"--workdir={tmp_path / 'run'}"), "no space left on the device"
        )
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# Errors


def assert_one_line_error(result, *parts):
    assert result.code == 1, result
    line = result.err.removesuffix("\n")
    assert "\n" not in line, result.err
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


ERRORS = {
    "negative beta": ("beta is -1.0, expected a finite number ≥ 0",),
    "no latents": ("latent_dim is 0, expected a whole number ≥ 1",),
    "unknown dataset": ("unknown dataset 'fashion_mnits'", "did you mean fashion_mnist"),
    "diverging": (" is not finite at step ", "learning_rate"),
    "no draws": ("nll_samples is 0, expected a whole number ≥ 1",),
    "a file": ("file is a file, expected a folder",),
    "other beta": ("beta is 1.0 there, not 2.0", "expected the same, or another --workdir"),
    "unknown label": ("label is ten, expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_that_says_what_to_mend(result, name):
    assert_one_line_error(result(name), *ERRORS[name])


def test_a_divergence_names_the_step_and_the_term(result):
    line = result("diverging").err
    assert line.split()[2] in ("distortion", "rate", "gradient")
    assert 0 <= int(line.split("at step ")[1].split(":")[0]) < STEPS


@pytest.mark.parametrize(
    ("name", "folder"), [("negative beta", "a"), ("no latents", "b"), ("unknown dataset", "c")]
)
def test_settings_that_are_refused_leave_no_workdir(launched, name, folder):
    result, other = launched
    assert result(name).code == 1
    assert not (other / folder).exists()


# Workdirs, without starting a script


def a_run(**fields):
    config = {k: fields.pop(k) for k in list(fields) if k in Config.__dataclass_fields__}
    return Run(
        kind="train",
        config=Config(**config),
        members=(Member(**fields),),
        members_per_program=1,
        data_dir=None,
        checkpoint_every=10,
    )


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = a_run(beta=0.1, clip_norm=5.0, epochs=3)
    for i, each in enumerate((run, a_run())):
        claim(tmp_path / str(i), each)
        assert read_run(tmp_path / str(i)) == each


@pytest.mark.parametrize(
    ("field", "value"), [("beta", 2.0), ("seed", 1), ("epochs", 99), ("network", "conv"), ("clip_norm", 1.0)]
)
def test_another_setting_in_the_same_workdir_is_refused_by_name(tmp_path, field, value):
    claim(tmp_path, a_run())
    with pytest.raises(UserError, match=rf"other settings: {field} is \S+ there, not {value}; expected"):
        claim(tmp_path, a_run(**{field: value}))
    assert read_run(tmp_path) == a_run()


def test_more_epochs_are_accepted_and_recorded(tmp_path):
    claim(tmp_path, a_run())
    claim(tmp_path, a_run(epochs=101))
    assert read_run(tmp_path).config.epochs == 101


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {"depth": 3}}'])
def test_a_damaged_config_json_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json (is no JSON|does not describe a run)"):
        read_run(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no run, expected a config\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"epochs": 99}'])
def test_a_summary_that_is_damaged_or_of_fewer_epochs_finishes_nothing(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert finished_summary(tmp_path, a_run()) is None


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.0, "y": float("inf")})
    assert read(tmp_path / "a.json") == {"x": 1.0, "y": None}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read(tmp_path / "a.json") == {"x": 1.0, "y": None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_resumed_log_drops_what_lies_after_its_step(tmp_path):
    log = MetricsLog(tmp_path, members=range(1), step=0)
    log.extend([{"member": 0, "step": step, "epoch": step // 10} for step in (10, 20, 30)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"member": 0, "st')
    resumed = MetricsLog(tmp_path, members=range(1), step=20)
    resumed.extend([{"member": 0, "step": 30, "epoch": 4}])
    assert [(line["step"], line["epoch"]) for line in records(tmp_path)] == [(10, 1), (20, 2), (30, 4)]
