"""Tests run under strict dtype promotion, annotations checked, warnings as errors, on two CPU devices."""

import os
from pathlib import Path

import checked
from compiling import QUICKLY

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2", *QUICKLY]
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Before anything imports the library: only what is imported afterwards is checked.
checked.install()

import jax
import numpy as np
import pytest
from arrays import labels, load, pixels

from cvae_jax.files import cache_dir
from cvae_jax.training import loader, population
from cvae_jax.training.config import from_flat
from cvae_jax.training.hparams import stack_hparams
from experiments import tasks

jax.config.update("jax_numpy_dtype_promotion", "strict")
# A GPU would round the factors of a matrix product to TF32.
jax.config.update("jax_default_matmul_precision", "highest")
# The processes of a parallel run, and the next run, find each other's programs.
jax.config.update("jax_compilation_cache_dir", os.fspath(cache_dir() / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

tasks.register()

SHARED_TFDS = Path(__file__).parents[2] / "shared" / "data" / "tfds"


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """A file's compiled programs are of no use to the next: kept, they come to gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def tfds_dir():
    if not SHARED_TFDS.exists():
        pytest.skip(f"no prepared datasets in {SHARED_TFDS}")
    return SHARED_TFDS


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def digits(cache_dir):
    return load("digits", cache_dir=cache_dir)


@pytest.fixture(scope="session")
def make_sweep(digits):
    """A function from settings of members, and those they share, to model, stacked hparams and training data on digits.

    All settings are options by flat name.
    """

    def make(*settings, **shared):
        members = [from_flat(**({"batch_size": 32} | shared | each)) for each in settings]
        model = population.build_model(members, digits)
        return (
            model,
            stack_hparams(members, capacity=model.capacity),
            loader.training_data(members[0], digits),
        )

    return make


@pytest.fixture
def npz(tmp_path):
    """A function that writes arrays, good ones unless others are given, and returns the file."""

    def write(**arrays):
        arrays = {"x_train": pixels(), "c_train": labels()} | arrays
        np.savez(tmp_path / "own.npz", **{name: a for name, a in arrays.items() if a is not None})
        return tmp_path / "own.npz"

    return write
