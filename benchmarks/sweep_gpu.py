"""A sweep on one GPU against PyTorch training one model after another.

  python -m benchmarks.sweep_gpu --output=sweep_gpu.json

Member-steps per second by number of members, for both networks in float32 (matrix products in TF32, both libraries'
fast default) and bfloat16, beside the chip's own matrix product and copy speed measured in the same run. Each
library has a process of its own; compile time is measured separately; results are written as they come. Smoke run
on a CPU:

  python -m benchmarks.sweep_gpu --members=1,2 --networks=mlp --seconds=1
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags

from benchmarks.gpu_timing import BATCH_SIZE, DTYPES, LATENT_DIM, TORCH_MODES, Record
from cvae_jax.runs.workdir import write_json

FLAGS = flags.FLAGS


def state_bytes(num_params: int, dtype: str) -> int:
    """Bytes that one member's step moves at least, for parameters and optimizer; activations are left out.

    Of each parameter, in float32: the clipping reads the gradient; Adam reads parameter, gradient and both moments
    and writes all but the gradient; backward writes the gradient. Forward and backward each read the parameter:
    4 bytes, or 2 of a copy in bfloat16 that costs a read of 4 and a write of 2.
    """
    reads = {"float32": 4 + 4, "bfloat16": 2 + 2 + 4 + 2}[dtype]
    return num_params * (4 + 4 * (4 + 3) + 4 + reads)


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
    return what + "{milliseconds_per_step:.3f} ms a step".format(**result)


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


def measure_library() -> None:
    """One library's process: prints a JSON object per line."""
    common = (FLAGS.networks, FLAGS.dtypes, FLAGS.seconds, FLAGS.deadline)
    # The two libraries are not imported into one process: each takes the GPU's memory.
    if FLAGS.library == "jax":
        from benchmarks.gpu_jax import measure_jax

        measure_jax([int(size) for size in FLAGS.members], *common)
    else:
        from benchmarks.gpu_torch import measure_torch

        measure_torch(FLAGS.torch_modes, *common)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    if FLAGS.library:
        measure_library()
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
        "seconds", 1.0, "About how long a measurement lasts, without compilation.", lower_bound=0.01
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
