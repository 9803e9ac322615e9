"""Named key streams: every consumer of randomness has its own, so that no key is used twice."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import jax

from cvae_jax.errors import SettingError
from cvae_jax.options import SEED, require_within

if TYPE_CHECKING:
    from jaxtyping import Array, Key


# The generator of every random number, recorded with each run.
GENERATOR = "threefry2x32, partitionable"
# What JAX may be set to by a caller or the environment, and must be for a seed to give the numbers it gave before.
_EXPECTED = {"jax_enable_x64": False, "jax_threefry_partitionable": True, "jax_random_seed_offset": 0}


class Stream(enum.IntEnum):
    """A consumer of random numbers. The values are part of every result: never renumber them."""

    INIT = 0
    NOISE = 1
    ORDER = 2
    BINARIZE = 3
    FIXED_BINARIZE = 4
    EVALUATION = 5
    SAMPLES = 6
    IMPORTANCE = 7
    DISCRIMINATOR = 8
    OBJECTIVE = 9
    LATENTS = 10
    CLASSIFIER = 11
    QUALITY = 12
    DROPOUT = 13
    AUGMENT = 14
    CONDITION = 15
    VALIDATION = 16
    HOOK = 17


def root_key(seed: int) -> Key[Array, ""]:
    """The key of a seed, from the same generator whatever JAX's default is.

    Args:
      seed: a whole number, 0 ≤ seed < 2³².

    Raises:
      SettingError: if JAX is set to draw other numbers from a key, or in 64 bits; for a seed that JAX would take for
        another one.
    """
    require_within("seed", seed, SEED)
    for name, expected in _EXPECTED.items():
        if (found := getattr(jax.config, name)) != expected:
            raise SettingError(
                f"{name} is {found}, expected {expected}: another value changes every random number"
            )
    return jax.random.key(seed, impl="threefry2x32")


def pin_generator() -> None:
    """Set JAX, for the whole process, to what `root_key` expects, whatever the environment says."""
    for name, expected in _EXPECTED.items():
        jax.config.update(name, expected)


def stream(key: Key[Array, ""], name: Stream) -> Key[Array, ""]:
    """The root key of one consumer; `fold_in` the step, epoch or example before drawing from it."""
    return jax.random.fold_in(key, int(name))


def evaluation_key() -> Key[Array, ""]:
    """The one key that all evaluations draw from, so that two models meet the same noise."""
    return stream(root_key(0), Stream.EVALUATION)
