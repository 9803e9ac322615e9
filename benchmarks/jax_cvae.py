"""This project's training as the benchmarks run it: any members, through `sweep.run_steps`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.training import loader, population
from cvae_jax.training.config import from_flat, replace
from cvae_jax.training.grid import Settings
from cvae_jax.training.hparams import stack_hparams

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8


class Training:
    """Members trained together on images of 256 grey levels."""

    def __init__(
        self,
        network: str,
        x: UInt8[np.ndarray, "n H W C"],
        c: Int[np.ndarray, " n"],
        settings: Sequence[Settings] = ({"latent_dim": 20},),
    ) -> None:
        """Initialize all members, 128 examples to a batch."""
        config = from_flat(network=network)
        members = [replace(config, **each) for each in settings]
        split = Split(x, c)
        dataset = Dataset("synthetic", split, split, split, 255.0, Label(10))
        self.steps_per_epoch = loader.steps_per_epoch(config, dataset)
        self.model = population.build_model(members, dataset)
        self.hparams = stack_hparams(members, capacity=self.model.capacity)
        self.data = loader.training_data(config, dataset)
        self.population = population.init(self.model, self.hparams)
        self.order = loader.epoch_order(self.data, jnp.int32(0))

    @property
    def num_params(self) -> int:
        """Of one member."""
        return sum(leaf[0].size for leaf in jax.tree.leaves(self.population.members.params["params"]))

    def run(self, num_steps: int) -> None:
        """Train for some steps, one call for each epoch they reach into; as in a training, its order is drawn once."""
        while num_steps:
            epoch, start = divmod(int(self.population.step), self.steps_per_epoch)
            if start == 0:
                self.order = loader.epoch_order(self.data, jnp.int32(epoch))
            chunk = min(num_steps, self.steps_per_epoch - start)
            self.population = population.run_steps(
                self.model, self.population, self.hparams, self.data, jnp.int32(chunk), self.order
            )
            num_steps -= chunk
        jax.block_until_ready(self.population)


def matrix_product_gflops() -> float:
    """Speed of a 4096×1024 by 1024×1024 float32 product, the best of ten."""
    a, b = jnp.ones((4096, 1024)), jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(product(a, b))
        seconds.append(time.perf_counter() - start)
    return 2 * 4096 * 1024 * 1024 / min(seconds) / 1e9
