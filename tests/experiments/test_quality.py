"""`--sample_quality` as a person gives it: in a run's summary and in an evaluation."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scripts import Scripts, read_json

NAMES = {
    "classifier_test_accuracy", "conditional_accuracy", "lowest_class_accuracy", "diversity",
    "lowest_class_diversity", "classification_accuracy_score", "classifier_frechet_distance",
    "real_frechet_distance", "classifier_kernel_distance", "real_kernel_distance", "precision", "real_precision",
    "recall", "real_recall", "precision_recall_k", "compared_images", "judged", "judges", "temperature",
}  # fmt: skip


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Bright and dark noise: small images, so that classifiers train in no time."""
    rng = np.random.default_rng(0)
    c = np.arange(400) % 2
    x = rng.uniform(size=(400, 4, 4)) * np.where(c == 0, 0.3, 1.0)[:, None, None]
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(path, x_train=x, c_train=c)
    return path


@pytest.fixture(scope="module")
def results(dataset, tmp_path_factory):
    """What each command output, and where the workdirs are."""
    scripts, folder = Scripts(tmp_path_factory.mktemp("cache")), tmp_path_factory.mktemp("runs")
    settings = (f"--dataset={dataset}", "--epochs=2", "--latent_dim=2", "--sample_quality")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 5, 2048))
    np.savez(folder / "features.npz", real=features[0], generated=features[0] + 2)
    train = ("train", *settings, f"--workdir={folder / 'one'}")
    output = {"train": scripts.run(*train)}
    assert output["train"].code == 0, output["train"].err
    commands = {
        "again": train,
        "evaluate": (
            "evaluate", f"--workdir={folder / 'one'}", "--sample_quality",
            f"--inception_features={folder / 'features.npz'}",
        ),
        "middle": ("evaluate", f"--workdir={folder / 'one'}", "--sample_quality", "--temperature=0"),
        "temperature alone": ("evaluate", f"--workdir={folder / 'one'}", "--temperature=0.5"),
        "cold": ("evaluate", f"--workdir={folder / 'one'}", "--sample_quality", "--temperature=-1"),
        "two judges": ("evaluate", f"--workdir={folder / 'one'}", "--sample_quality", "--judges=2"),
        "judges alone": ("evaluate", f"--workdir={folder / 'one'}", "--judges=2"),
        "no judge": ("evaluate", f"--workdir={folder / 'one'}", "--sample_quality", "--judges=0"),
        "no condition": ("train", *settings, "--condition=none", f"--workdir={folder / 'none'}"),
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(scripts.run, *command) for name, command in commands.items()}
    return output | {name: future.result() for name, future in futures.items()}, folder


def test_a_summary_holds_sample_quality(results):
    output, folder = results
    quality = read_json(folder / "one" / "summary.json")["sample_quality"]
    assert set(quality) == NAMES
    assert quality["classifier_test_accuracy"] > 0.95
    assert "training the classifier that judges samples of noise" in output["train"].err


def test_an_evaluation_says_the_same_without_training_the_judge_again(results):
    output, folder = results
    assert output["evaluate"].code == 0, output["evaluate"].err
    assert "training the classifier" not in output["evaluate"].err
    record = json.loads(output["evaluate"].out)
    expected = read_json(folder / "one" / "summary.json")["sample_quality"]
    assert set(record["sample_quality"]) == NAMES
    for name, value in expected.items():
        assert record["sample_quality"][name] == (
            value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
        )
    # The covariances are the same, the means differ by 2 along each of 2048 axes.
    assert record["fid"] == pytest.approx(4 * 2048, rel=1e-9)
    assert (record["fid_real_images"], record["fid_generated_images"]) == (5, 5)


def test_samples_are_judged_at_a_temperature(results):
    """At 0 all samples of a class are one picture."""
    output, folder = results
    middle = json.loads(output["middle"].out)["sample_quality"]
    usual = read_json(folder / "one" / "summary.json")["sample_quality"]
    assert (middle["temperature"], usual["temperature"]) == (0, 1)
    assert middle["diversity"] == pytest.approx(0, abs=1e-6)
    assert usual["diversity"] > 1e-4
    assert "temperature is 0.5, expected none without --sample_quality" in output["temperature alone"].err
    assert "temperature is -1.0, expected a finite number ≥ 0" in output["cold"].err


def test_two_judges_say_how_far_they_differ(results):
    output, folder = results
    two = json.loads(output["two judges"].out)["sample_quality"]
    one = read_json(folder / "one" / "summary.json")["sample_quality"]
    measured = {name for name, value in one.items() if isinstance(value, float)} - {"temperature"}
    assert set(two) == NAMES | {f"{name}_judge_sd" for name in measured}
    assert two["judges"] == 2
    name = "classifier_frechet_distance"
    assert two[f"{name}_judge_sd"] == pytest.approx(abs(two[name] - one[name]) * np.sqrt(2), rel=1e-4)
    assert "judges is 2, expected none without --sample_quality" in output["judges alone"].err
    assert "judges is 0, expected a whole number ≥ 1" in output["no judge"].err


def test_a_judged_run_is_finished(results):
    assert "is finished: 2 epochs" in results[0]["again"].out


def test_without_a_condition_it_is_refused_in_one_line(results):
    output, folder = results
    assert output["no condition"].code == 1
    assert "condition is none, expected label with --sample_quality" in output["no condition"].err
    assert len(output["no condition"].err.splitlines()) == 1
    assert not (folder / "none").exists()
