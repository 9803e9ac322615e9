"""The likelihood of grey data between 0 and 1."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp

from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.losses import continuous_bernoulli_log_likelihood

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    Data = Float[Array, "*x"]

# Below these logits, series replace differences that lose their digits.
_MEAN_SERIES_BELOW, _UNIFORM_BELOW = 0.2, 1e-3


@dataclasses.dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    """Independent grey pixels in [0, 1]; the output holds logits. The cross entropy of grey pixels, normalized.

    References:
      Loaiza-Ganem & Cunningham, The Continuous Bernoulli, 2019.
    """

    unit_interval: ClassVar[bool] = True

    def log_prob(self, output: Data, x: Data) -> Float[Array, ""]:
        """log p(x|output) of one example, nats."""
        return continuous_bernoulli_log_likelihood(output, x)

    def mean(self, output: Data) -> Data:
        """1/(1 − e^{−ℓ}) − 1/ℓ, by its series near 0."""
        near = jnp.abs(output) < _MEAN_SERIES_BELOW
        away = jnp.where(near, 1.0, output)
        # ½ + ½ coth(ℓ/2) − 1/ℓ
        exact = 0.5 + 0.5 / jnp.tanh(0.5 * away) - 1.0 / away
        return jnp.where(near, 0.5 + output / 12.0 - output**3 / 720.0, exact)

    def sample(self, key: Key[Array, ""], output: Data) -> Data:
        """One draw of x: the inverse of the distribution function, at uniform draws."""
        uniform = jax.random.uniform(key, output.shape, output.dtype)
        near = jnp.abs(output) < _UNIFORM_BELOW
        # x at ℓ is 1 − x at −ℓ, and a negative exponent does not overflow.
        magnitude = jnp.where(near, 1.0, jnp.abs(output))
        below = -jnp.log1p(uniform * jnp.expm1(-magnitude)) / magnitude
        below = jnp.clip(jnp.where(near, uniform, below), 0.0, 1.0)
        return jnp.where(output > 0.0, 1.0 - below, below)
