"""`experiments.pictures` and `experiments.explorer` as a person runs them, on a sweep's member with masked latents."""

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from browser import Browser
from scripts import Scripts

from cvae_jax.runs import checkpoints
from cvae_jax.runs.description import record_run
from cvae_jax.runs.run import Run, run_to_record
from cvae_jax.runs.session import abstract_population, open_session, origin_of
from cvae_jax.runs.workdir import read_run, write_json
from cvae_jax.training.config import from_flat, replace

OF_ALL = {"samples", "reconstructions", "traversals", "interpolations", "aggregate_posterior", "latents"}
OF_LABELS = {"traversals_by_class", "label_interpolations", "styles"}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def swept(scripts, tmp_path_factory):
    """The workdir of a sweep of two latent sizes, its parameters drawn at random instead of trained."""
    workdir = tmp_path_factory.mktemp("sweeps") / "swept"
    members = tuple(from_flat(network="conv", latent_dim=latent_dim) for latent_dim in (2, 4))
    run = Run("sweep", members, members_per_program=2, checkpoint_every=1)
    session = open_session(run, scripts.cache)
    rng = np.random.default_rng(0)
    abstract = abstract_population(session, session.parts[0])
    population = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract)
    inner = jax.tree.map(
        lambda a: np.float32(rng.normal(0, 0.3, a.shape)), population.members.best.params["params"]
    )
    params = {"params": inner, "latents": {"mask": np.arange(4) < np.array([[2], [4]])}}
    best = population.members.best.replace(params=params)
    record_run(workdir, run, session.data, session.examples)
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        checkpoints.save(
            manager,
            population.replace(members=population.members.replace(best=best)),
            origin_of(session),
        )
    return workdir


def changed(workdir, folder, **options):
    """A copy of a workdir without its checkpoints, with other options."""
    shutil.copytree(workdir, folder, ignore=shutil.ignore_patterns("checkpoints"))
    run = read_run(workdir)
    run = dataclasses.replace(run, members=tuple(replace(member, **options) for member in run.members))
    write_json(folder / "config.json", run_to_record(run))
    return folder


@pytest.fixture(scope="module")
def launched(scripts, swept, tmp_path_factory):
    """Results of all commands by name, two at a time, and the folder they write to."""
    other = tmp_path_factory.mktemp("other")
    plain = changed(swept, other / "plain", condition="none")
    mixture = changed(swept, other / "mixture", likelihood="logistic_mixture")
    member = (f"--workdir={swept}", "--member=0")
    learned = changed(swept, other / "learned", prior="conditional")
    filmed = changed(swept, other / "filmed", conditioning="film")
    commands = {
        "film": ("explorer", f"--workdir={filmed}", "--member=0", f"--output={other / 'film.html'}"),
        "pictures": ("pictures", *member, "--label=3", f"--output={other / 'drawn'}"),
        "explorer": ("explorer", *member, f"--output={other / 'explorer.html'}"),
        "unknown label": ("pictures", *member, "--label=ten"),
        "no checkpoint": ("explorer", f"--workdir={plain}", "--member=0", f"--output={other / 'none.html'}"),
        "unknown picture": ("pictures", *member, "--only=styles,stiles"),
        "classes of a plain VAE": ("pictures", f"--workdir={plain}", "--member=0", "--only=styles"),
        "N(0, 1) of a learned prior": (
            "pictures",
            f"--workdir={learned}",
            "--member=0",
            "--only=aggregate_posterior",
        ),
        "label of a plain VAE": ("pictures", f"--workdir={plain}", "--member=0", "--label=3"),
        "mixture": ("explorer", f"--workdir={mixture}", "--member=0", f"--output={other / 'mixture.html'}"),
        "not a page": ("explorer", *member, f"--output={other / 'explorer.png'}"),
        "no member": ("pictures", f"--workdir={swept}"),
        "no run": ("explorer", f"--workdir={other / 'nowhere'}"),
    }
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(scripts.run, *command) for name, command in commands.items()}
        yield lambda name: futures[name].result(), other


@pytest.mark.slow
def test_every_picture_is_drawn(launched, swept):
    from matplotlib.image import imread

    result, other = launched
    assert result("pictures").code == 0, result("pictures").err
    assert {path.stem for path in (other / "drawn").iterdir()} == OF_ALL | OF_LABELS
    for name in OF_ALL | OF_LABELS:
        picture = imread(other / "drawn" / f"{name}.png")
        assert min(picture.shape[:2]) > 150
        assert len(np.unique(picture[..., 0])) > 30, name
    assert not (swept / "pictures").exists()


# A headless browser's virtual clock runs ahead of its frames.
FRAMES = """
window.requestAnimationFrame = callback => setTimeout(callback, 16);
window.cancelAnimationFrame = clearTimeout;
"""
ACTS = """
window.addEventListener("load", async () => {
  const sliders = [...document.querySelectorAll("input[type=range]")];
  const classes = [...document.querySelectorAll("#classes button")];
  const pixels = id => {
    const canvas = document.querySelector(id);
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
  };
  const state = () => ({ caption: document.querySelector("#caption").textContent, z: sliders.map(s => Number(s.value)),
    pressed: classes.map(b => b.getAttribute("aria-pressed")), image: pixels("#image"),
    small: pixels("#classes button:nth-child(8) canvas") });
  const outcome = { names: sliders.map(s => s.getAttribute("aria-label")), classes: classes.map(b => b.textContent) };
  const steps = {
    start: () => {},
    seven: () => classes[7].click(),
    moved: () => { sliders[0].value = 2.5; sliders[0].dispatchEvent(new Event("input")); },
    random: () => document.querySelector("#random").click(),
    reset: () => document.querySelector("#reset").click(),
  };
  for (const [name, act] of Object.entries(steps)) {
    act();
    while (frame) await new Promise(resolve => setTimeout(resolve, 20));
    outcome[name] = state();
  }
  outcome.mean = Array.from(decode(model, Float32Array.from([2.5, 0]), 7));
  report(outcome);
});
"""


def test_the_explorer_moves_the_decoder(launched, tmp_path_factory):
    result, other = launched
    assert result("explorer").code == 0, result("explorer").err
    page = other / "explorer.html"
    assert page.stat().st_size < 3e6
    outcome = Browser(tmp_path_factory.mktemp("browser")).outcome(page, ACTS, before=FRAMES)
    assert outcome["errors"] == outcome["fetched"] == []
    assert sorted(outcome["names"]) == ["z0", "z1"]  # not the masked ones
    assert outcome["classes"] == [str(i) for i in range(10)]
    start, seven, moved, drawn, reset = (outcome[k] for k in ("start", "seven", "moved", "random", "reset"))
    assert (start["caption"], seven["caption"]) == ("class 0", "class 7")
    assert [state["pressed"].index("true") for state in (start, seven, reset)] == [0, 7, 7]
    assert (start["z"], moved["z"], reset["z"]) == ([0, 0], [2.5, 0], [0, 0])
    assert 0 not in drawn["z"]
    assert reset["image"] == seven["image"]
    assert len({tuple(state["image"]) for state in (start, seven, moved, drawn)}) == 4
    for state in (seven, moved, drawn):
        assert state["image"] == state["small"]
    shown = np.array(moved["image"]).reshape(64, 4)
    np.testing.assert_allclose(shown[:, 0], 255 * np.array(outcome["mean"]), atol=1)
    assert (shown[:, 3] == 255).all()


ERRORS = {
    "unknown label": ("label is ten, expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",),
    "no checkpoint": ("holds no checkpoint yet",),
    "unknown picture": ("only is stiles, expected some of samples, reconstructions,",),
    "classes of a plain VAE": ("was trained without a condition, expected some of samples,",),
    "N(0, 1) of a learned prior": (
        "was trained with the condition label and the prior conditional, expected some of samples,",
    ),
    "label of a plain VAE": ("was trained without a condition, expected no --label",),
    "mixture": ("has the likelihood logistic_mixture, expected bernoulli or ",),
    "film": ("has the conditioning film, expected concat",),
    "not a page": ("explorer.png, expected a name ending in .html",),
    "no member": ("expected --member=N or --best",),
    "no run": ("holds no run, expected a config.json",),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_that_says_what_to_mend(launched, name):
    result, other = launched
    assert result(name).code == 1
    (line,) = result(name).err.splitlines()
    assert line.startswith("error: ")
    for part in ERRORS[name]:
        assert part in line
    assert not list(other.glob("*.html")) or [p.name for p in other.glob("*.html")] == ["explorer.html"]
