"""What both libraries' processes of `benchmarks.sweep_gpu` share."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

LATENT_DIM = 20
BATCH_SIZE = 128
DTYPES = ("float32", "bfloat16")
TORCH_MODES = {"eager": None, "compile": "default", "graphs": "reduce-overhead"}

Record = dict[str, Any]


def say(**record: Any) -> None:
    print(json.dumps(record), flush=True)


def measure(run: Callable[[int], None], seconds: float, most: int) -> Record:
    """Milliseconds per step of `run(num_steps)`, without the first call, which compiles."""

    def timed(num_steps: int) -> float:
        start = time.perf_counter()
        run(num_steps)
        return time.perf_counter() - start

    first, num_steps = timed(1), 1
    timed(1)  # warms up
    while (spent := timed(num_steps)) < seconds / 10 and num_steps < most:
        num_steps = min(most, 2 * num_steps)
    rounds = [timed(num_steps) for _ in range(max(3, int(seconds / spent)))]
    milliseconds = [1e3 * each / num_steps for each in rounds]
    return {
        "first_call_seconds": first,
        "milliseconds_per_step": statistics.median(milliseconds),
        "fastest_and_slowest": [min(milliseconds), max(milliseconds)],
        "steps_per_call": num_steps,
        "calls": len(rounds),
    }
