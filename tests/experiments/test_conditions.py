"""Scripts on runs whose condition is a text and a speaker, and completion, as a person runs them."""

import numpy as np
import pytest
from scripts import Scripts, read_json

pytestmark = pytest.mark.slow

N = 240


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Images whose left half is as bright as the text says and whose right half as the speaker."""
    rng = np.random.default_rng(0)
    bright, speaker = rng.integers(0, 2, N), rng.integers(0, 2, N)
    x = np.concatenate([np.full((N, 4, 2), 0.1) + 0.8 * bright[:, None, None],
                        np.full((N, 4, 2), 0.1) + 0.8 * speaker[:, None, None]], axis=2)  # fmt: skip
    path = tmp_path_factory.mktemp("data") / "halves.npz"
    texts = np.array(["dark", "a bright one"])[bright]
    np.savez(path, x_train=x, text_train=texts, speaker_train=np.array(["ann", "bob"])[speaker])
    return path


@pytest.fixture(scope="module")
def trained(scripts, dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "halves"
    result = scripts.run(
        "train", f"--dataset={dataset}", "--condition=text,label", "--condition_feature=text,speaker",
        "--prior=conditional", "--conditioning=film", "--condition_dropout=0.1", "--hidden=64,64", "--latent_dim=2",
        "--batch_size=20", "--epochs=25", "--learning_rate=3e-3", f"--workdir={workdir}",
    )  # fmt: skip
    assert result.code == 0, result.err
    return workdir


@pytest.fixture
def halves(scripts, trained, tmp_path):
    """A function from flags of `sample` to the mean brightness of both halves."""

    def draw(*flags):
        output = tmp_path / "drawn.npz"
        result = scripts.run("sample", f"--workdir={trained}", "--num=8", f"--output={output}", *flags)
        assert result.code == 0, result.err
        with np.load(output) as file:
            return file["x"][..., :2, 0].mean(), file["x"][..., 2:, 0].mean()

    return draw


def test_a_run_leaves_its_pictures(trained):
    assert {path.stem for path in trained.glob("*.png")} >= {"samples", "reconstructions", "traversals"}


def test_text_and_speaker_are_drawn(halves):
    dark, ann = halves("--text=dark", "--speaker=ann")
    bright, bob = halves("--text=a bright one", "--speaker=bob")
    assert max(dark, ann) < 0.3
    assert min(bright, bob) > 0.7


def test_conditions_of_ones_own_are_drawn_in_turn(scripts, trained, tmp_path):
    own, output = tmp_path / "c.npz", tmp_path / "drawn.npz"
    np.savez(own, text=["dark", "a bright one"], speaker=["bob", "ann"])
    flags = (f"--workdir={trained}", f"--condition_file={own}", f"--output={output}", "--num=4")
    result = scripts.run("sample", *flags)
    assert (result.code, result.out) == (0, f"wrote 4 samples to {output}\n")
    with np.load(output) as file:
        left, right = (file["x"][..., columns, 0].mean((1, 2)) for columns in (slice(2), slice(2, None)))
        assert list(file["text"]) == ["dark", "a bright one"] * 2
    assert (left > 0.5).tolist() == [False, True] * 2
    assert (right > 0.5).tolist() == [True, False] * 2


def test_guidance_goes_from_no_condition_to_it(halves):
    one, two = (halves("--text=a bright one", "--speaker=ann", f"--guidance={g}") for g in (0, 1))
    assert 0.3 < one[0] < 0.7
    assert two[0] > 0.7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--text= ",), "text is empty, expected words"),
        (("--text=" + 20 * "long",), "has 80 bytes, expected at most 12"),
        (("--speaker=eve",), "speaker is eve, expected one of ann, bob"),
        (("--label=ann",), "was trained with the condition text,label, expected no --label"),
        (("--example=48",), "example is 48, expected 0 to 47"),
        (("--seed=4294967296",), "seed is 4294967296, expected a whole number ≥ 0 and ≤ 4294967295"),
        (("--num=2000000000",), "num is 2000000000: this takes at least"),
        (("--output=drawn.wav",), "expected a name ending in .png or .npz for samples of"),
        (("--temperature=nan",), "temperature is nan, expected a finite number ≥ 0"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(scripts, trained, flags, message):
    result = scripts.run("sample", f"--workdir={trained}", *flags)
    assert result.code == 1
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_conditions_of_any_kind_are_swept(scripts, dataset, tmp_path):
    result = scripts.run(
        "sweep", f"--dataset={dataset}", "--condition=text,label", "--condition_feature=text,speaker", "--prior=flow",
        "--hidden=16", "--beta=0.5,2", "--latent_dim=1,2", "--batch_size=40", "--epochs=1", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = read_json(tmp_path / "results.json")
    assert [(row["beta"], row["latent_dim"]) for row in rows] == [(0.5, 1), (0.5, 2), (2, 1), (2, 2)]
    assert len({row["test_elbo"] for row in rows}) == 4
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page) > 100_000
    assert '"samples": "samples from the prior, a row per test condition: ' in page


def test_completions_are_compared(scripts, tmp_path):
    flags = (
        "--dataset=digits", "--network=mlp", "--latent_dim=2", "--epochs=2", "--nll_samples=5", "--observed=3",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    result = scripts.run("complete", *flags)
    assert result.code == 0, result.err
    record = read_json(tmp_path / "results.json")
    assert set(record) == {"nll_samples", "nn", "gsnn", "elbo"}
    assert set(record["elbo"]) == {"prior", "posterior"}
    monte_carlo, importance = result.out.split("importance sampling")
    for objective in ("nn", "gsnn", "elbo"):
        score = record[objective]["prior"]
        assert 0 < score["nll"] < 16 * np.log(2)  # a quarter of 64 pixels, better than chance
        assert f"{score['nll']:6.2f} ± {score['standard_error']:.2f}" in monte_carlo
    [by_importance] = [line for line in importance.splitlines() if "±" in line]
    assert f"{record['elbo']['posterior']['nll']:6.2f} ±" in by_importance
    assert (tmp_path / "completions.png").stat().st_size > 10_000
