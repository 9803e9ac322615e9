"""A finished run is complete in itself: what needs no data works when their file is gone; the rest asks for it."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scripts import Scripts, read_json

import cvae_jax as cj

N = 60
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def launched(scripts, tmp_path_factory):
    """Results of commands on a sweep and a run whose data were moved, by name, and the folder of all."""
    folder = tmp_path_factory.mktemp("moved")
    rng, names = np.random.default_rng(0), np.array(["circle", "ring"])
    own, vectors, moved = folder / "own.npz", folder / "vectors.npz", folder / "elsewhere.npz"
    x = rng.integers(0, 256, (N, 8, 8), np.uint8)
    np.savez(own, x_train=x, c_train=names[np.arange(N) % 2])
    np.savez(vectors, x_train=x, c_train=rng.normal(size=(N, 3)))
    small = ("--hidden=16", "--latent_dim=3", "--epochs=1", "--batch_size=8")
    swept, run = f"--workdir={folder / 'swept'}", f"--workdir={folder / 'run'}"
    with ThreadPoolExecutor(2) as pool:
        trainings = [
            pool.submit(
                scripts.run, "sweep", f"--dataset={own}", "--condition=label", "--seed=0,1", *small, swept
            ),
            pool.submit(scripts.run, "train", f"--dataset={vectors}", *small, run),
        ]
        for training in trainings:
            assert training.result().code == 0, training.result().err
        shutil.move(own, moved)
        vectors.unlink()
        one = (swept, "--member=1")
        commands = {
            "sample": ("sample", *one, "--label=ring", f"--output={folder / 'rings.npz'}"),
            "sample vectors": ("sample", run, f"--output={folder / 'vectors.png'}"),
            "example": ("sample", run, "--example=3", f"--output={folder / 'example.png'}"),
            "explorer": ("explorer", *one, f"--output={folder / 'explorer.html'}"),
            "pictures": ("pictures", *one, f"--output={folder / 'drawn'}"),
            "pictures with data": (
                "pictures", *one, f"--dataset={moved}", "--only=latents", f"--output={folder / 'drawn'}"
            ),
            "export": ("export_member", *one, f"--output={folder / 'exported'}"),
            "evaluate": ("evaluate", *one),
            "evaluate moved": ("evaluate", *one, f"--dataset={moved}"),
        }  # fmt: skip
        futures = {name: pool.submit(scripts.run, *command) for name, command in commands.items()}
        yield {name: future.result() for name, future in futures.items()}, folder


@pytest.mark.parametrize("name", ["sample", "sample vectors", "explorer", "export", "evaluate moved"])
def test_it_works_without_the_data(launched, name):
    result = launched[0][name]
    assert (result.code, result.err) == (0, "")


def test_samples_are_of_the_class(launched):
    with np.load(launched[1] / "rings.npz") as file:
        np.testing.assert_array_equal(file["c"], 1)


@pytest.mark.parametrize(
    ("name", "file", "run"), [("evaluate", "own.npz", "swept"), ("example", "vectors.npz", "run")]
)
def test_what_needs_the_data_asks_for_them_in_one_line(launched, name, file, run):
    results, folder = launched
    expected = (
        f"{folder / file} does not exist, expected the data of {folder / run}: set --dataset to their file"
    )
    assert (results[name].code, results[name].err) == (1, f"error: {expected}\n")


def test_pictures_are_drawn_but_those_of_the_whole_test_split(launched):
    results, folder = launched
    result = results["pictures"]
    assert result.code == 1
    assert result.out.startswith("wrote samples.png, reconstructions.png, traversals.png, ")
    (line,) = result.err.splitlines()
    assert line.startswith("error: aggregate_posterior.png and latents.png not drawn: ")
    assert line.endswith(": set --dataset to their file")
    assert (folder / "drawn" / "styles.png").exists()
    assert results["pictures with data"].code == 0
    assert (folder / "drawn" / "latents.png").exists()


def test_an_exported_member_has_the_sweeps_results(launched):
    _, folder = launched
    summary, row = (read_json(folder / name) for name in ("exported/summary.json", "swept/results.json"))
    for split in ("validation", "test"):
        for name, value in summary[split].items():
            assert row[1][f"{split}_{name}"] == value
    assert (summary["epochs"], summary["best_epoch"], summary["steps"]) == (1, 1, 5)
    for name in summary["pictures"]:
        assert (folder / "exported" / name).exists()
    assert "traversals.png" in summary["pictures"]


def test_it_is_loaded_in_python(launched):
    models = cj.load(launched[1] / "swept")
    images = models[1].sample(["ring", "circle"])
    assert images.shape == (2, 8, 8, 1)
    exported = cj.load(launched[1] / "exported")
    np.testing.assert_allclose(exported.sample(["ring", "circle"]), images, atol=1e-6)
