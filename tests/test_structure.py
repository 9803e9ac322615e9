"""The structure of the code: which package may import which, no cycles, short files, no task in the library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each part of the library may import itself and those of earlier lines.
ORDER = [
    {"errors", "checksums", "losses"},
    {"files", "options"},
    {"rng"},
    {"nn"},
    {"conditions", "likelihoods"},
    {"networks"},
    {"priors"},
    {"model"},
    {"draws"},
    {"objectives", "data"},
    {"training"},
    {"runs"},
    {"evaluation"},
    {"plots"},
    {"api"},
]
TASKS = ("caption", "spoken", "speech", "scene", "completion", "paraphrase", "speaker")
LINES = 500


def files_of(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts():
    paths = (ROOT / "cvae_jax").iterdir()
    return {path.stem for path in paths if path.is_dir() or path.suffix == ".py"} - {
        "__init__",
        "__pycache__",
    }


def test_every_part_has_its_place():
    assert sorted(set().union(*ORDER)) == sorted(parts())


@pytest.mark.parametrize("part", sorted(parts()))
def test_imports_point_downward(part):
    level = next(i for i, each in enumerate(ORDER) if part in each)
    allowed = set().union(*ORDER[:level]) | {part}
    paths = files_of(f"cvae_jax/{part}") or [ROOT / "cvae_jax" / f"{part}.py"]
    names = set().union(*map(imported, paths))
    ours = {name.split(".")[1] for name in names if name.startswith("cvae_jax.")} & parts()
    assert ours - allowed == set()
    assert not any(name.split(".")[0] in ("absl", "experiments") for name in names)


@pytest.mark.parametrize("folder", ["cvae_jax", "experiments"])
def test_no_cycle_between_files(folder):
    paths = {name_of(path): path for path in files_of(folder)}
    uses = {name: (imported(path) & paths.keys()) - {name, folder} for name, path in paths.items()}
    while free := [name for name, needs in uses.items() if not needs & uses.keys()]:
        for name in free:
            del uses[name]
    assert uses == {}


@pytest.mark.parametrize("path", files_of("cvae_jax"), ids=name_of)
def test_the_library_names_no_task(path):
    text = f"{name_of(path)} {path.read_text()}".lower()
    assert [task for task in TASKS if task in text] == []


def test_losses_load_jax_alone():
    program = """
import sys, jax, optax
before = set(sys.modules)
import cvae_jax.losses
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - {"cvae_jax"} - set(sys.stdlib_module_names)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("path", files_of("cvae_jax") + files_of("experiments"), ids=name_of)
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= LINES


@pytest.mark.parametrize("path", files_of("cvae_jax") + files_of("experiments"), ids=name_of)
def test_functions_stay_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            assert node.end_lineno - start <= 60, f"{node.name} has {node.end_lineno - start} lines"
