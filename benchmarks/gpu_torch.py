"""PyTorch's process of `benchmarks.sweep_gpu`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from benchmarks import torch_cvae
from benchmarks.gpu_timing import LATENT_DIM, TORCH_MODES, measure, say
from benchmarks.workers import synthetic_data


def torch_runner(network: str, dtype: str, mode: str | None, device: str) -> Callable[[int], None]:
    """A function that trains one model for some steps.

    Unlike this project, it does not look whether the loss is finite: the host would wait for the chip at each step.
    """
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


def measure_torch(
    modes: Sequence[str] | None,
    networks: Sequence[str],
    dtypes: Sequence[str],
    seconds: float,
    deadline: float,
) -> None:
    """PyTorch: one model at a time, in each mode."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    torch.set_default_device(device)
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, as JAX has it
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    say(torch_gpu=on_gpu, versions={"torch": torch.__version__})
    for mode in modes or (TORCH_MODES if on_gpu else ("eager",)):
        for network in networks:
            for dtype in dtypes:
                what = {"library": f"torch {mode}", "network": network, "dtype": dtype, "members": 1}
                if time.time() > deadline:
                    say(result=what | {"skipped": "no time left"})
                    continue
                run = torch_runner(network, dtype, TORCH_MODES[mode], device)
                say(result=what | measure(run, seconds, 400))
