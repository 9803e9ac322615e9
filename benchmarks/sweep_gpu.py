"""A sweep on one GPU against PyTorch training one model after another.

  python -m benchmarks.sweep_gpu --output=sweep_gpu.json

Member-steps per second by number of members, for both networks in float32 (matrix products in TF32, both libraries'
fast default) and bfloat16, beside the chip's own matrix product and copy speed measured in the same run. Each
library has a process of its own; compile time is kept apart; results are written as they come. Smoke run on a CPU:

  python -m benchmarks.sweep_gpu --members=1,2 --networks=mlp --seconds=1
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from absl import app, flags

from benchmarks.workers import synthetic_data
from experiments.workdir import write_json

FLAGS = flags.FLAGS
LATENT_DIM = 20
BATCH_SIZE = 128
DTYPES = ("float32", "bfloat16")
TORCH_MODES = {"eager": None, "compile": "default", "graphs": "reduce-overhead"}
_FIRST = (1, 64)  # numbers of members that are measured before the others, should time run out

Record = dict[str, Any]


def measure(run: Callable[[int], None], seconds: float, most: int) -> Record:
    """Milliseconds per step of `run(num_steps)`, the first call apart: it compiles."""

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


def state_bytes(num_params: int, dtype: str) -> int:
    """Bytes that one member's step moves at least, for parameters and optimizer; activations are left out.

    Of each parameter, in float32: the clipping reads the gradient; Adam reads parameter, gradient and both moments
    and writes all but the gradient; backward writes the gradient. Forward and backward each read the parameter:
    4 bytes, or 2 of a copy in bfloat16 that costs a read of 4 and a write of 2.
    """
    reads = {"float32": 4 + 4, "bfloat16": 2 + 2 + 4 + 2}[dtype]
    return num_params * (4 + 4 * (4 + 3) + 4 + reads)


# One library's process: prints a JSON object per line


def say(**record: Any) -> None:
    print(json.dumps(record), flush=True)


def jax_peaks(on_gpu: bool) -> Record:
    """TFLOP/s of a square matrix product and GB/s of a copy, as fast as the chip is seen to do them."""
    import jax
    import jax.numpy as jnp

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
        a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in range(2))
        tflops[dtype] = 2 * side**3 / seconds_of(jnp.matmul, a, b) / 1e12
    a = jnp.ones(words)
    copy = 2 * a.nbytes / seconds_of(lambda a: a + 1, a) / 1e9
    return {"matrix_side": side, "matrix_product_tflops": tflops, "copy_gigabytes_per_second": copy}


def jax_runner(network: str, dtype: str, num_members: int) -> tuple[Callable[[int], None], int, Record]:
    """A function that trains all members for some steps; most steps per call; what a member's step takes."""
    import jax
    import jax.numpy as jnp

    from cvae_jax import sweep
    from cvae_jax.config import ComputeDtype, Config, Member, NetworkName
    from cvae_jax.dataset import Dataset, Split

    config = Config(
        network=cast("NetworkName", network),
        compute_dtype=cast("ComputeDtype", dtype),
        batch_size=BATCH_SIZE,
    )
    split = Split(*synthetic_data())
    dataset = Dataset("synthetic", split, split, split, 255.0, tuple(map(str, range(10))))
    members = [Member(latent_dim=LATENT_DIM, beta=1 + i / num_members, seed=i) for i in range(num_members)]
    model = sweep.build_model(config, dataset, members)
    per_epoch = sweep.steps_per_epoch(config, dataset)
    hparams = sweep.stack_hparams(members, capacity=model.capacity, steps_per_epoch=per_epoch)
    data = sweep.training_data(config, dataset)
    population = jax.block_until_ready(sweep.init(model, hparams))
    start = time.perf_counter()
    run_steps = sweep.run_steps.lower(model, population, hparams, data, jnp.int32(1)).compile()
    cost: dict[str, Any] = run_steps.cost_analysis() or {}
    takes = {
        "compile_seconds": time.perf_counter() - start,
        "params": sum(leaf[0].size for leaf in jax.tree.leaves(population.members.params)),
        # XLA counts a loop's body once.
        "bytes_accessed": cost.get("bytes accessed", 0.0) / num_members,
    }
    done = 0

    def run(num_steps: int) -> None:
        nonlocal population, done
        while num_steps:
            chunk = min(num_steps, per_epoch - done % per_epoch)
            population = run_steps(population, hparams, data, jnp.int32(chunk))
            num_steps, done = num_steps - chunk, done + chunk
        jax.block_until_ready(population)

    return run, per_epoch, takes


def measure_jax(deadline: float) -> None:
    """This project: all configurations that there is time for."""
    import jax

    device = jax.devices()[0]
    on_gpu = device.platform == "gpu"
    say(
        chip=device.device_kind,
        gpu=on_gpu,
        versions={"jax": jax.__version__, "python": platform.python_version()},
    )
    say(peaks=jax_peaks(on_gpu))
    sizes = sorted(map(int, FLAGS.members), key=lambda size: (size not in _FIRST, size))
    for size in sizes:
        for network in FLAGS.networks:
            for dtype in FLAGS.dtypes:
                what = {"library": "jax", "network": network, "dtype": dtype, "members": size}
                if time.time() > deadline:
                    say(result=what | {"skipped": "no time left"})
                    continue
                try:
                    run, most, takes = jax_runner(network, dtype, size)
                    result = measure(run, FLAGS.seconds, most)
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    say(result=what | {"skipped": "out of memory"})
                    continue
                stats: dict[str, Any] = device.memory_stats() or {}
                say(
                    result=what
                    | result
                    | takes
                    | {"peak_bytes_in_use_so_far": stats.get("peak_bytes_in_use")}
                )
                del run
                jax.clear_caches()


def torch_runner(network: str, dtype: str, mode: str | None, device: str) -> Callable[[int], None]:
    """A function that trains one model for some steps.

    Unlike this project, it does not look whether the loss is finite: the host would wait for the chip at each step.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks import torch_cvae

    training = torch_cvae.Training(network, *synthetic_data(), latent_dim=LATENT_DIM)
    training.x, training.c = training.x.to(device), training.c.to(device)

    def loss_of(grey: Any, c: Any) -> Any:
        x = torch.bernoulli(grey.float() / 255.0).reshape(-1, *training.shape)
        noise = torch.randn(len(c), LATENT_DIM, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return torch_cvae.negative_beta_elbo(training.model, x, c, noise, 1.0)

    if mode is not None:
        loss_of = torch.compile(loss_of, mode=mode)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            torch.compiler.cudagraph_mark_step_begin()
            rows = next(training.batches)
            training.optimizer.zero_grad(set_to_none=True)
            terms = loss_of(training.x.index_select(0, rows), training.c.index_select(0, rows))
            terms.loss.backward()
            training.optimizer.step()
            training.sums += torch.stack([term.detach() for term in terms])
        training.sums.tolist()  # waits for the chip

    return run


def measure_torch(deadline: float) -> None:
    """PyTorch: one model at a time, in each mode."""
    import torch  # pyright: ignore[reportMissingImports]

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    torch.set_default_device(device)
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, as JAX has it
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    say(torch_gpu=on_gpu, versions={"torch": torch.__version__})
    for mode in FLAGS.torch_modes or (TORCH_MODES if on_gpu else ("eager",)):
        for network in FLAGS.networks:
            for dtype in FLAGS.dtypes:
                what = {"library": f"torch {mode}", "network": network, "dtype": dtype, "members": 1}
                if time.time() > deadline:
                    say(result=what | {"skipped": "no time left"})
                    continue
                run = torch_runner(network, dtype, TORCH_MODES[mode], device)
                say(result=what | measure(run, FLAGS.seconds, 400))


# The asking process


def records_of(library: str, deadline: float) -> Iterator[Record]:
    """What a library's process says until its end; it is stopped half a minute after its deadline."""
    command = [sys.executable, "-m", "benchmarks.sweep_gpu", *sys.argv[1:]]
    command += [f"--library={library}", f"--deadline={deadline}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(max(1.0, deadline + 30 - time.time()), process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)
        if process.wait():
            yield {"failed": f"the {library} process ended with status {process.returncode}"}
    finally:
        timer.cancel()
        process.kill()


def gather(output: str | None, minutes: float) -> Record:
    """All measurements, written after each."""
    start = time.time()
    found: Record = {"batch_size": BATCH_SIZE, "latent_dim": LATENT_DIM, "results": [], "versions": {}}
    # PyTorch first, because every other number is put beside its own, but it may not take all the time.
    libraries = {"torch": 0.4, "jax": 1.0} if FLAGS.torch else {"jax": 1.0}
    for library, share in libraries.items():
        for record in records_of(library, start + 60 * minutes * share - 30):
            found["versions"] |= record.pop("versions", {})
            if "result" in record:
                found["results"].append(record["result"])
                print(one_line(record["result"]), flush=True)
            elif "failed" in record:
                found.setdefault("failed", []).append(record["failed"])
                print(record["failed"], flush=True)
            else:
                found |= record
            if output:
                write_json(Path(output), found | {"seconds": time.time() - start})
    return found


def one_line(result: Record) -> str:
    what = "{library}, {network}, {dtype}, members {members}: ".format(**result)
    if "skipped" in result:
        return what + result["skipped"]
    return what + "{milliseconds_per_step:.3f} ms a step, first call {first_call_seconds:.1f} s".format(
        **result
    )


def add_shares(found: Record) -> list[Record]:
    """Throughput, shares of the chip's speeds and ratios to PyTorch, added to this project's results."""
    from benchmarks.step import step_flops

    measured = [r for r in found["results"] if "skipped" not in r]
    for r in measured:
        r["member_steps_per_second"] = 1e3 * r["members"] / r["milliseconds_per_step"]
    ours = [r for r in measured if r["library"] == "jax"]
    for r in ours:
        alike = [o for o in measured if (o["network"], o["dtype"]) == (r["network"], r["dtype"])]
        speed = r["member_steps_per_second"]
        flops, moved = step_flops(r["network"]) * speed, state_bytes(r["params"], r["dtype"]) * speed
        r["share_of_matrix_product"] = flops / 1e12 / found["peaks"]["matrix_product_tflops"][r["dtype"]]
        copy = 1e9 * found["peaks"]["copy_gigabytes_per_second"]
        r["share_of_copy"] = moved / copy
        r["share_of_copy_by_xla"] = r["bytes_accessed"] * speed / copy
        r["over_torch"] = {
            o["library"].removeprefix("torch "): speed / o["member_steps_per_second"]
            for o in alike
            if o["library"] != "jax"
        }
        one = next((o for o in alike if o["library"] == "jax" and o["members"] == 1), None)
        r["time_over_one"] = r["milliseconds_per_step"] / one["milliseconds_per_step"] if one else None
    return sorted(ours, key=lambda r: (r["network"], r["dtype"], r["members"]))


def table(ours: list[Record]) -> str:
    """A line per configuration of this project."""
    modes = list(dict.fromkeys(mode for r in ours for mode in r["over_torch"]))
    heads = [
        "network",
        "dtype",
        "members",
        "ms/step",
        "member-steps/s",
        "time/one",
        "% product",
        "% copy",
        "% xla",
    ]
    lines = [[*heads, *(f"÷torch {mode}" for mode in modes)]]
    for r in ours:
        lines.append([
            r["network"], r["dtype"], str(r["members"]), f"{r['milliseconds_per_step']:.3f}",
            f"{r['member_steps_per_second']:,.0f}",
            f"{r['time_over_one']:.2f}" if r["time_over_one"] else "",
            f"{100 * r['share_of_matrix_product']:.1f}", f"{100 * r['share_of_copy']:.1f}",
            f"{100 * r['share_of_copy_by_xla']:.1f}",
            *(f"{r['over_torch'][mode]:.2f}" if mode in r["over_torch"] else "" for mode in modes),
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    if FLAGS.library:
        {"jax": measure_jax, "torch": measure_torch}[FLAGS.library](FLAGS.deadline)
        return
    found = gather(FLAGS.output, FLAGS.minutes)
    if "peaks" not in found:
        raise SystemExit("error: nothing was measured")
    ours = add_shares(found)
    if FLAGS.output:
        write_json(Path(FLAGS.output), found)
    peaks = found["peaks"]
    products = ", ".join(f"{k} {v:.1f} TFLOP/s" for k, v in peaks["matrix_product_tflops"].items())
    print(f"{found['chip']}: {', '.join(f'{k} {v}' for k, v in found['versions'].items())}")
    print(
        f"products of side {peaks['matrix_side']}: {products}; copy {peaks['copy_gigabytes_per_second']:.0f} GB/s"
    )
    print("% copy: bytes of parameters and optimizer alone; % xla: all bytes that XLA counts, caches or not")
    print(table(ours))
    for r in ours:
        if r["members"] == 64 and r["time_over_one"]:
            print(
                f"{r['network']} {r['dtype']}: 64 members take {r['time_over_one']:.2f} times as long as one"
            )
    if not found["gpu"]:
        print("no GPU was found: this is a smoke run on a CPU, and its numbers say nothing of a GPU")
    elif found.get("torch_gpu") is False:
        print("PyTorch found no GPU: its numbers are of the CPU, and the ratios to it say nothing")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "JSON file, rewritten after each measurement.")
    flags.DEFINE_list("members", ["1", "4", "16", "64", "256"], "Numbers of members.")
    flags.DEFINE_list("networks", ["mlp", "conv"], "mlp, conv or both.")
    flags.DEFINE_list("dtypes", list(DTYPES), "float32, bfloat16 or both.")
    flags.DEFINE_float(
        "seconds", 1.0, "About how long a measurement lasts, compiling apart.", lower_bound=0.01
    )
    flags.DEFINE_float("minutes", 8.0, "No measurement begins in the last half minute of these.")
    flags.DEFINE_bool("torch", True, "Measure PyTorch, too.")
    flags.DEFINE_list(
        "torch_modes", None, "Of eager, compile, graphs: all on a GPU, eager on a CPU if not given."
    )
    for name, choices in (("networks", ["mlp", "conv"]), ("dtypes", DTYPES), ("torch_modes", TORCH_MODES)):
        message = f"expected only {', '.join(choices)}"
        flags.register_validator(name, lambda v, choices=choices: set(v or ()) <= set(choices), message)
    flags.DEFINE_enum("library", None, ["jax", "torch"], "Used by this script for the processes it starts.")
    flags.DEFINE_float("deadline", None, "Used by this script, seconds since 1970.")
    app.run(main)
