"""The likelihood of binary data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax

from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.losses import bernoulli_log_likelihood

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    Data = Float[Array, "*x"]


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent binary pixels; the output holds logits. Its negative logarithm is the cross entropy."""

    binary: ClassVar[bool] = True
    unit_interval: ClassVar[bool] = True

    def log_prob(self, output: Data, x: Data) -> Float[Array, ""]:
        """log p(x|output) of one example, nats."""
        return bernoulli_log_likelihood(output, x)

    def mean(self, output: Data) -> Data:
        """The probability that a pixel is 1."""
        return jax.nn.sigmoid(output)

    def sample(self, key: Key[Array, ""], output: Data) -> Data:
        """One draw of x, of zeros and ones."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(output)).astype(output.dtype)
