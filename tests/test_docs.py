"""README and the pages of `docs/`: their Python runs, their commands can be given, their links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cvae_jax as cj

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TRAINED = "runs/digits-mlp-beta1-z16-seed0"
# What the pages start besides the project's own scripts.
OTHER_PROGRAMS = ("git", "pip", "python", "tensorboard")
OTHER_FLAGS = {"help", "logdir"}
READING = ("evaluate", "sample", "pictures", "explorer", "export_member")

of_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
of_docs = pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)


def python_of(page):
    return [block for language, block in FENCE.findall(TEXTS[page]) if language == "python"]


def prose_of(page):
    return FENCE.sub("", TEXTS[page])


def lines_of(page):
    """The command lines of a page, those within a sentence or a table, too."""
    blocks = [block for language, block in FENCE.findall(TEXTS[page]) if language != "python"]
    # A drawing is no block of commands.
    lines = [line for block in blocks if "──" not in block for line in block.splitlines() if line.strip()]
    return lines + re.findall(r"`(\./launch\.sh [^`]+)`", prose_of(page))


def launched():
    """The commands of `launch.sh` that start a script."""
    (names,) = re.findall(
        r"^ +(train \|.*)\)$", (ROOT / "launch.sh").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {*names.split(" | "), "prepare"}


def script_of(line):
    """The module and the arguments of a command line, None if it starts none of the project's scripts."""
    program, *words = shlex.split(line, comments=True)
    if program == "./launch.sh":
        command, *arguments = words
        if command in ("help", "setup", "test") or "--help" in arguments:
            assert command in ("help", "setup", "test") or command in launched() or command == "COMMAND", line
            return None
        assert command in launched(), line
        return [f"experiments.{command}", *arguments]
    if program == ".venv/bin/python" and words[0] == "-m":
        # It passes all flags on.
        return ["experiments.train" if words[1] == "benchmarks.memory" else words[1], *words[2:]]
    assert program in OTHER_PROGRAMS, line
    return None


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Every command of the pages with what its script says to it, and the names of all flags."""
    own = tmp_path_factory.mktemp("own")
    (own / "parts.py").write_text("\n".join(python_of(ROOT / "docs" / "extending.md")[:-1]), encoding="utf-8")
    found = [
        (page, line, command) for page in PAGES for line in lines_of(page) if (command := script_of(line))
    ]
    done = subprocess.run(
        [sys.executable, "tests/commands.py"],
        cwd=ROOT,
        env={"PYTHONPATH": os.pathsep.join(map(str, (ROOT, own)))},
        input=json.dumps([command for *_, command in found]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(found) > 40
    return [(*each, *answer) for each, answer in zip(found, said["answers"], strict=True)], set(said["flags"])


def test_every_command_can_be_given(commands):
    assert [(page.name, line, error) for page, line, _, error, _ in commands[0] if error] == []


def test_every_flag_in_a_sentence_exists(commands):
    for page in PAGES:
        named = {
            flag
            for span in re.findall(r"`([^`\n]+)`", prose_of(page))
            for flag in re.findall(r"--([a-z_]+)", span)
        }
        known = commands[1] | {f"no{flag}" for flag in commands[1]} | OTHER_FLAGS
        assert named - known == set(), page.name


def test_a_folder_that_a_command_reads_is_made_by_another(commands):
    python = "".join(block for page in PAGES for block in python_of(page))
    made = set(re.findall(r'workdir="(.*?)"', python))
    read = set(re.findall(r'load\("(.*?)"\)', python + "".join(map(prose_of, PAGES)))) - {"runs/..."}
    for _, _, (module, *_), _, folder in commands[0]:
        (read if module.removeprefix("experiments.") in READING else made).add(folder)
    assert TRAINED in made
    assert read - {None} <= made


@pytest.mark.parametrize(
    "page",
    [README, *(pytest.param(page, marks=pytest.mark.slow) for page in DOCS)],
    ids=lambda page: page.stem,
)
def test_python_runs(page, tmp_path, monkeypatch):
    if page.stem == "extending":
        pytest.skip("tests/test_extending.py runs it")
    blocks = python_of(page)
    monkeypatch.chdir(tmp_path)
    if any(TRAINED in block for block in blocks):
        config = cj.Config(objective=cj.Elbo(beta=4.0), epochs=1)
        cj.fit(config, cj.dataset(config), workdir=TRAINED)
    names = {}
    for block in blocks:
        exec(block, names)
    RESULTS.get(page.stem, lambda names: None)(names)


def _of_readme(names):
    assert names["images"].shape == (3, 8, 8, 1)
    assert names["z"].shape == (5, 4)


def _of_python(names):
    assert names["sevens"].shape == (16, 8, 8, 1)
    assert [len(names["many"]), len(names["rows"])] == [6, 6]
    weights = {"w": names["jnp"].ones((2, 5))}
    rest = (names["encode"], names["decode"], names["x"], 0.0, names["keys"], 1.0)
    assert names["per_example"](weights, *rest).shape == (8,)
    assert names["states"].diverged_step.tolist() == [-1] * 6


def _of_sampling(names):
    assert names["sevens"].shape == (16, 8, 8, 1)


RESULTS = {"README": _of_readme, "python": _of_python, "sampling": _of_sampling}


def test_the_program_of_the_readme_is_short():
    (program,) = python_of(README)
    lines = [line for line in program.splitlines() if line.strip()]
    assert len(lines) <= 10
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert imports == ["import numpy as np", "import cvae_jax as cj"]


def test_the_readme_is_short_and_leads_to_every_page():
    assert len(TEXTS[README].splitlines()) <= 200
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((docs/.*?)\)", TEXTS[README])}
    assert linked >= {f"docs/{page.name}" for page in DOCS}


def anchor(heading):
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(page, level="##+"):
    return re.findall(rf"^{level} (.+)$", prose_of(page), re.MULTILINE)


@of_docs
def test_a_page_begins_with_its_contents(page):
    contents = re.findall(r"^- \[(.+?)\]\(#(.+?)\)$", prose_of(page), re.MULTILINE)
    assert contents == [(heading, anchor(heading)) for heading in headings(page, "##")]
    assert contents


@of_pages
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)(.*?)\)", prose_of(page)):
        path, _, place = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        assert not place or place in map(anchor, headings(to)), target
        assert to.suffix == ".md" or to.stat().st_size > 1000, target


@of_pages
def test_every_file_in_a_sentence_exists(page):
    for name in re.findall(r"`((?:benchmarks|cvae_jax|experiments|tests|docs)/[\w./]+)`", prose_of(page)):
        base = ROOT if (ROOT / name).exists() else ROOT / "cvae_jax"
        assert (base / name).exists(), name
