"""Likelihoods p(x|z,c): what the decoder's output means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from cvae_jax.config import Config
from cvae_jax.densities import LEAST_VARIANCE, standard_deviation
from cvae_jax.losses import (
    LogisticMixture,
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
    logistic_mixture_log_likelihood,
    optimal_logvar,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    Data = Float[Array, "*x"]


class GaussianOutput(NamedTuple):
    """A decoder's output where the model has one log-variance for all pixels.

    Attributes:
      mean: shape (...).
      logvar: of every pixel, scalar.
    """

    mean: Float[Array, "*x"]
    logvar: Float[Array, ""]


class Likelihood(NamedTuple):
    """A family of densities over one example, indexed by the decoder's output.

    The output is an array of shape (H, W, channels(C)), in a `GaussianOutput` where there is a `logvar`.

    Attributes:
      log_prob: (output, x) -> log p(x|output), scalar, nats.
      mean: output -> the mean of x, in units of x.
      sample: (key, output) -> one draw of x.
      channels: of the output, from the channels of x.
      logvar: where the model's own log-variance starts; None for a model without.
      fit: (outputs, x) -> the outputs with the log-variance under which a whole batch is likeliest. For training alone,
        which keeps a running average of it for all else; None leaves a log-variance to the gradient.
      bits: whether x is whole levels, so that the bound counts bits per dimension.
    """

    log_prob: Callable[[Any, Data], Float[Array, ""]]
    mean: Callable[[Any], Data]
    sample: Callable[[Key[Array, ""], Any], Data]
    channels: Callable[[int], int] = lambda channels: channels
    logvar: float | None = None
    fit: Callable[[Any, Data], Any] | None = None
    bits: bool = False


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


def _continuous_bernoulli_mean(logits: Data) -> Data:
    """1/(1 − e^{−ℓ}) − 1/ℓ, by its series near 0."""
    near = jnp.abs(logits) < 0.2
    away = jnp.where(near, 1.0, logits)
    # ½ + ½ coth(ℓ/2) − 1/ℓ
    exact = 0.5 + 0.5 / jnp.tanh(0.5 * away) - 1.0 / away
    return jnp.where(near, 0.5 + logits / 12.0 - logits**3 / 720.0, exact)


def _continuous_bernoulli_sample(key: Key[Array, ""], logits: Data) -> Data:
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


def gaussian_learned(sigma: float) -> Likelihood:
    """Independent Gaussian pixels of one standard deviation, which starts at `sigma` and is learned."""
    return Likelihood(
        log_prob=lambda output, x: gaussian_log_likelihood(output.mean, x, output.logvar),
        mean=lambda output: output.mean,
        sample=_gaussian_sample,
        logvar=2.0 * math.log(sigma),
    )


def gaussian_optimal() -> Likelihood:
    """Independent Gaussian pixels of the one standard deviation that fits best.

    In training that is the batch's own, in closed form; anywhere else the running average of the batches', so that no
    example is measured by a standard deviation fitted to it.

    References:
      Rybkin, Daniilidis & Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021.
    """
    return gaussian_learned(1.0)._replace(fit=_fit_logvar)


def _gaussian_sample(key: Key[Array, ""], output: GaussianOutput) -> Data:
    mean, logvar = output
    return mean + standard_deviation(logvar) * jax.random.normal(key, mean.shape, mean.dtype)


def _fit_logvar(outputs: GaussianOutput, x: Float[Array, "b H W C"]) -> GaussianOutput:
    return GaussianOutput(
        outputs.mean, jnp.broadcast_to(optimal_logvar(outputs.mean, x), outputs.logvar.shape)
    )


def fitted_logvar(distortion: Float[Array, ""], size: int) -> Float[Array, ""]:
    """The log-variance that `gaussian_optimal` fitted to a batch, from the distortion that came of it.

    Under the batch's own v the mean squared error is e^v, so that D = n/2 (1 + v + log 2π). A mean squared error below
    `LEAST_VARIANCE` gives a lower D; v is that variance's there.

    Args:
      distortion: D, the mean over the batch, nats per example.
      size: n, numbers per example.
    """
    logvar = 2.0 * distortion / size - 1.0 - math.log(2.0 * math.pi)
    return jnp.maximum(logvar, math.log(LEAST_VARIANCE))


def logistic_mixture(num_components: int, levels: int) -> Likelihood:
    """Pixels of whole levels under a mixture of logistics each, whose channels depend on those before.

    The mean is a mean: it may lie between the modes of a mixture, where no sample does. It is that of logistics that
    end at the lowest and the highest level but are not rounded to those between, so within half a level; a channel
    takes those before at their means.

    Args:
      num_components: logistics per pixel.
      levels: number of values of a pixel, 256 for 8 bits.

    References:
      Salimans et al., PixelCNN++, 2017, sections 2.1 and 2.2.
    """

    def log_prob(output: Data, x: Data) -> Float[Array, ""]:
        return logistic_mixture_log_likelihood(_mixture(output, num_components), x, levels=levels)

    return Likelihood(
        log_prob=log_prob,
        mean=lambda output: _mixture_mean(_mixture(output, num_components)),
        sample=lambda key, output: _mixture_sample(key, _mixture(output, num_components), levels),
        channels=lambda channels: num_components * (1 + 2 * channels + channels * (channels - 1) // 2),
        bits=True,
    )


def _mixture(output: Float[Array, "*hw n"], num_components: int) -> LogisticMixture:
    """The parameters that the output of a pixel holds one after another."""
    parts = output.reshape(*output.shape[:-1], -1, num_components)
    # Of n = 1 + 2C + C(C−1)/2 parts.
    channels = (math.isqrt(8 * parts.shape[-2] + 1) - 3) // 2
    logits, means, log_scales, couplings = jnp.split(parts, [1, 1 + channels, 1 + 2 * channels], axis=-2)
    return LogisticMixture(logits[..., 0, :], means, log_scales, couplings)


def _mixture_mean(mixture: LogisticMixture) -> Data:
    weights, scales = jax.nn.softmax(mixture.logits), mixture.scales()
    means: list[Array] = []
    for i in range(mixture.means.shape[-2]):
        scale = scales[..., i, :]
        # Farther out the mean is at the end already, and the difference below loses its digits.
        mean = jnp.clip(mixture.channel_means(means), -1.0 - 20.0 * scale, 1.0 + 20.0 * scale)
        # −1 + the integral of P(y > t) from −1 to 1.
        inside = jax.nn.softplus((mean + 1.0) / scale) - jax.nn.softplus((mean - 1.0) / scale)
        means.append(scale * inside - 1.0)
    y = jnp.stack([jnp.sum(weights * mean, axis=-1) for mean in means], axis=-1)
    return 0.5 * (y + 1.0)


def _mixture_sample(key: Key[Array, ""], mixture: LogisticMixture, levels: int) -> Data:
    component_key, noise_key = jax.random.split(key)
    component = jax.random.categorical(component_key, mixture.logits)[..., None]

    def pick(a: Array) -> Array:
        at = component.reshape(component.shape[:-1] + (1,) * (a.ndim - component.ndim) + (1,))
        return jnp.take_along_axis(a, at, axis=-1)

    one = LogisticMixture(*map(pick, mixture))
    scales = one.scales()
    noise = jax.random.logistic(noise_key, scales.shape, scales.dtype)
    drawn: list[Array] = []
    for i in range(scales.shape[-2]):
        y = one.channel_means(drawn) + scales[..., i, :] * noise[..., i, :]
        level = jnp.clip(jnp.round(0.5 * (y + 1.0) * (levels - 1)), 0.0, levels - 1.0)
        drawn.append(2.0 * level / (levels - 1) - 1.0)
    return 0.5 * (jnp.concatenate(drawn, axis=-1) + 1.0)


def likelihood(config: Config, levels: int = 256) -> Likelihood:
    """The likelihood a configuration names, of pixels of so many levels."""
    match config.likelihood:
        case "bernoulli":
            return bernoulli()
        case "continuous_bernoulli":
            return continuous_bernoulli()
        case "gaussian":
            return gaussian(config.sigma)
        case "gaussian_learned":
            return gaussian_learned(config.sigma)
        case "gaussian_optimal":
            return gaussian_optimal()
        case "logistic_mixture":
            return logistic_mixture(config.num_components, levels)
