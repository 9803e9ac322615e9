"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda s: s.splitlines()[-1][:30])
def test_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)
    if "per_example" in names:
        weights = {"w": names["jnp"].ones((2, 5))}
        rest = (names["encode"], names["decode"], names["x"], 0.0, names["keys"], 1.0)
        assert names["per_example"](weights, *rest).shape == (8,)
    elif "states" in names:
        assert names["states"].diverged_step.shape == (6,)
        assert (names["states"].diverged_step == -1).all()
    else:
        assert names["images"].shape == (3, 8, 8, 1)
        assert names["z"].shape == (5, 4)


def test_the_own_data_program_is_short():
    program = next(snippet for snippet in SNIPPETS if "from_arrays" in snippet)
    lines = [line for line in program.splitlines() if line.strip()]
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert len(lines) <= 10
    assert imports == ["import numpy as np", "import cvae_jax as cj"]


def test_all_uses_are_shown():
    assert len(SNIPPETS) == 3


def test_every_figure_of_the_readme_exists():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[1] / path).stat().st_size > 1000
