"""Likelihoods p(x|z,c): what the decoder's output means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from cvae_jax.config import Config
from cvae_jax.losses import (
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
)

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


def continuous_bernoulli() -> Likelihood:
    """Independent grey pixels in [0, 1]; the output holds logits."""
    return Likelihood(
        log_prob=continuous_bernoulli_log_likelihood,
        mean=_continuous_bernoulli_mean,
        sample=_continuous_bernoulli_sample,
    )


def _continuous_bernoulli_mean(logits: Output) -> Data:
    """1/(1 − e^{−ℓ}) − 1/ℓ, by its series near 0."""
    near = jnp.abs(logits) < 0.2
    away = jnp.where(near, 1.0, logits)
    # ½ + ½ coth(ℓ/2) − 1/ℓ
    exact = 0.5 + 0.5 / jnp.tanh(0.5 * away) - 1.0 / away
    return jnp.where(near, 0.5 + logits / 12.0 - logits**3 / 720.0, exact)


def _continuous_bernoulli_sample(key: Key[Array, ""], logits: Output) -> Data:
    """The inverse of the distribution function, at uniform draws."""
    uniform = jax.random.uniform(key, logits.shape, logits.dtype)
    near = jnp.abs(logits) < 1e-3
    # x at ℓ is 1 − x at −ℓ, and a negative exponent does not overflow.
    magnitude = jnp.where(near, 1.0, jnp.abs(logits))
    below = -jnp.log1p(uniform * jnp.expm1(-magnitude)) / magnitude
    below = jnp.clip(jnp.where(near, uniform, below), 0.0, 1.0)
    return jnp.where(logits > 0.0, 1.0 - below, below)


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
        case "continuous_bernoulli":
            return continuous_bernoulli()
        case "gaussian":
            return gaussian(config.sigma)
