"""Starts the project's scripts as a person does, and reads what they leave behind."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tensorboardX.proto import event_pb2

ROOT = Path(__file__).parents[1]


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Scripts:
    """Starts scripts on one device, with one cache of compiled programs for all."""

    def __init__(self, cache):
        self.cache = cache

    def start(self, script, *flags):
        # Most of the time goes into compiling.
        env = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
        env.pop("TF_CPP_MIN_LOG_LEVEL", None)
        command = [sys.executable, "-m", f"experiments.{script}", f"--cache_dir={self.cache}", *flags]
        return subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def end(self, process):
        out, err = process.communicate(timeout=240)
        return Result(process.returncode, out, err)

    def run(self, script, *flags):
        return self.end(self.start(script, *flags))


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def without_seconds(records):
    """Records without what no run repeats."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def metrics_lines(workdir):
    """Lines of `metrics.jsonl`, without the seconds."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return without_seconds(json.loads(line) for line in lines)


def tensorboard_events(file):
    """Events of a file: each a length, a checksum, a message and its checksum."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
