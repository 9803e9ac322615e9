"""This project's process of `benchmarks.sweep_gpu`."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.gpu_timing import BATCH_SIZE, DTYPES, LATENT_DIM, Record, measure, say
from benchmarks.workers import synthetic_data
from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.rng import root_key
from cvae_jax.training import loader
from cvae_jax.training import population as sweep
from cvae_jax.training.config import from_flat, replace
from cvae_jax.training.hparams import stack_hparams

_COMPILERS = 4  # programs that are compiled at a time, all before the first is measured
_FIRST = (1, 64)  # numbers of members that are measured before the others, should time run out


def jax_peaks(on_gpu: bool) -> Record:
    """TFLOP/s of a square matrix product and GB/s of a copy, as fast as the chip is seen to do them."""
    side, words = (8192, 2**28) if on_gpu else (1024, 2**24)

    def seconds_of(function: Callable[..., Any], *arguments: Any, calls: int = 20) -> float:
        function = jax.jit(function)
        jax.block_until_ready(function(*arguments))
        rounds = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(calls - 1):
                function(*arguments)
            jax.block_until_ready(function(*arguments))
            rounds.append((time.perf_counter() - start) / calls)
        return min(rounds)

    tflops = {}
    for dtype in DTYPES:
        a, b = (jax.random.normal(root_key(i), (side, side), dtype) for i in range(2))
        tflops[dtype] = 2 * side**3 / seconds_of(jnp.matmul, a, b) / 1e12
    a = jnp.ones(words)
    copy = 2 * a.nbytes / seconds_of(lambda a: a + 1, a) / 1e9
    return {"matrix_side": side, "matrix_product_tflops": tflops, "copy_gigabytes_per_second": copy}


class Programs(NamedTuple):
    """What trains a number of members, compiled."""

    hparams: Any
    init: Callable[..., Any]
    run_steps: Callable[..., Any]
    takes: Record


def jax_programs(data: Any, dataset: Any, network: str, dtype: str, num_members: int) -> Programs:
    """Compile the programs of one configuration."""
    config = from_flat(network=network, compute_dtype=dtype, batch_size=BATCH_SIZE, latent_dim=LATENT_DIM)
    members = [replace(config, beta=1 + i / num_members, seed=i) for i in range(num_members)]
    model = sweep.build_model(members, dataset)
    hparams = stack_hparams(members, capacity=model.capacity)
    start = time.perf_counter()
    init = sweep.init.lower(model, hparams).compile()
    population = jax.eval_shape(partial(sweep.init, model), hparams)
    run_steps = sweep.run_steps.lower(model, population, hparams, data, jnp.int32(1)).compile()
    cost: dict[str, Any] = run_steps.cost_analysis() or {}
    takes = {
        "compile_seconds": time.perf_counter() - start,
        "params": tree_size(population.members.params) // num_members,
        # XLA counts a loop's body once.
        "bytes_accessed": cost.get("bytes accessed", 0.0) / num_members,
    }
    return Programs(hparams, init, run_steps, takes)


def tree_size(tree: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def jax_runner(programs: Programs, data: Any, per_epoch: int) -> Callable[[int], None]:
    """A function that trains all members for some steps."""
    population = jax.block_until_ready(programs.init(programs.hparams))
    done = 0

    def run(num_steps: int) -> None:
        nonlocal population, done
        while num_steps:
            chunk = min(num_steps, per_epoch - done % per_epoch)
            population = programs.run_steps(population, programs.hparams, data, jnp.int32(chunk))
            num_steps, done = num_steps - chunk, done + chunk
        jax.block_until_ready(population)

    return run


def measure_jax(
    sizes: Sequence[int], networks: Sequence[str], dtypes: Sequence[str], seconds: float, deadline: float
) -> None:
    """This project: all configurations that there is time for."""
    device = jax.devices()[0]
    on_gpu = device.platform == "gpu"
    say(
        chip=device.device_kind,
        gpu=on_gpu,
        versions={"jax": jax.__version__, "python": platform.python_version()},
    )
    say(peaks=jax_peaks(on_gpu))
    split = Split(*synthetic_data())
    dataset = Dataset("synthetic", split, split, split, 255.0, Label(10))
    data = loader.training_data(from_flat(), dataset)
    per_epoch = len(split) // BATCH_SIZE
    first = sorted(sizes, key=lambda size: (size not in _FIRST, size))
    asked = list(itertools.product(first, networks, dtypes))
    start = time.perf_counter()
    with ThreadPoolExecutor(_COMPILERS) as pool:
        compiled = list(pool.map(lambda c: jax_programs(data, dataset, c[1], c[2], c[0]), asked))
    say(compile_seconds=time.perf_counter() - start, compilers=_COMPILERS)
    for (size, network, dtype), programs in zip(asked, compiled, strict=True):
        what = {"library": "jax", "network": network, "dtype": dtype, "members": size}
        if time.time() > deadline:
            say(result=what | {"skipped": "no time left"})
            continue
        try:
            result = measure(jax_runner(programs, data, per_epoch), seconds, per_epoch)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            say(result=what | {"skipped": "out of memory"})
            continue
        stats: dict[str, Any] = device.memory_stats() or {}
        say(
            result=what
            | result
            | programs.takes
            | {"peak_bytes_in_use_so_far": stats.get("peak_bytes_in_use")}
        )
