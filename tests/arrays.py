"""Small datasets for tests: arrays, and how they are loaded; and parameters that take no compiling."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions import CONDITIONS
from cvae_jax.data import reading
from cvae_jax.data.settings import Data
from cvae_jax.likelihoods import LIKELIHOODS

SPLITS = ("train", "validation", "test")
GREY = {"likelihood": "gaussian", "binarize": "none"}
rng = np.random.default_rng(0)


def load(
    dataset,
    *,
    condition=None,
    likelihood="bernoulli",
    data_dir=None,
    cache_dir=Path(),
    **fields,
):
    """A dataset as training takes it; conditions by name, with commas between, and `none` for none."""
    names = [] if condition in (None, "none") else condition.split(",")
    parts = None if condition is None else tuple(CONDITIONS[name]() for name in names)
    data = Data(dataset=str(dataset), **fields)
    return reading.load(data, parts, LIKELIHOODS[likelihood](), data_dir=data_dir, cache_dir=cache_dir)


def pixels(n=60, dtype=np.float32):
    grey = rng.uniform(size=(n, 6, 5, 1))
    return (255 * grey).astype(np.uint8) if dtype == np.uint8 else grey.astype(dtype)


def labels(n=60):
    return np.arange(n) % 3


class Source(list):
    """Examples as TFDS gives them out: one by one or, by their numbers, several at once."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


def any_params(module, *args):
    """Variables of a module or model, whose `init` takes these arguments, by NumPy.

    Kernels keep sizes, there are no biases, and all latents are in use.
    """
    draws = np.random.default_rng(0)

    def one(path, leaf):
        if len(leaf.shape) < 2:
            return jnp.full(leaf.shape, path[-1].key in ("scale", "mask"), leaf.dtype)
        return jnp.asarray(draws.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, jax.eval_shape(module.init, *args))
