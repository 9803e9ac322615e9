"""Starts the project's scripts as a person does, and reads what they leave behind."""

import json
import multiprocessing
import os
import runpy
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from compiling import QUICKLY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.proto import event_pb2

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"XLA_FLAGS": " ".join(QUICKLY)}
# Scripts that need not be disturbed fork from a process that has imported what they import, which takes seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "sklearn.datasets",
        "experiments.explorer",
        "experiments.reports.figures",
        "cvae_jax.runs.loop",
        "experiments.sweep",
    ]
)
SECONDS = 240


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Scripts:
    """Starts scripts on one device, with one cache of compiled programs for all."""

    def __init__(self, cache):
        self.cache = cache

    def _arguments(self, script, flags):
        return [f"experiments.{script}", f"--cache_dir={self.cache}", *flags]

    def start(self, script, *flags):
        """A process of its own from its first line on."""
        env = os.environ | ENVIRONMENT
        env.pop("TF_CPP_MIN_LOG_LEVEL", None)
        command = [sys.executable, "-m", *self._arguments(script, flags)]
        return subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def end(self, process):
        out, err = process.communicate(timeout=SECONDS)
        return Result(process.returncode, out, err)

    def run(self, script, *flags):
        with tempfile.TemporaryDirectory() as folder:
            out, err = (Path(folder) / name for name in ("out", "err"))
            process = FORKS.Process(target=_main, args=(self._arguments(script, flags), out, err))
            process.start()
            process.join(SECONDS)
            assert process.exitcode is not None, "still running"
            return Result(process.exitcode, *(path.read_text(encoding="utf-8") for path in (out, err)))


def _main(arguments, out, err):
    """Become `python -m` of a script and its flags, which writes to two files."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    os.environ.update(ENVIRONMENT)
    os.chdir(ROOT)
    sys.path.insert(0, os.fspath(ROOT))
    sys.argv = arguments
    # Other modules may have imported it, but not as the script.
    sys.modules.pop(arguments[0], None)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def without_seconds(records):
    """Records without what no run repeats."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def metrics_lines(workdir):
    """Lines of `metrics.jsonl`, without the seconds."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return without_seconds(json.loads(line) for line in lines)


def tensorboard_scalars(workdir):
    """The scalars of a run or of all members of a sweep, as TensorBoard's reader has them, by folder."""
    root = workdir / "tensorboard"
    scalars = {}
    for folder in sorted({file.parent for file in root.rglob("events.out.*")}):
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        scalars[str(folder.relative_to(root))] = [
            (tag, event.step, event.value)
            for tag in reader.Tags()["scalars"]
            for event in reader.Scalars(tag)
        ]
    return scalars


def tensorboard_events(file):
    """Events of a file: each a length, a checksum, a message and its checksum."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
