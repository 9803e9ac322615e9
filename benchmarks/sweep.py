"""A sweep as one program against one process per member, and PyTorch: `python -m benchmarks.sweep --processes=54`.

54 members (6 β × 3 latent sizes × 3 seeds) for 20 epochs on digits, whole processes timed from start to end; then
the step of 16 members against that of one, compile time at 16 and 128 members, and memory against its plan.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from cvae_jax.errors import SettingError
from cvae_jax.files import cache_dir
from cvae_jax.runs.session import load_dataset
from cvae_jax.training import loader, memory
from cvae_jax.training import population as sweep
from cvae_jax.training.config import Config, replace
from cvae_jax.training.grid import grid
from cvae_jax.training.hparams import stack_hparams

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "processes", 54, "How many of the 54 separate processes to run; the rest is extrapolated."
)
flags.DEFINE_integer("epochs", 20, "Passes over the training split.")
flags.DEFINE_integer("rounds", 15, "Alternating measurements of a step of 1 and of 16 members.")
flags.DEFINE_string("output", None, "JSON file to write.")

_COMPILATIONS = 5  # of each number of members, in turn
AXES: dict[str, tuple[Any, ...]] = {
    "beta": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    "latent_dim": (2, 8, 32),
    "seed": (0, 1, 2),
}


def seconds_of(module: str, *arguments: str) -> float:
    """Wall time of a script in a process of its own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def whole_processes(epochs: int, num_processes: int) -> dict[str, float]:
    """One sweep, and one process per member, in fresh workdirs; both find compiled programs in the cache."""
    members = grid(**AXES)
    values = [f"--{name}={','.join(f'{v:g}' for v in axis)}" for name, axis in AXES.items()]
    with tempfile.TemporaryDirectory() as folder:
        common = (f"--epochs={epochs}",)
        seconds_of("experiments.sweep", *values, *common, f"--workdir={folder}/warm-up")
        together = seconds_of("experiments.sweep", *values, *common, f"--workdir={folder}/sweep")
        # Spread over the grid, so that an extrapolation sees every latent size.
        picked = members[:: max(1, len(members) // num_processes)][:num_processes]
        alone = []
        for i, member in enumerate(picked):
            settings = [f"--{name}={member[name]:g}" for name in AXES]
            alone.append(seconds_of("experiments.train", *settings, *common, f"--workdir={folder}/{i}"))
    return {
        "sweep_seconds": together,
        "process_seconds_median": statistics.median(alone),
        "processes_run": len(alone),
        "processes_seconds": statistics.mean(alone) * len(members),
    }


def torch_seconds(epochs: int) -> float:
    """PyTorch eager, all members one after another in one process."""
    from benchmarks.torch_cvae import Training, train_one_after_another

    digits = load_dataset(Config(), None, cache_dir())
    train = digits.train
    trainings = [
        Training(
            "mlp",
            train.x,
            train.labels,
            x_max=digits.x_max,
            **m,
        )
        for m in grid(**AXES)
    ]
    return sum(train_one_after_another(trainings, epochs * (len(train) // Config().batch_size)))


def program(num_members: int) -> tuple[Any, ...]:
    """Model, population, settings and data of members on digits, nothing of which is still being computed."""
    config = Config()
    dataset = load_dataset(config, None, cache_dir())
    members = [replace(config, seed=seed) for seed in range(num_members)]
    model = sweep.build_model(members, dataset)
    settings = stack_hparams(members, capacity=model.capacity)
    made = (sweep.init(model, settings), settings, loader.training_data(config, dataset))
    return model, *jax.block_until_ready(made)


def step_ratio(num_members: int, rounds: int) -> dict[str, float]:
    """Milliseconds per member-step of many members over those of one, in alternating measurements."""
    programs = {n: program(n) for n in (1, num_members)}
    times: dict[int, list[float]] = {n: [] for n in programs}
    for turn in range(rounds + 1):
        for n, (model, population, settings, training_data) in programs.items():
            start = time.perf_counter()
            for _ in range(max(1, 32 // n)):
                population = sweep.run_steps(model, population, settings, training_data, jnp.int32(10))
                population = population.replace(step=jnp.zeros_like(population.step))
            jax.block_until_ready(population)
            programs[n] = (model, population, settings, training_data)
            if turn:
                times[n].append((time.perf_counter() - start) / max(1, 32 // n) / 10 / n * 1e3)
    ratios = [many / one for many, one in zip(times[num_members], times[1], strict=True)]
    return {
        "solo_ms": statistics.median(times[1]),
        "member_ms": statistics.median(times[num_members]),
        "ratio": statistics.median(ratios),
    }


def compile_and_memory() -> dict[str, float]:
    """Compile seconds at 16 and 128 members, and bytes per member by XLA and by the plan."""
    jax.config.update("jax_enable_compilation_cache", False)
    seconds: dict[int, list[float]] = {16: [], 128: []}
    sizes, planned = {}, 0
    for _ in range(_COMPILATIONS):
        for n, times in seconds.items():
            jax.clear_caches()
            model, population, settings, training_data = program(n)
            lowered = sweep.run_steps.lower(model, population, settings, training_data, jnp.int32(1))
            start = time.perf_counter()
            analysis: Any = lowered.compile().memory_analysis()
            times.append(time.perf_counter() - start)
            sizes[n] = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
            planned = memory.member_bytes(model, [Config()])
    return {
        **{f"compile_seconds_{n}": statistics.median(times) for n, times in seconds.items()},
        "planned_bytes": planned,
        "measured_bytes": (sizes[128] - sizes[16]) / (128 - 16),
    }


def main(argv: list[str]) -> None:
    if len(argv) > 1 or not 1 <= FLAGS.processes <= 54:
        raise SettingError("expected flags only, and 1 to 54 processes")
    results: dict[str, Any] = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    results |= whole_processes(FLAGS.epochs, FLAGS.processes)
    results["torch_seconds"] = torch_seconds(FLAGS.epochs)
    results["step"] = step_ratio(16, FLAGS.rounds)
    results |= compile_and_memory()
    print(json.dumps(results, indent=2))
    print(f"sweep / processes: {results['sweep_seconds'] / results['processes_seconds']:.3f}")
    print(f"16 members / solo, per member-step: {results['step']['ratio']:.3f}")
    print(f"sweep / PyTorch in one process: {results['sweep_seconds'] / results['torch_seconds']:.3f}")
    print(f"compile, 128 / 16: {results['compile_seconds_128'] / results['compile_seconds_16']:.3f}")
    print(f"memory, plan / XLA: {results['planned_bytes'] / results['measured_bytes']:.3f}")
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
