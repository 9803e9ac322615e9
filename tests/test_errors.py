"""Text of people is shown as it is: in pictures, in pages, and on the terminal."""

import io
import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from arrays import pixels
from browser import Browser
from matplotlib.text import Text
from scripts import Scripts

from cvae_jax.errors import (
    AudioError,
    CheckpointError,
    DataError,
    LockedError,
    SettingError,
    UserError,
    printable,
)
from cvae_jax.plots import drawing, latents
from experiments.command_line import cli
from experiments.reports.pages import script_json

NAMES = (
    r"$\frac$", "<!--<script>", "</script><b>bold", "\x1b[31mred", "_hidden", "a\u2028b", "a & b", "{} %s", "$5 and $6",
)  # fmt: skip
ESCAPED = [r"\x1b[31mred" if "\x1b" in name else name.replace("\u2028", r"\u2028") for name in NAMES]


def drawn(figure):
    """The texts of a figure, after it was drawn."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_tables_show_labels_as_they_are():
    n = len(NAMES)
    images = np.zeros((n, n, 4, 4, 1), np.float32)
    for name, shown in zip(NAMES, ESCAPED, strict=True):
        texts = drawn(drawing.image_grid(images, title=name, row_labels=NAMES, column_labels=NAMES))
        assert set(texts) == {shown, *ESCAPED}
    blocks = drawing.image_blocks(
        images[None, :1, :1], title=NAMES[0], block_titles=NAMES[1:2], row_labels=NAMES[2:3]
    )
    assert set(drawn(blocks)) == set(ESCAPED[:3])


def test_legends_show_names_as_they_are():
    points, c = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % len(NAMES)
    texts = drawn(latents.scatter([("PCA", points)], c, class_names=NAMES, title=NAMES[0]))
    assert set(ESCAPED) <= set(texts)


def test_pictures_too_large_to_draw_are_drawn_smaller():
    """Long names and many rows would end a run whose training is over."""
    figure = drawing.image_grid(
        np.zeros((900, 1, 4, 4, 1), np.float32), title="", row_labels=["x" * 10_000] * 900
    )
    assert 20_000 < max(figure.get_size_inches()) * figure.dpi <= 30_000
    assert max(len(text.get_text()) for text in figure.findobj(Text)) == 80


def test_json_in_a_page_holds_no_markup():
    text = script_json({"names": NAMES})
    assert json.loads(text) == {"names": list(NAMES)}
    assert not set(text) & set("<>&\u2028\u2029")


@pytest.mark.parametrize(
    "char", ["\x1b", "\x07", "\x9b", "\r", "\x00", "\u202e", "\u2066", "\ud800", "\u2029"]
)
def test_characters_that_a_terminal_would_obey_are_escaped(char):
    assert printable(f"a{char}b") == f"a{char.encode('unicode_escape').decode()}b"
    assert printable(f"a{char}b\n", keep="\n").endswith("b\n")


def test_other_characters_stay():
    text = "β ≥ 0: “zwölf”, 日本, \U0001f469\u200d\U0001f52c"
    assert printable(text) == text


def test_printed_lines_are_literal():
    stream = io.StringIO()
    print("a\x1b[31m\tb", file=cli.Literal(stream))
    assert stream.getvalue() == "a\\x1b[31m\tb\n"


def test_errors_and_warnings_are_literal_lines(capsys):
    cli.say("error", "class \x1b[31mred\n is none")
    assert capsys.readouterr().err == "error: class \\x1b[31mred is none\n"


@pytest.mark.parametrize("error", [UserError, SettingError, DataError, AudioError, CheckpointError])
def test_an_error_of_a_user_is_explained_by_its_message(error):
    assert cli.explain(error("class is none")) == "class is none"


def test_other_errors_are_faults_of_the_program():
    for error in (ValueError, RuntimeError, LockedError):
        assert cli.explain(error("class is none")) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on classes of such names with its explorer, a sweep on captions of such texts, and what they output."""
    folder = tmp_path_factory.mktemp("runs")
    rows = np.arange(40 * len(NAMES)) % len(NAMES)
    names = np.array(NAMES)[rows]
    np.savez(folder / "own.npz", x_train=pixels(len(rows)), k_train=names, c_train=names)
    tiny = (
        f"--dataset={folder / 'own.npz'}", "--hidden=8", "--latent_dim=2", "--batch_size=100", "--epochs=1",
    )  # fmt: skip
    scripts, workdir = Scripts(tmp_path_factory.mktemp("cache")), f"--workdir={folder / 'run'}"
    with ThreadPoolExecutor(2) as pool:
        sweep = pool.submit(scripts.run, "sweep", *tiny, "--condition=text", f"--workdir={folder / 'sweep'}")
        results = {
            "train": scripts.run("train", *tiny, "--condition=label", "--condition_feature=k", workdir),
            "explorer": scripts.run("explorer", workdir, f"--output={folder / 'explorer.html'}"),
            "sample": scripts.run("sample", workdir, "--label=none", f"--output={folder / 'a.png'}"),
        }
        results["sweep"] = sweep.result()
    return folder, results


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "explorer", "sweep"])
def test_runs_end_whatever_their_classes_and_captions_are_called(trained, script):
    _, results = trained
    assert results[script].code == 0, results[script].err


@pytest.mark.slow
def test_an_error_names_classes_as_they_are(trained):
    output = trained[1]["sample"]
    assert output.code == 1
    assert output.err.startswith("error: label is none, expected one of ")
    assert output.err.count("\n") == 1
    assert all(name.replace(r"\u2028", " ") in output.err for name in ESCAPED)


@pytest.mark.slow
def test_pages_show_names_as_they_are(trained, tmp_path):
    folder, _ = trained
    browser = Browser(tmp_path)
    script = (
        'window.addEventListener("load", () => report({ text: document.querySelector("%s").textContent }));'
    )
    report, explorer = folder / "sweep" / "report.html", folder / "explorer.html"
    for page, place, names in (
        (report, "#samples", ("$\\frac$", "<!--<script>")),
        (explorer, "#classes", NAMES),
    ):
        outcome = browser.outcome(page, script % place)
        assert outcome["errors"] == []
        assert all(name in outcome["text"] for name in names), outcome["text"]
        assert not re.search("<b>bold|<!--<script>", page.read_text(encoding="utf-8"))
