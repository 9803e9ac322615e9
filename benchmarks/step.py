"""Time of a training step against PyTorch eager, on two CPU threads.

  python -m benchmarks.step --network=mlp,conv --output=step.json

Each library trains in a process of its own; measurements alternate, so that a change of the machine's speed meets
both, and their ratio is taken round by round. `--check` first shows that both train the same network.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from absl import app, flags

from benchmarks.workers import Worker

FLAGS = flags.FLAGS
NETWORKS = ("mlp", "conv")
BATCH_SIZE = 128
LATENT_DIM = 20


def product_flops(rows: int, inner: int, columns: int, *, input_gradient: bool = True) -> int:
    """Of a matrix product forward and backward: every gradient costs a product of the same size."""
    return 2 * rows * inner * columns * (3 if input_gradient else 2)


def _mlp_layers(batch: int, latents: int) -> list[int]:
    return [
        product_flops(batch, 784, 512, input_gradient=False),
        product_flops(batch, 512, 512),
        product_flops(batch, 512, 2 * latents),
        product_flops(batch, latents, 512),
        product_flops(batch, 512, 512),
        product_flops(batch, 512, 784),
        *(product_flops(batch, 32, 512) for _ in range(4)),  # of the condition
    ]


def _conv_layers(batch: int, latents: int) -> list[int]:
    low, high = 7 * 7 * batch, 14 * 14 * batch
    block = [product_flops(low, 64, 128), product_flops(low, 128, 64), product_flops(batch, 32, 128)]
    return [
        product_flops(high, 16 * 1, 16, input_gradient=False),
        product_flops(low, 16 * 16, 64),
        *block,
        product_flops(batch, 3136, 2 * latents),
        product_flops(batch, latents, 3136),
        *block,
        product_flops(low, 64, 16 * 16),
        product_flops(high, 16, 16 * 1),
        *(product_flops(batch, 32, channels) for channels in (16, 64, 3136, 16)),  # of the condition
    ]


def step_flops(network: str) -> int:
    """Of all matrix products of a step; a 4×4 convolution is one over its 16-pixel windows."""
    return sum({"mlp": _mlp_layers, "conv": _conv_layers}[network](BATCH_SIZE, LATENT_DIM))


def cpu_seconds(worker: Worker) -> float:
    """Processor time that a worker has used."""
    times = psutil.Process(worker.pid).cpu_times()
    return times.user + times.system


def measure_one(worker: Worker, num_steps: int, idle: Worker) -> tuple[float, float]:
    """Milliseconds per step of one worker, and the processor seconds that the other used meanwhile."""
    before = cpu_seconds(idle)
    milliseconds = worker.ask(f"run {num_steps}")
    return milliseconds, cpu_seconds(idle) - before


def measure(network: str, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Measure one network with both libraries in turn."""
    times: dict[str, list[float]] = {"jax": [], "torch": []}
    peaks, idle_seconds = [], 0.0
    with Worker("jax", network, threads) as ours, Worker("torch", network, threads) as theirs:
        pairs = {"jax": (ours, theirs), "torch": (theirs, ours)}
        versions = ours.ask("versions") | theirs.ask("versions")
        num_steps = {}
        for library, (worker, _) in pairs.items():
            worker.ask("run 5")  # compiles
            num_steps[library] = max(1, math.ceil(1e3 * seconds / worker.ask("run 20")))
            worker.ask(f"run {num_steps[library]}")  # warms up
        for _ in range(rounds):
            peaks.append(ours.ask("peak"))
            for library, (worker, other) in pairs.items():
                milliseconds, used = measure_one(worker, num_steps[library], other)
                times[library].append(milliseconds)
                idle_seconds += used
    return summarize(network, times, max(peaks)) | {
        "steps_per_measurement": num_steps,
        "processor_seconds_used_by_idle_workers": idle_seconds,
        "versions": versions,
    }


def summarize(network: str, times: dict[str, list[float]], peak: float) -> dict[str, Any]:
    """Medians, paired ratios and achieved speeds of one network's measurements."""
    medians = {library: statistics.median(values) for library, values in times.items()}
    ratios = [theirs / ours for ours, theirs in zip(times["jax"], times["torch"], strict=True)]
    flops = step_flops(network)
    gflops = {library: flops / ms / 1e6 for library, ms in medians.items()}
    return {
        "milliseconds_per_step": times,
        "median_milliseconds_per_step": medians,
        "ratio_torch_to_jax": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "flops_per_step": flops,
        "gflops": gflops,
        "matrix_product_gflops": peak,
        "share_of_matrix_product": {library: speed / peak for library, speed in gflops.items()},
    }


def report(network: str, result: dict[str, Any]) -> str:
    """The lines that a person reads."""
    ratio = result["ratio_torch_to_jax"]
    lines = [
        f"{network}: {result['flops_per_step'] / 1e9:.3f} GFLOP a step; "
        f"matrix products reach {result['matrix_product_gflops']:.0f} GFLOP/s"
    ]
    for library, name in (("jax", "cvae_jax"), ("torch", "PyTorch eager")):
        lines.append(
            f"  {name:<14}{result['median_milliseconds_per_step'][library]:8.2f} ms a step"
            f"{result['gflops'][library]:8.1f} GFLOP/s"
            f"{100 * result['share_of_matrix_product'][library]:6.0f} %"
        )
    lines.append(
        f"  PyTorch eager takes {ratio['median']:.2f} times as long ({ratio['min']:.2f} to {ratio['max']:.2f})"
    )
    return "\n".join(lines)


def cpu_model() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on, without naming the machine."""
    return {
        "cpu": cpu_model(),
        "logical_processors": psutil.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cvae_jax": importlib.metadata.version("cvae_jax"),
    }


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    if FLAGS.check:
        subprocess.run([sys.executable, "-m", "benchmarks.same_network"], check=True)
    result = {"machine": machine(FLAGS.threads), "batch_size": BATCH_SIZE, "networks": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for network in FLAGS.network:
        result["networks"][network] = measure(network, FLAGS.rounds, FLAGS.seconds, FLAGS.threads)
        print(report(network, result["networks"][network]), flush=True)
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_list("network", list(NETWORKS), "mlp, conv or both, with a comma between.")
    flags.register_validator("network", lambda names: set(names) <= set(NETWORKS), "expected mlp or conv")
    flags.DEFINE_integer("rounds", 9, "Measurements of each library.", lower_bound=1)
    flags.DEFINE_float("seconds", 2.0, "About how long a measurement lasts.", lower_bound=0.01)
    flags.DEFINE_integer("threads", 2, "Processors that each library may use.", lower_bound=1)
    flags.DEFINE_bool("check", False, "First check that both libraries train the same network.")
    flags.DEFINE_string("output", None, "A JSON file for all numbers.")
    app.run(main)
