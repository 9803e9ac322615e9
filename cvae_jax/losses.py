"""Log-densities, divergences and bounds of variational autoencoders.

Every function but `optimal_logvar` takes **one example** and returns nats summed over its pixels or latents;
`jax.vmap` it over a batch and take the mean yourself, once, at the outermost line. This file imports JAX alone: other
codebases can copy it as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

# Below it the continuous Bernoulli's normalizer is a series: its next term is under float32's rounding.
_SERIES_BELOW = 0.2
# The least variance of data under `optimal_logvar`: that of the rounding to 8 bits is 1.3e-6.
LEAST_VARIANCE = 1e-6
# float32 ends at exp(88.7). Beyond these exponents a factor grows linearly, so that its products stay finite, too.
_MOST_LOG_PRECISION = 50.0
_MOST_LOG_DEVIATION = 30.0
# Narrower logistics lie within a level of 8 bits, wider ones are flat over all of them.
_LOG_SCALES = (-7.0, 7.0)
# The logarithm of a ratio of variances from which the KL goes on as its tangent; float32 ends at exp(88.7).
_MOST_LOG_RATIO = 70.0


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


def gaussian_log_density(
    mean: Float[Array, "*#a"], x: Float[Array, "*#a"], logvar: Float[Array, "*#a"]
) -> Float[Array, "*a"]:
    """log N(x; m, e^v) of each number by itself, nats; see `gaussian_log_likelihood`."""
    return -0.5 * (jnp.square(x - mean) * precision(logvar) + logvar + math.log(2.0 * math.pi))


def gaussian_log_likelihood(
    mean: Float[Array, "*x"], x: Float[Array, "*x"], logvar: float | Float[Array, "*#x"]
) -> Float[Array, ""]:
    """Log-density of data under independent Gaussians: the mean-squared-error loss, normalized.

    log p(x|m, v) = −½ Σᵢ ((xᵢ − mᵢ)² e^{−vᵢ} + vᵢ + log 2π)

    Below v = −50, the tangent of e^{−v} at −50 replaces e^{−v}, so the result is finite even where x equals the mean.

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
    return jnp.sum(gaussian_log_density(*_flat(mean, x, logvar)))


def optimal_logvar(mean: Float[Array, "*b"], x: Float[Array, "*b"]) -> Float[Array, ""]:
    """The log-variance that makes the data most likely, one for all elements: the log of the mean squared error.

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


class LogisticMixtureParameters(NamedTuple):
    """Parameters of a mixture of k logistics per pixel; its channels share a component and depend on those before.

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
    mixture: LogisticMixtureParameters, x: Float[Array, "*hw C"], *, levels: int
) -> Float[Array, ""]:
    """Log-probability of data of whole levels under a discretized mixture of logistics per pixel.

    log p(x) = Σ log Σₖ πₖ Πᵢ [σ((yᵢ + h − mₖᵢ) / sₖᵢ) − σ((yᵢ − h − mₖᵢ) / sₖᵢ)],
    y = 2x − 1, h = 1 / (levels − 1), mₖᵢ = meansₖᵢ + Σ_{j<i} tanh(couplingsₖᵢⱼ) yⱼ

    The lowest level takes all that lies below it, the highest all above: the probabilities of all images sum to 1.

    Args:
      mixture: of every pixel, see `LogisticMixtureParameters`.
      x: shape (..., C), from 0 to 1, taken at the nearest of its levels.
      levels: number of equally spaced values that x can take, ≥ 2; 256 for 8 bits.

    Returns:
      Scalar ≤ 0, nats, summed over the pixels; a pixel's channels are one variable.

    Raises:
      ValueError: if means are not one per channel of x.

    Example:
      >>> import jax.numpy as jnp
      >>> wide = jnp.full((1, 1), 0.0), jnp.zeros((1, 1, 1)), jnp.full((1, 1, 1), -1.0), jnp.zeros((1, 0, 1))
      >>> mixture = LogisticMixtureParameters(*wide)
      >>> low, high = (logistic_mixture_log_likelihood(mixture, jnp.full((1, 1), v), levels=2) for v in (0.0, 1.0))
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


def _excess(d: Array) -> Array:
    """e^d − 1 − d ≥ 0, its exponential continued by its tangent."""
    # expm1 keeps the digits that e^d − 1 loses near d = 0.
    return jnp.where(d < 1.0, jnp.expm1(jnp.minimum(d, 1.0)), bounded_exp(d, _MOST_LOG_RATIO) - 1.0) - d


def standard_normal_kl_per_latent(mean: Float[Array, " z"], logvar: Float[Array, " z"]) -> Float[Array, " z"]:
    """The terms of `standard_normal_kl`, nats ≥ 0."""
    require_same_shape(mean=mean, logvar=logvar)
    return 0.5 * (jnp.square(mean) + _excess(logvar))


def standard_normal_kl(mean: Float[Array, " z"], logvar: Float[Array, " z"]) -> Float[Array, ""]:
    """KL divergence of a diagonal Gaussian to the standard normal, the *rate* of a VAE.

    KL(N(m, diag e^v) ‖ N(0, I)) = ½ Σᵢ (mᵢ² + e^{vᵢ} − 1 − vᵢ)

    Beyond v = 70 e^v goes on as its tangent: finite, and still pulling v back.

    Args:
      mean: shape (z,), floating.
      logvar: logarithm of the variance, shape (z,), floating.

    Returns:
      Scalar ≥ 0, nats, summed over the latents.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(standard_normal_kl(jnp.array([1.0, 0.0]), jnp.zeros(2)))
      0.5

    References:
      Kingma & Welling, Auto-Encoding Variational Bayes, 2014, appendix B.
    """
    return jnp.sum(standard_normal_kl_per_latent(mean, logvar))


def gaussian_kl_per_latent(
    mean_q: Float[Array, " z"],
    logvar_q: Float[Array, " z"],
    mean_p: Float[Array, " z"],
    logvar_p: Float[Array, " z"],
) -> Float[Array, " z"]:
    """The terms of `gaussian_kl`, nats ≥ 0."""
    require_same_shape(mean_q=mean_q, logvar_q=logvar_q, mean_p=mean_p, logvar_p=logvar_p)
    d = logvar_q - logvar_p
    return 0.5 * (jnp.square(mean_q - mean_p) * precision(logvar_p) + _excess(d))


def gaussian_kl(
    mean_q: Float[Array, " z"],
    logvar_q: Float[Array, " z"],
    mean_p: Float[Array, " z"],
    logvar_p: Float[Array, " z"],
) -> Float[Array, ""]:
    """KL divergence between two diagonal Gaussians, for a learned prior p(z|c).

    KL(q ‖ p) = ½ Σᵢ ((m_qᵢ − m_pᵢ)² e^{−v_pᵢ} + e^{dᵢ} − 1 − dᵢ),  d = v_q − v_p

    Beyond d = 70 e^d goes on as its tangent, and so does e^{−v_p} below v_p = −50: finite, and still pulling back.

    Args:
      mean_q, logvar_q: of q, shape (z,), floating.
      mean_p, logvar_p: of p, shape (z,), floating.

    Returns:
      Scalar ≥ 0, nats, summed over the latents.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> q = jnp.array([0.3]), jnp.array([-1.0])
      >>> float(gaussian_kl(*q, *q))
      0.0

    References:
      Sohn, Lee & Yan, Learning Structured Output Representation using Deep Conditional Generative Models,
      2015, equation 4.
    """
    return jnp.sum(gaussian_kl_per_latent(mean_q, logvar_q, mean_p, logvar_p))


def reparameterize(
    key: Key[Array, ""], mean: Float[Array, " z"], logvar: Float[Array, " z"]
) -> Float[Array, " z"]:
    """Draw z ~ N(mean, diag e^logvar) so that gradients reach mean and logvar.

    z = m + e^{v/2} ε,  ε ~ N(0, I)

    The noise of latent i depends on the key and i alone, not on the number of latents. Above v = 60 e^{v/2} goes on
    as its tangent.

    Args:
      key: typed PRNG key, used here and nowhere else.
      mean: shape (z,), floating.
      logvar: logarithm of the variance, shape (z,), floating.

    Returns:
      One draw, shape (z,).

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> few = reparameterize(jax.random.key(0), jnp.zeros(2), jnp.zeros(2))
      >>> many = reparameterize(jax.random.key(0), jnp.zeros(5), jnp.zeros(5))
      >>> bool((few == many[:2]).all())
      True

    References:
      Kingma & Welling, Auto-Encoding Variational Bayes, 2014, section 2.4.
    """
    require_same_shape(mean=mean, logvar=logvar)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(mean.shape[-1]))
    noise = jax.vmap(lambda k: jax.random.normal(k, (), mean.dtype))(keys)
    return mean + standard_deviation(logvar) * noise


def elbo(log_likelihood: Float[Array, "*b"], kl: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Evidence lower bound on log p(x|c), up is better.

    ELBO = E_q[log p(x|z,c)] − KL(q(z|x,c) ‖ p(z|c)) = −(distortion + rate)

    Args:
      log_likelihood: log p(x|z,c) for z ~ q, any shape, nats.
      kl: KL(q ‖ p), the same shape, nats.

    Returns:
      The bound, the same shape, nats.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(elbo(jnp.array(-80.0), jnp.array(20.0)))
      -100.0

    References:
      Kingma & Welling, Auto-Encoding Variational Bayes, 2014, equation 3.
    """
    require_same_shape(log_likelihood=log_likelihood, kl=kl)
    return log_likelihood - kl


def beta_elbo(
    log_likelihood: Float[Array, "*b"],
    kl: Float[Array, "*b"],
    beta: float | Float[Array, ""] | Float[Array, "*b"],
) -> Float[Array, "*b"]:
    """The β-VAE objective, up is better; a bound on log p(x|c) for β ≥ 1 only.

    L_β = E_q[log p(x|z,c)] − β KL(q(z|x,c) ‖ p(z|c))

    Args:
      log_likelihood: log p(x|z,c) for z ~ q, any shape, nats.
      kl: KL(q ‖ p), the same shape, nats.
      beta: weight of the KL, ≥ 0, a scalar or the same shape; both terms are sums, so β = 1 is the ELBO.

    Returns:
      The objective, the same shape, nats.

    Raises:
      ValueError: if the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(beta_elbo(jnp.array(-80.0), jnp.array(20.0), 4.0))
      -160.0

    References:
      Higgins et al., β-VAE, 2017, equation 4.
    """
    require_same_shape(log_likelihood=log_likelihood, kl=kl)
    return log_likelihood - jnp.asarray(beta, kl.dtype) * kl


def importance_weighted_bound(log_weights: Float[Array, " k"]) -> Float[Array, ""]:
    """Lower bound on log p(x|c) from k draws of z: the higher, the better. One draw gives the ELBO, more are tighter.

    L_k = log (1/k) Σⱼ wⱼ,  wⱼ = p(x|zⱼ,c) p(zⱼ) / q(zⱼ|x,c),  zⱼ ~ q

    With fresh draws and a large k, −L_k estimates the negative log-likelihood.

    Args:
      log_weights: log wⱼ, shape (k,), nats.

    Returns:
      The bound, scalar, nats.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(importance_weighted_bound(jnp.log(jnp.array([0.2, 0.4])))), 4)  # log 0.3
      -1.204

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8.
    """
    return jax.nn.logsumexp(log_weights) - math.log(log_weights.shape[0])
