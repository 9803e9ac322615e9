"""Named key streams: every consumer of randomness has its own, so that no key is used twice."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
    from jaxtyping import Array, Key


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


def stream(key: Key[Array, ""], name: Stream) -> Key[Array, ""]:
    """The root key of one consumer; `fold_in` the step, epoch or example before drawing from it."""
    return jax.random.fold_in(key, int(name))
