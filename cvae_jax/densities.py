"""Log-densities of data: what a decoder's output says of x.

Every function but `optimal_logvar` takes **one example** and returns nats summed over its pixels. This module
imports JAX alone; `losses.py` re-exports it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float

# Below it the continuous Bernoulli's normalizer is a series: its next term is under float32's rounding.
_SERIES_BELOW = 0.2
# The least variance that data are said to have: that of the rounding to 8 bits is 1.3e-6.
LEAST_VARIANCE = 1e-6
# float32 ends at exp(88.7). Beyond these exponents a factor grows linearly, so that its products stay finite, too.
_MOST_LOG_PRECISION = 50.0
_MOST_LOG_DEVIATION = 30.0
# Narrower logistics lie within a level of 8 bits, wider ones are flat over all of them.
_LOG_SCALES = (-7.0, 7.0)


def require_same_shape(**arrays: Array) -> None:
    """Refuse arrays of different shapes with a `ValueError` that names them."""
    shapes = {name: jnp.shape(a) for name, a in arrays.items()}
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected equal shapes, got {given}")


def _flat(*arrays: Array) -> list[Array]:
    """Arrays of one axis each: on a CPU, XLA sums over several axes of a batch of images dozens of times slower."""
    return [jnp.ravel(a) for a in arrays]


def bounded_exp(a: Float[Array, "*a"], linear_from: float) -> Float[Array, "*a"]:
    """exp(a), continued by its tangent above `linear_from`: value and gradient stay finite in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> float(bounded_exp(jnp.array(1e4), 0.0))  # 1 + 10⁴
      10001.0
    """
    capped = jnp.minimum(a, linear_from)
    return jnp.exp(capped) * (1.0 + (a - capped))


def precision(logvar: Float[Array, "*a"]) -> Float[Array, "*a"]:
    """One over the variance, e^{−v}; below v = −50 its tangent, so that its product with a squared error is finite."""
    return bounded_exp(-logvar, _MOST_LOG_PRECISION)


def standard_deviation(logvar: Float[Array, "*a"]) -> Float[Array, "*a"]:
    """e^{v/2}; above v = 60 its tangent, so that its square is finite."""
    return bounded_exp(0.5 * logvar, _MOST_LOG_DEVIATION)


def bernoulli_log_likelihood(logits: Float[Array, "*x"], x: Float[Array, "*x"]) -> Float[Array, ""]:
    """Log-likelihood of binary data under independent Bernoullis; its negative is the cross entropy.

    log p(x|ℓ) = Σᵢ (xᵢ ℓᵢ − log(1 + e^{ℓᵢ}))

    Finite for every finite logit, with gradient x − sigmoid(ℓ). It is a likelihood for x in {0, 1}; for values
    between it is still the cross entropy, but no longer normalized.

    Args:
      logits: shape (...), floating.
      x: shape (...), floating, in [0, 1].

    Returns:
      Scalar ≤ 0, nats, summed over all axes.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(bernoulli_log_likelihood(jnp.array([1e4, -1e4]), jnp.array([1.0, 0.0])))
      0.0

    References:
      Kingma & Welling, Auto-Encoding Variational Bayes, 2014, appendix C.1.
    """
    require_same_shape(logits=logits, x=x)
    logits, x = _flat(logits, x)
    # xℓ − max(ℓ, 0) is exact for binary x, where xℓ − softplus(ℓ) would cancel. |ℓ| is a maximum because its
    # gradient at 0 must be 0, and that of jnp.abs is 1.
    magnitude = jnp.maximum(logits, -logits)
    return jnp.sum(x * logits - jnp.maximum(logits, 0.0) - jnp.log1p(jnp.exp(-magnitude)))


def continuous_bernoulli_log_likelihood(
    logits: Float[Array, "*x"], x: Float[Array, "*x"]
) -> Float[Array, ""]:
    """Log-density of grey data in [0, 1]: the cross entropy, normalized.

    log p(x|ℓ) = Σᵢ (xᵢ ℓᵢ − log(1 + e^{ℓᵢ}) + log C(ℓᵢ)),  C(ℓ) = ℓ / tanh(ℓ/2), C(0) = 2

    Args:
      logits: shape (...), floating.
      x: shape (...), floating, in [0, 1].

    Returns:
      Scalar, nats, summed over all axes.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(continuous_bernoulli_log_likelihood(jnp.zeros(3), jnp.array([0.0, 0.3, 1.0])))  # uniform
      0.0

    References:
      Loaiza-Ganem & Cunningham, The Continuous Bernoulli, 2019, equation 7.
    """
    require_same_shape(logits=logits, x=x)
    logits, x = _flat(logits, x)
    # C is even. Near 0 its series takes over, and the other branch is kept off the 0/0.
    near = jnp.abs(logits) < _SERIES_BELOW
    square = jnp.square(jnp.where(near, logits, 0.0))
    series = math.log(2.0) + square / 12.0 - 7.0 * jnp.square(square) / 1440.0
    magnitude = jnp.where(near, 1.0, jnp.abs(logits))
    tail = jnp.exp(-magnitude)
    normalizer = jnp.log(magnitude) + jnp.log1p(tail) - jnp.log1p(-tail)
    return bernoulli_log_likelihood(logits, x) + jnp.sum(jnp.where(near, series, normalizer))


def gaussian_log_likelihood(
    mean: Float[Array, "*x"], x: Float[Array, "*x"], logvar: float | Float[Array, "*#x"]
) -> Float[Array, ""]:
    """Log-density of data under independent Gaussians: the mean-squared-error loss, normalized.

    log p(x|m, v) = −½ Σᵢ ((xᵢ − mᵢ)² e^{−vᵢ} + vᵢ + log 2π)

    Below v = −50 the precision e^{−v} goes on as its tangent: finite, also where x is the mean.

    Args:
      mean: shape (...), floating.
      x: shape (...), floating.
      logvar: logarithm of the variance, 2 log σ; a scalar or anything that broadcasts to x.

    Returns:
      Scalar, nats, summed over all axes.

    Raises:
      ValueError: if the shapes of mean and x differ.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((2, 2))
      >>> round(float(gaussian_log_likelihood(x, x, 0.0)), 4)  # −4/2 log 2π
      -3.6758

    References:
      Kingma & Welling, Auto-Encoding Variational Bayes, 2014, appendix C.2.
    """
    require_same_shape(mean=mean, x=x)
    logvar = jnp.broadcast_to(jnp.asarray(logvar, x.dtype), x.shape)
    mean, x, logvar = _flat(mean, x, logvar)
    return -0.5 * jnp.sum(jnp.square(x - mean) * precision(logvar) + logvar + math.log(2.0 * math.pi))


def optimal_logvar(mean: Float[Array, "*b"], x: Float[Array, "*b"]) -> Float[Array, ""]:
    """The one log-variance under which data are likeliest: the logarithm of the mean squared error.

    v = log max(mean of (x − m)², 10⁻⁶)

    A `gaussian_log_likelihood` under it has the gradient that it would have if v were a constant, because v is where
    its derivative in v vanishes.

    Args:
      mean: shape (...), floating; a whole batch.
      x: the same shape.

    Returns:
      Scalar, the logarithm of a variance in squared units of x.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(optimal_logvar(jnp.zeros(2), jnp.array([1.0, -1.0])))
      0.0

    References:
      Rybkin, Daniilidis & Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021: the optimal
      σ-VAE.
    """
    require_same_shape(mean=mean, x=x)
    return jnp.log(jnp.maximum(jnp.mean(jnp.square(x - mean)), LEAST_VARIANCE))


class LogisticMixture(NamedTuple):
    """A mixture of k logistics per pixel, whose channels share their component and depend on those before.

    All in units where x = 0 is −1 and x = 1 is 1.

    Attributes:
      logits: of the components, shape (..., k).
      means: shape (..., C, k).
      log_scales: shape (..., C, k).
      couplings: arctanh of the slope of channel i's mean in channel j < i, in the order (1, 0), (2, 0), (2, 1),
        shape (..., C(C−1)/2, k).
    """

    logits: Float[Array, "*hw k"]
    means: Float[Array, "*hw C k"]
    log_scales: Float[Array, "*hw C k"]
    couplings: Float[Array, "*hw p k"]

    def scales(self) -> Float[Array, "*hw C k"]:
        """exp(log_scales), held between e⁻⁷ and e⁷."""
        return jnp.exp(jnp.clip(self.log_scales, *_LOG_SCALES))

    def channel_means(self, earlier: list[Float[Array, "*hw #k"]]) -> Float[Array, "*hw k"]:
        """The components' means of the next channel, given the values of all earlier ones."""
        i = len(earlier)
        first = i * (i - 1) // 2
        slopes = jnp.tanh(self.couplings[..., first : first + i, :])
        return self.means[..., i, :] + sum(slopes[..., j, :] * value for j, value in enumerate(earlier))


def logistic_mixture_log_likelihood(
    mixture: LogisticMixture, x: Float[Array, "*hw C"], *, levels: int
) -> Float[Array, ""]:
    """Log-probability of data of whole levels under a discretized mixture of logistics per pixel.

    log p(x) = Σ log Σₖ πₖ Πᵢ [σ((yᵢ + h − mₖᵢ) / sₖᵢ) − σ((yᵢ − h − mₖᵢ) / sₖᵢ)],
    y = 2x − 1, h = 1 / (levels − 1), mₖᵢ = meansₖᵢ + Σ_{j<i} tanh(couplingsₖᵢⱼ) yⱼ

    The lowest level takes all that lies below it, the highest all above: the probabilities of all images sum to 1.

    Args:
      mixture: of every pixel, see `LogisticMixture`.
      x: shape (..., C), from 0 to 1, taken at the nearest of its levels.
      levels: number of equally spaced values that x can take, ≥ 2; 256 for 8 bits.

    Returns:
      Scalar ≤ 0, nats, summed over the pixels; a pixel's channels are one variable.

    Raises:
      ValueError: if means are not one per channel of x.

    Example:
      >>> import jax.numpy as jnp
      >>> wide = jnp.full((1, 1), 0.0), jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), -1.0), jnp.zeros((1, 0, 1))
      >>> low, high = (logistic_mixture_log_likelihood(LogisticMixture(*wide), jnp.full((1, 1), v), levels=2)
      ...              for v in (0.0, 1.0))
      >>> round(float(jnp.exp(low) + jnp.exp(high)), 6)
      1.0

    References:
      Salimans et al., PixelCNN++, 2017, sections 2.1 and 2.2.
    """
    require_same_shape(means=mixture.means[..., 0], x=x)
    top = levels - 1
    level = jnp.round(x * top)
    y = 2.0 * level / top - 1.0
    channels = range(x.shape[-1])
    means = jnp.stack([mixture.channel_means([y[..., j, None] for j in range(i)]) for i in channels], axis=-2)
    scales, y, level = mixture.scales(), y[..., None], level[..., None]
    # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^{b − a}): three factors that do not cancel however small. At the lowest level b
    # is −∞, at the highest a is ∞.
    not_above = jnp.where(level < top, jax.nn.log_sigmoid((y + 1.0 / top - means) / scales), 0.0)
    not_below = jnp.where(level > 0.0, jax.nn.log_sigmoid((means - y + 1.0 / top) / scales), 0.0)
    width = jnp.where((level > 0.0) & (level < top), jnp.log(-jnp.expm1(-2.0 / (top * scales))), 0.0)
    joint = jnp.sum(not_above + not_below + width, axis=-2) + jax.nn.log_softmax(mixture.logits)
    return jnp.sum(jax.nn.logsumexp(joint, axis=-1))
