"""`launch.sh`: which Python it starts, on which module, and where."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What takes the place of a script: it shows where it was started, and what it found.
SCRIPT = """
import json, os, sys
import experiments
sys.path.append("")
try:
    import mine
except ImportError:
    mine = None
found = dict(folder=os.getcwd(), flags=sys.argv[1:], package=experiments.__file__, mine=mine and mine.__file__)
print(json.dumps(found))
"""
STAMP = """
cd {root}
for extra in {extras}; do
  echo "$(.venv/bin/python -c 'import platform; print(platform.python_version())') $PWD \
$(cat pyproject.toml constraints.txt | cksum)" >.venv/stamps/$extra
done
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose `.venv` is set up for its scripts."""
    root = tmp_path / "a check out"
    (root / "experiments").mkdir(parents=True)
    for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    (root / "experiments/__init__.py").touch()
    for script in ("train", "prepare"):
        (root / f"experiments/{script}.py").write_text(SCRIPT)
    (root / ".venv/stamps").mkdir(parents=True)
    (root / ".venv/bin").mkdir()
    python = root / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    subprocess.run(["bash", "-c", STAMP.format(root=f"'{root}'", extras="experiments")], check=True)
    return root


@pytest.fixture
def launch(checkout, tmp_path):
    """A function from arguments of `launch.sh` to its process, called from a folder of the user's."""
    (tmp_path / "bin").mkdir()
    without_gpu = tmp_path / "bin/nvidia-smi"
    without_gpu.write_text("#!/bin/sh\nexit 1\n")
    without_gpu.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHON", None)
    user = tmp_path / "user"
    user.mkdir()

    def call(*arguments, folder=user, **more):
        return subprocess.run(
            [checkout / "launch.sh", *arguments],
            cwd=folder, env=environment | more, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return call


def test_scripts_run_where_the_user_stands(launch, checkout, tmp_path):
    process = launch("train", "--beta=4", "--workdir=a b")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["folder"] == str(tmp_path / "user")
    assert found["flags"] == ["--beta=4", "--workdir=a b"]
    assert json.loads(launch("train", folder=checkout).stdout)["folder"] == str(checkout)
    assert not (tmp_path / "user/.venv").exists()


def test_a_folder_of_the_users_does_not_hide_the_scripts(launch, checkout, tmp_path):
    (tmp_path / "user/experiments").mkdir()
    (tmp_path / "user/experiments/__init__.py").touch()
    (tmp_path / "user/mine.py").touch()
    found = json.loads(launch("train").stdout)
    assert found["package"] == str(checkout / "experiments/__init__.py")
    assert found["mine"] == str(tmp_path / "user/mine.py")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.py").touch()
    found = json.loads(launch("train", PYTHONPATH=str(tmp_path / "other")).stdout)
    assert found["mine"] == str(tmp_path / "other/mine.py")


def test_help_of_prepare_needs_no_tensorflow(launch):
    process = launch("prepare", "--help")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["flags"] == ["--help"]


def test_a_relative_python_is_of_the_users_folder(launch, tmp_path):
    process = launch("train", PYTHON="./none")
    assert process.returncode == 1
    expected = f"PYTHON={tmp_path / 'user'}/./none is no working Python 3.11 or newer with venv"
    assert process.stderr == f"error: {expected}\n"


def test_help_names_every_script(launch):
    process = launch()
    assert process.returncode == 0
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__"}
    listed = {line.split()[0] for line in process.stdout.splitlines() if line.startswith("  ")}
    assert scripts <= listed


def test_an_unknown_command_is_refused_in_one_line(launch):
    process = launch("trian")
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == "error: unknown command 'trian', see ./launch.sh help\n"
