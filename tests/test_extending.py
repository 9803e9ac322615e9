"""Parts from outside the package: those of `docs/extending.md`, through all that a run goes through."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compiling import QUICKLY

import cvae_jax as cj

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FLAGS = (
    "--network=outside_parts:Small",
    "--likelihood=outside_parts:Laplace",
    "--prior=outside_parts:Wide",
    "--objective=outside_parts:SquaredRate",
    "--condition=outside_parts:Angle",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the parts as a module, and data for them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "outside_parts.py").write_text("\n".join(SNIPPETS[:-1]), encoding="utf-8")
    rng = np.random.default_rng(0)
    c = rng.uniform(0.0, 360.0, size=300).astype(np.float32)
    np.savez(folder / "own.npz", x_train=rng.uniform(size=(300, 8, 8)).astype(np.float32), c_train=c)
    return folder


@pytest.fixture(scope="module")
def parts(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("outside_parts")


@pytest.fixture(scope="module")
def script(folder):
    """A function that runs a script in a process of its own, which finds the module."""

    def run(name, *flags):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
            "XLA_FLAGS": " ".join(QUICKLY),
        }
        command = [sys.executable, "-m", f"experiments.{name}", f"--cache_dir={folder}/cache", *flags]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_each_part_is_shown_in_under_20_lines():
    classes = re.findall(r"^(?:@dataclasses\S*\n)?class .*?(?=^\S|\Z)", "\n".join(SNIPPETS), re.M | re.S)
    assert len(classes) >= 8
    assert max(len(text.strip().splitlines()) for text in classes) < 20
    for snippet in SNIPPETS[1:-1]:
        assert len(snippet.strip().splitlines()) < 26  # imports and two classes at most


def test_the_page_runs_as_it_stands(parts):
    names = dict(vars(parts))
    exec(SNIPPETS[-1], names)
    assert names["new"].shape == (3, 8, 8, 1)
    assert [member.config.latent_dim for member in names["many"]] == [2, 4, 2, 4]
    run = names["run"]
    assert run.encode(names["x"][:3], names["c"][:3]).mean.shape == (3, 16)
    assert np.isfinite(run.evaluate(names["data"])["elbo"])


def test_the_condition_reaches_the_decoder(parts):
    rng = np.random.default_rng(0)
    data = cj.from_arrays(rng.uniform(size=(60, 8, 8)), rng.uniform(0, 360, size=60), condition=parts.Angle())
    config = cj.Config(
        network=parts.Small(), likelihood=parts.Laplace(), condition=parts.Angle(), batch_size=16, epochs=2
    )
    run = cj.fit(config, data)
    z = np.zeros((2, 16))
    assert np.abs(np.diff(run.decode(z, [0.0, 180.0]), axis=0)).max() > 1e-3


@pytest.mark.slow
def test_scripts_train_resume_sweep_evaluate_sample_and_draw(folder, parts, script):
    common = ("--dataset=own.npz", *FLAGS, "--latent_dim=3", "--batch_size=32")
    script("train", *common, "--epochs=1", "--workdir=run")
    assert "resuming" in script("train", *common, "--epochs=2", "--workdir=run")
    for name in ("samples.png", "reconstructions.png", "summary.json", "config.json"):
        assert (folder / "run" / name).stat().st_size > 100
    assert '"elbo"' in script("evaluate", "--workdir=run", "--nll_samples=3")
    script("sample", "--workdir=run", "--output=new.npz", "--num=4")
    assert np.load(folder / "new.npz")["x"].shape == (4, 8, 8, 1)
    assert script("sweep", *common, "--beta=0.5,1", "--epochs=1", "--workdir=sweep").count("\n") >= 3
    script("sample", "--workdir=sweep", "--member=1", "--output=new.png", "--num=4")
    assert (folder / "new.png").stat().st_size > 100
    # What scripts train is there for Python, too, and does not need the data.
    assert cj.load(folder / "run").sample([0.0, 90.0]).shape == (2, 8, 8, 1)
    assert len(cj.load(folder / "sweep")) == 2


def test_a_run_of_outside_parts_is_loaded_by_name(folder, parts):
    data = cj.from_arrays(np.random.default_rng(0).uniform(size=(60, 8, 8)))
    config = cj.Config(network=parts.Small(), likelihood=parts.Laplace(scale=0.2), batch_size=16, epochs=1)
    run = cj.fit(config, data, workdir=folder / "api")
    again = cj.load(folder / "api")
    assert again.config == run.config
    np.testing.assert_array_equal(again.sample(num=3), run.sample(num=3))
