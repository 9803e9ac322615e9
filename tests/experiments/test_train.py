"""The scripts as a person runs them: outputs, resuming, and errors of one line."""

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scripts import Scripts, metrics_lines, read_json, tensorboard_events, tensorboard_scalars
from tensorboardX.proto import plugin_hparams_pb2

from cvae_jax.runs.workdir import read_run, training_lock
from cvae_jax.training.config import from_flat

EPOCHS = 30
STEPS = EPOCHS * 10
SETTINGS = ("--latent_dim=4", f"--epochs={EPOCHS}", "--checkpoint_every=3")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trained(scripts, tmp_path_factory):
    """The workdir of a finished run, and what its command output."""
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
    emptied = other / "emptied"
    shutil.copytree(workdir, emptied)
    (emptied / "summary.json").write_text("{}")
    (emptied / "metrics.jsonl").unlink()
    (other / "file").write_text("")
    without_config = other / "without_config"
    shutil.copytree(workdir, without_config)
    for name in ("config.json", "samples.png"):
        (without_config / name).unlink()
    shutil.copytree(without_config, other / "other_without_config")
    shutil.copytree(workdir, other / "elsewhere")
    again = ("train", *SETTINGS, f"--workdir={workdir}")
    np.savez(other / "sevens.npz", c=np.full(5, 7))
    np.savez(other / "ten.npz", c=[10])
    look = (f"--workdir={workdir}", "--seed=3", "--num=5")
    own = (f"--workdir={workdir}", "--seed=3", f"--condition_file={other / 'sevens.npz'}")
    commands = {
        "evaluate": (
            "evaluate", f"--workdir={workdir}", "--nll_samples=20", f"--nll_output={other / 'nll.npz'}"
        ),
        "no samples": ("evaluate", f"--workdir={workdir}", f"--nll_output={other / 'no.npz'}"),
        "no factors": ("evaluate", f"--workdir={workdir}", "--disentanglement"),
        "no draws": ("evaluate", f"--workdir={workdir}", "--nll_samples=0"),
        "damaged": ("evaluate", f"--workdir={damaged}"),
        "png": ("sample", *look, "--label=7", f"--output={other / 'seven.png'}"),
        "npz": ("sample", *look, "--label=7", f"--output={other / 'seven.npz'}"),
        "own": ("sample", *own, f"--output={other / 'own.npz'}"),
        "unknown own": ("sample", *look[:1], f"--condition_file={other / 'ten.npz'}"),
        "unknown label": ("sample", *look, "--label=ten", f"--output={other / 'ten.png'}"),
        "continued": (
            "train", *SETTINGS, f"--epochs={EPOCHS + 2}", f"--workdir={continued}", "--nll_samples=2"
        ),
        "stages": ("reproduce", "--experiment=iwae-k5", "--stages=9", f"--workdir={other / 'stages'}"),
        "again": again,
        "emptied": ("train", *SETTINGS, f"--workdir={emptied}"),
        "other beta": (*again, "--beta=2"),
        "no config": ("train", *SETTINGS, f"--workdir={without_config}"),
        "other without config": (
            "train", *SETTINGS, "--beta=2", f"--workdir={other / 'other_without_config'}"
        ),
        "other data_dir": ("train", *SETTINGS, f"--workdir={other / 'elsewhere'}", f"--data_dir={other}"),
        "another objective's option": ("train", "--mi_weight=2", f"--workdir={other / 'e'}"),
        "negative beta": ("train", "--beta=-1", f"--workdir={other / 'a'}"),
        "no latents": ("train", "--latent_dim=0", f"--workdir={other / 'b'}"),
        "unknown dataset": ("train", "--dataset=fashion_mnits", f"--workdir={other / 'c'}"),
        "diverging": ("train", *SETTINGS, "--learning_rate=1e6", f"--workdir={other / 'd'}"),
        "a file": ("train", f"--workdir={other / 'file'}"),
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(scripts.run, *command) for name, command in commands.items()}
        yield lambda name: futures[name].result(), other


@pytest.fixture
def result(launched):
    return launched[0]


def repeatable(summary):
    return {k: v for k, v in summary.items() if k not in ("seconds", "examples_per_second")}


# What a run leaves behind


def test_config_json_describes_the_run(trained):
    run = read_run(trained[0])
    assert run.members == (from_flat(epochs=EPOCHS, latent_dim=4),)
    assert run.checkpoint_every == 3


def test_metrics_jsonl_has_a_line_per_epoch(trained):
    lines = metrics_lines(trained[0])
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
    summary = read_json(trained[0] / "summary.json")
    assert set(summary) == {
        "validation", "test", "pictures", "best_epoch", "stopped_epoch", "epochs", "steps", "seconds",
        "examples_per_second", "params",
    }  # fmt: skip
    assert summary["stopped_epoch"] is None
    assert (summary["epochs"], summary["steps"]) == (EPOCHS, STEPS)
    elbos = [line["validation"]["elbo"] for line in metrics_lines(trained[0])]
    assert summary["best_epoch"] == 1 + int(np.argmax(elbos))
    np.testing.assert_allclose(summary["validation"]["elbo"], max(elbos), rtol=1e-5)
    for split in ("validation", "test"):
        metrics = summary[split]
        assert metrics["elbo"] == -(metrics["rate"] + metrics["distortion"])
    test = summary["test"]
    assert test["mutual_information"] + test["aggregate_kl"] == pytest.approx(test["rate"], rel=1e-12)
    within = test["conditional_mutual_information"]
    assert within + test["conditional_aggregate_kl"] == pytest.approx(test["rate"], rel=1e-12)
    assert within + test["label_information"] == pytest.approx(test["mutual_information"], rel=1e-12)
    assert 0 < within < test["mutual_information"]
    assert 0 < test["active_units"] <= 4
    assert 0 < test["reconstruction_mse"] < 0.25
    assert test["reconstruction_psnr"] > 6
    assert 0.1 < test["reconstruction_ssim"] < 1
    assert test["ssim_window"] == 3
    np.testing.assert_allclose(summary["examples_per_second"] * summary["seconds"], STEPS * 128)


def test_tensorboard_shows_what_metrics_jsonl_says(trained):
    assert_tensorboard_agrees(trained[0])


def test_tensorboard_has_settings_and_pictures(trained):
    files = (trained[0] / "tensorboard").glob("events.out.*")
    values = [value for file in files for event in tensorboard_events(file) for value in event.summary.value]
    images = {value.tag: (value.image.height, value.image.width) for value in values if value.image.height}
    assert images == {"samples": (89, 53), "reconstructions": (17, 89)}
    (start,) = (value for value in values if value.tag == "_hparams_/session_start_info")
    content = plugin_hparams_pb2.HParamsPluginData.FromString(start.metadata.plugin_data.content)
    assert content.session_start_info.hparams["latent_dim"].number_value == 4


def assert_tensorboard_agrees(workdir):
    """Every scalar of `metrics.jsonl` and of the test split once, as its reader has them: it drops what is purged."""
    expected = [
        (f"{split}/{name}", line["step"], np.float32(value))
        for line in metrics_lines(workdir)
        for split in ("train", "validation")
        for name, value in line[split].items()
    ]
    test = read_json(workdir / "summary.json")["test"]
    expected += [(f"test/{name}", STEPS, np.float32(value)) for name, value in test.items()]
    assert sorted(tensorboard_scalars(workdir)["."]) == sorted(expected)


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
    workdir, output = trained
    elbo = read_json(workdir / "summary.json")["test"]["elbo"]
    assert f"test elbo {elbo:.2f}" in output.out.splitlines()[-1]
    assert output.err == ""


# Commands on a finished run


def test_the_same_command_says_it_is_finished(trained, result):
    assert result("again").code == 0
    assert f"{trained[0]} is finished: {EPOCHS} epochs" in result("again").out
    assert result("again").err == ""


@pytest.mark.slow
def test_a_finished_run_gets_back_what_it_lacks_its_checkpoint_saying_whose_it_is(trained, launched):
    result, other = launched
    assert result("no config").err == ""
    assert f"pictures are drawn again in {other / 'without_config'}" in result("no config").out
    assert f"is finished: {EPOCHS} epochs" in result("no config").out
    for name in ("samples.png", "config.json", "summary.json", "metrics.jsonl"):
        assert (other / "without_config" / name).read_bytes() == (trained[0] / name).read_bytes()


def test_other_settings_without_config_json_are_refused_by_the_checkpoint(launched):
    result, other = launched
    assert_one_line_error(
        result("other without config"), f"checkpoint {STEPS} in ", "beta is 1.0 there, not 2.0"
    )
    assert not (other / "other_without_config" / "config.json").exists()


def test_another_data_dir_of_the_same_data_is_recorded(launched):
    result, other = launched
    assert result("other data_dir").err == ""
    assert f"is finished: {EPOCHS} epochs" in result("other data_dir").out
    assert read_run(other / "elsewhere").data_dir == str(other)


def test_a_second_process_says_who_trains_in_a_workdir_and_ends(scripts, tmp_path):
    with training_lock(tmp_path / "run"):
        result = scripts.run("train", *SETTINGS, f"--workdir={tmp_path / 'run'}")
        assert_one_line_error(result, f"run is being written by process {os.getpid()} on ", "another workdir")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["train.lock"]
    # Nothing is left of a run that came to nothing.
    assert not (tmp_path / "run").exists()


def test_a_run_without_its_summary_and_metrics_is_summarized_again(trained, launched):
    result, other = launched
    assert result("emptied").code == 0, result("emptied").err
    summary, again = (read_json(folder / "summary.json") for folder in (trained[0], other / "emptied"))
    assert repeatable(again) == repeatable(summary)


def test_more_epochs_continue_the_run(trained, launched):
    result, other = launched
    assert result("continued").code == 0, result("continued").err
    assert f"resuming at step {STEPS} of {STEPS + 20}" in result("continued").out
    summary = read_json(other / "continued" / "summary.json")
    assert summary["epochs"] == EPOCHS + 2
    assert summary["test"]["nll_samples"] == 2
    assert -summary["test"]["elbo"] - 2 < summary["test"]["conditional_nll"] < -summary["test"]["elbo"]
    assert read_run(other / "continued").config.epochs == EPOCHS + 2
    lines = metrics_lines(other / "continued")
    assert len(lines) == EPOCHS + 2
    assert lines[:EPOCHS] == metrics_lines(trained[0])


def test_evaluate_repeats_the_summary_to_the_last_digit(trained, launched):
    result, other = launched
    assert result("evaluate").code == 0, result("evaluate").err
    summary, metrics = read_json(trained[0] / "summary.json"), json.loads(result("evaluate").out)
    names = ("conditional_nll", "conditional_nll_standard_error", "nll_samples")
    nll, error, count = map(metrics["test"].pop, names)
    assert metrics == {name: summary[name] for name in ("validation", "test", "best_epoch")}
    assert count == 20
    assert 0 < error < 1
    assert -metrics["test"]["elbo"] - 3 < nll < -metrics["test"]["elbo"]
    with np.load(other / "nll.npz") as file:
        assert file["conditional_nll"].shape == file["c"].shape == (359,)
        assert file["conditional_nll"].mean() == pytest.approx(nll, rel=1e-12)
        assert file["conditional_nll"].std(ddof=1) / np.sqrt(359) == pytest.approx(error, rel=1e-12)


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


def test_conditions_of_ones_own_are_drawn_one_each(launched):
    result, other = launched
    assert result("own").out == f"wrote 5 samples to {other / 'own.npz'}\n"
    assert result("npz").code == 0
    with np.load(other / "own.npz") as own, np.load(other / "seven.npz") as seven:
        np.testing.assert_array_equal(own["x"], seven["x"])
        np.testing.assert_array_equal(own["c"], np.full(5, 7))
    expected = "c: the label runs from 10 to 10, expected whole numbers from 0 to 9"
    assert result("unknown own").err == f"error: {other / 'ten.npz'}: {expected}\n"


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


@pytest.mark.slow
def test_a_run_killed_and_terminated_ends_as_an_undisturbed_one(scripts, trained, tmp_path):
    workdir = tmp_path / "run"
    command = ("train", *SETTINGS, f"--workdir={workdir}")

    killed = scripts.start(*command)
    checkpoints = workdir / "checkpoints"
    wait_until(lambda: checkpoints.exists() and any(f.name.isdigit() for f in checkpoints.iterdir()), killed)
    killed.kill()
    assert scripts.end(killed).code == -signal.SIGKILL
    epoch = len(metrics_lines(workdir))
    assert 3 <= epoch < EPOCHS - 5
    assert not (workdir / "summary.json").exists()

    terminated = scripts.start(*command)
    wait_until(lambda: len(metrics_lines(workdir)) > epoch, terminated)
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
    assert metrics_lines(workdir) == metrics_lines(undisturbed)
    summaries = [repeatable(read_json(folder / "summary.json")) for folder in (workdir, undisturbed)]
    assert summaries[0] == summaries[1]
    assert_tensorboard_agrees(workdir)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_once(scripts, trained, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,ro", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("this system does not let even root mount")
    try:
        result = scripts.run("train", *SETTINGS, f"--workdir={folder.parent}")
        ended = time.time()
        assert_one_line_error(result, "checkpoints: Read-only file system")
        # Three epochs, of which the last is the first to have a checkpoint.
        assert len(metrics_lines(folder.parent)) == 3
        assert ended - (folder.parent / "metrics.jsonl").stat().st_mtime < 10
    finally:
        subprocess.run(["umount", folder], check=True)


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
    "another objective's option": (
        "mi_weight is 2.0, expected none with the objective elbo: it is an option of the objective tcvae",
    ),
    "no latents": ("latent_dim is 0, expected a whole number ≥ 1",),
    "unknown dataset": ("unknown dataset 'fashion_mnits'", "did you mean fashion_mnist"),
    "diverging": (" is not finite at step ", "learning_rate"),
    "no factors": ("digits has none", "expected shapes"),
    "no draws": ("nll_samples is 0, expected a whole number ≥ 1",),
    "no samples": ("no.npz, expected a name ending in .npz, with --nll_samples",),
    "stages": ("stages is 9, expected 1 to 8",),
    "a file": ("file is a file, expected a folder",),
    "other beta": ("beta is 1.0 there, not 2.0", "expected the same, or another workdir"),
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
