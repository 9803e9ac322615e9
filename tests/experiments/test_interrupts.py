"""Ctrl-C at any time: one line, status 130."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.command_line import interrupts

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "train", "sweep", "evaluate", "sample", "complete", "pictures", "explorer", "reproduce", "export_member", "prepare",
)  # fmt: skip


def start(*command):
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def interrupted(process):
    out, err = process.communicate(timeout=60)
    return (process.returncode, err) == (130, "interrupted\n") or (process.returncode, out, err)


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="what a process has imported is read from /proc"
)
@pytest.mark.parametrize(
    "script", [SCRIPTS[0], *(pytest.param(script, marks=pytest.mark.slow) for script in SCRIPTS[1:])]
)
def test_ctrl_c_during_imports_is_one_line(script):
    process = start("-m", f"experiments.{script}", "--workdir=nowhere")
    while "jaxlib" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert interrupted(process) is True


INTERRUPT = "import os, signal, sys; from experiments.command_line import cli\ndef main():\n  "
KILL = "os.kill(os.getpid(), signal.SIGINT)"
MAINS = {
    "in the work": KILL,
    "where a library makes another error of it": f"""
  try: {KILL}
  except BaseException as error: raise RuntimeError('INTERNAL: callback') from error""",
    "where nothing can be raised": f"""
  class Closing:
    def __del__(self): {KILL}
  Closing()""",
    "after the work": f"import atexit; atexit.register(lambda: {KILL})",
}


@pytest.mark.parametrize("when", MAINS)
def test_ctrl_c_is_one_line(when):
    assert interrupted(start("-c", f"{INTERRUPT}{MAINS[when]}\ncli.run(main, [])")) is True


def test_ctrl_c_leaves_no_half_file(tmp_path):
    write = f"from pathlib import Path; from cvae_jax.files import write_atomically\n  write_atomically(Path('{tmp_path}/a'), lambda file: {KILL})"  # noqa: E501
    assert interrupted(start("-c", f"{INTERRUPT}{write}\ncli.run(main, [])")) is True
    assert list(tmp_path.iterdir()) == []


def test_a_second_ctrl_c_ends_what_does_not_end():
    again = f"\n  try: {KILL}\n  finally: {KILL}"
    process = start("-c", f"{INTERRUPT}{again}\ncli.run(main, [])")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT


def test_what_ignores_ctrl_c_in_the_background_goes_on():
    code = f"{INTERRUPT}{KILL}; print('done')\ncli.run(main, [])"
    process = start("-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); exec({code!r})")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")


def test_only_scripts_take_ctrl_c_from_python():
    assert signal.getsignal(signal.SIGINT) is not interrupts._leave
