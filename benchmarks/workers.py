"""A library's training in a process of its own, asked over stdin: `python -m benchmarks.workers torch mlp 2`.

The line `run 100` is answered by milliseconds per step over 100 steps; `peak` (jax only) by GFLOP/s of a large
matrix product; `versions` by a JSON object. Between questions the process sleeps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NUM_EXAMPLES = 55_000

Answers = dict[str, Callable[..., Any]]


class Worker:
    """The asking side. Leaving the context ends the process."""

    def __init__(self, library: str, network: str, threads: int) -> None:
        """Start the process; it is ready when the first question is answered."""
        command = [sys.executable, "-m", "benchmarks.workers", library, network, str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def ask(self, question: str) -> Any:
        """Send one line, wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker ended without answering {question!r}")
        return json.loads(answer)

    def __enter__(self) -> Worker:
        """Nothing to do: the process is running."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process by the end of its input."""
        self._process.communicate()


def synthetic_data() -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels of MNIST's shape; only speed is measured on them."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (NUM_EXAMPLES, 28, 28, 1), dtype=np.uint8)
    return x, rng.integers(0, 10, NUM_EXAMPLES, dtype=np.int32)


def milliseconds_per_step(run: Callable[[int], None], num_steps: int) -> float:
    """Time `run(num_steps)`."""
    start = time.perf_counter()
    run(num_steps)
    return (time.perf_counter() - start) / num_steps * 1e3


def torch_answers(network: str, threads: int) -> Answers:
    """PyTorch eager."""
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.torch_cvae import NUM_PARAMS, Training

    torch.set_num_threads(threads)
    training = Training(network, *synthetic_data())
    assert sum(p.numel() for p in training.model.parameters()) == NUM_PARAMS[network]
    return {
        "run": lambda n: milliseconds_per_step(training.run, int(n)),
        "versions": lambda: {"torch": torch.__version__, "torch_threads": torch.get_num_threads()},
    }


def jax_answers(network: str, threads: int) -> Answers:
    """This project: a sweep of one member."""
    del threads  # XLA takes one per processor that the process may use
    import jax

    from benchmarks.jax_cvae import Training, matrix_product_gflops

    training = Training(network, *synthetic_data())
    return {
        "run": lambda n: milliseconds_per_step(training.run, int(n)),
        "peak": matrix_product_gflops,
        "versions": lambda: {"jax": jax.__version__},
    }


def use_processors(count: int) -> None:
    """Keep this process to some of the processors, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def main(library: str, network: str, threads: str) -> None:
    use_processors(int(threads))
    answers = {"torch": torch_answers, "jax": jax_answers}[library](network, int(threads))
    for line in sys.stdin:
        question, *arguments = line.split()
        print(json.dumps(answers[question](*arguments)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
