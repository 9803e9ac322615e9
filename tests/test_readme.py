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
        assert names["per_example"](
            {"w": names["jnp"].ones((2, 5))},
            names["encode"],
            names["decode"],
            names["x"],
            0.0,
            names["keys"],
            1.0,
        ).shape == (8,)
    else:
        assert names["states"].diverged_step.shape == (6,)
        assert (names["states"].diverged_step == -1).all()


def test_both_uses_are_shown():
    assert len(SNIPPETS) == 2


def test_every_figure_of_the_readme_exists():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[1] / path).stat().st_size > 1000
