"""Small datasets for tests: arrays, and how they are loaded."""

import numpy as np

from cvae_jax import data
from cvae_jax.config import Config

SPLITS = ("train", "validation", "test")
GREY = {"likelihood": "gaussian", "binarize": "none"}
rng = np.random.default_rng(0)


def load(dataset, **fields):
    return data.load(
        Config(**({"dataset": str(dataset), "batch_size": 8} | fields)), data_dir=None, cache_dir=None
    )


def pixels(n=60, dtype=np.float32):
    grey = rng.uniform(size=(n, 6, 5, 1))
    return (255 * grey).astype(np.uint8) if dtype == np.uint8 else grey.astype(dtype)


def labels(n=60):
    return np.arange(n) % 3


class Source(list):
    """Examples as TFDS gives them out: one by one or, by their numbers, several at once."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]
