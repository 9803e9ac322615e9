"""Likelihoods p(x|z,c): what the decoder's output means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax

from cvae_jax.config import Config
from cvae_jax.losses import bernoulli_log_likelihood, gaussian_log_likelihood

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    Output = Float[Array, "*x"]
    Data = Float[Array, "*x"]


class Likelihood(NamedTuple):
    """A family of densities over one example, indexed by the decoder's output.

    Attributes:
      log_prob: (output, x) -> log p(x|output), scalar, nats.
      mean: output -> the mean of x, in units of x.
      sample: (key, output) -> one draw of x.
    """

    log_prob: Callable[[Output, Data], Float[Array, ""]]
    mean: Callable[[Output], Data]
    sample: Callable[[Key[Array, ""], Output], Data]


def bernoulli() -> Likelihood:
    """Independent binary pixels; the output holds logits."""
    return Likelihood(
        log_prob=bernoulli_log_likelihood,
        mean=jax.nn.sigmoid,
        sample=lambda key, output: jax.random.bernoulli(key, jax.nn.sigmoid(output)).astype(output.dtype),
    )


def gaussian(sigma: float) -> Likelihood:
    """Independent Gaussian pixels of one fixed standard deviation; the output holds means."""
    logvar = 2.0 * math.log(sigma)
    return Likelihood(
        log_prob=lambda output, x: gaussian_log_likelihood(output, x, logvar),
        mean=lambda output: output,
        sample=lambda key, output: output + sigma * jax.random.normal(key, output.shape, output.dtype),
    )


def likelihood(config: Config) -> Likelihood:
    """The likelihood a configuration names."""
    match config.likelihood:
        case "bernoulli":
            return bernoulli()
        case "gaussian":
            return gaussian(config.sigma)
