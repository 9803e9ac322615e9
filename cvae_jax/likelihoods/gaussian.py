"""Gaussian likelihoods, whose one standard deviation is fixed, learned, or fitted to the training batches."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.losses import LEAST_VARIANCE, gaussian_log_likelihood, optimal_logvar, standard_deviation
from cvae_jax.options import POSITIVE, static

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    Data = Float[Array, "*x"]


@dataclasses.dataclass(frozen=True)
class Gaussian(Likelihood):
    """Independent Gaussian pixels of one fixed standard deviation: the squared error, normalized.

    The output holds means.
    """

    sigma: float = static(0.1, bounds=POSITIVE, help="Standard deviation of a pixel, in units of x.")

    def log_prob(self, output: Data, x: Data) -> Float[Array, ""]:
        """log p(x|output) of one example, nats."""
        return gaussian_log_likelihood(output, x, 2.0 * math.log(self.sigma))

    def mean(self, output: Data) -> Data:
        """The output itself."""
        return output

    def sample(self, key: Key[Array, ""], output: Data) -> Data:
        """One draw of x."""
        return output + self.sigma * jax.random.normal(key, output.shape, output.dtype)


class GaussianOutput(NamedTuple):
    """A decoder's output where the model has one log-variance for all pixels.

    Attributes:
      mean: shape (...).
      logvar: of every pixel, scalar.
    """

    mean: Float[Array, "*x"]
    logvar: Float[Array, ""]


class _OneLogvar(Likelihood):
    """Independent Gaussian pixels of one standard deviation, which the model holds."""

    def log_prob(self, output: GaussianOutput, x: Data) -> Float[Array, ""]:
        """log p(x|output) of one example, nats."""
        return gaussian_log_likelihood(output.mean, x, output.logvar)

    def mean(self, output: GaussianOutput) -> Data:
        """The means of the pixels."""
        return output.mean

    def sample(self, key: Key[Array, ""], output: GaussianOutput) -> Data:
        """One draw of x."""
        mean, logvar = output
        return mean + standard_deviation(logvar) * jax.random.normal(key, mean.shape, mean.dtype)


@dataclasses.dataclass(frozen=True)
class GaussianLearned(_OneLogvar):
    """Independent Gaussian pixels of one standard deviation, which is learned by its gradient."""

    sigma: float = static(
        0.1, bounds=POSITIVE, help="Standard deviation of a pixel before training, in units of x."
    )

    @property
    def initial_logvar(self) -> float:
        """2 log σ."""
        return 2.0 * math.log(self.sigma)


@dataclasses.dataclass(frozen=True)
class GaussianOptimal(_OneLogvar):
    """Independent Gaussian pixels of the one standard deviation that fits best.

    A training step uses that of its batch, in closed form: see `fit_logvar`. The model holds a running average of
    these, under which everything else is measured: no example by a standard deviation that was fitted to it.

    References:
      Rybkin, Daniilidis & Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021.
    """

    fits_batch: ClassVar[bool] = True

    @property
    def initial_logvar(self) -> float:
        """That of σ = 1."""
        return 0.0


def fit_logvar(outputs: GaussianOutput, x: Float[Array, " b *dims"]) -> GaussianOutput:
    """The same means, with the log-variance under which the whole batch is most likely.

    Args:
      outputs: of a batch, shapes (b, *dims) and (b,).
      x: the batch, shape (b, *dims).

    Returns:
      Shapes as of `outputs`.
    """
    logvar = optimal_logvar(outputs.mean, x)
    return GaussianOutput(outputs.mean, jnp.broadcast_to(logvar, outputs.logvar.shape))


def fitted_logvar(distortion: Float[Array, ""], size: int) -> Float[Array, ""]:
    """The log-variance that `fit_logvar` fitted to a batch, from the distortion under it.

    Under the batch's own v the mean squared error is e^v, so that D = n/2 (1 + v + log 2π). A mean squared error below
    `LEAST_VARIANCE` gives a lower D; v is that variance's there.

    Args:
      distortion: D, the mean over the batch, nats per example.
      size: n, numbers per example.

    Returns:
      Scalar, the logarithm of a variance in squared units of x.
    """
    logvar = 2.0 * distortion / size - 1.0 - math.log(2.0 * math.pi)
    return jnp.maximum(logvar, math.log(LEAST_VARIANCE))
