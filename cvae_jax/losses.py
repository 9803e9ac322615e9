"""Densities, divergences and bounds of variational autoencoders.

Every function takes **one example** and returns nats summed over its pixels or latents; `jax.vmap` it over a
batch and take the mean yourself, once, at the outermost line. This module imports JAX alone, so that other
codebases can take it as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

__all__ = [
    "bernoulli_log_likelihood",
    "beta_elbo",
    "continuous_bernoulli_log_likelihood",
    "elbo",
    "gaussian_kl",
    "gaussian_log_likelihood",
    "importance_weighted_bound",
    "reparameterize",
    "standard_normal_kl",
]

# Below it the continuous Bernoulli's normalizer is a series: its next term is under float32's rounding.
_SERIES_BELOW = 0.2
# float32 overflows past exp(88.7); from here on `_exp` goes on as its own tangent.
_EXP_LINEAR_FROM = 80.0


def _require_same_shape(**arrays: Array) -> None:
    shapes = {name: jnp.shape(a) for name, a in arrays.items()}
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected equal shapes, got {given}")


def _flat(*arrays: Array) -> list[Array]:
    """Arrays of one axis each: on a CPU, XLA sums over several axes of a batch of images dozens of times slower."""
    return [jnp.ravel(a) for a in arrays]


def _exp(a: Array) -> Array:
    """exp(a), continued by its tangent above 80, so that value and gradient stay finite in float32."""
    capped = jnp.minimum(a, _EXP_LINEAR_FROM)
    return jnp.exp(capped) * (1.0 + (a - capped))


def standard_normal_kl(mean: Float[Array, " z"], logvar: Float[Array, " z"]) -> Float[Array, ""]:
    """KL divergence of a diagonal Gaussian to the standard normal, the *rate* of a VAE.

    KL(N(m, diag e^v) ‖ N(0, I)) = ½ Σᵢ (mᵢ² + e^{vᵢ} − 1 − vᵢ)

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
    _require_same_shape(mean=mean, logvar=logvar)
    return 0.5 * jnp.sum(jnp.square(mean) + (jnp.expm1(logvar) - logvar))


def gaussian_kl(
    mean_q: Float[Array, " z"],
    logvar_q: Float[Array, " z"],
    mean_p: Float[Array, " z"],
    logvar_p: Float[Array, " z"],
) -> Float[Array, ""]:
    """KL divergence between two diagonal Gaussians, for a learned prior p(z|c).

    KL(q ‖ p) = ½ Σᵢ ((m_qᵢ − m_pᵢ)² e^{−v_pᵢ} + e^{dᵢ} − 1 − dᵢ),  d = v_q − v_p

    Beyond d = 80, where e^d leaves float32, it goes on as its tangent: finite, and still pulling d back.

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
    _require_same_shape(mean_q=mean_q, logvar_q=logvar_q, mean_p=mean_p, logvar_p=logvar_p)
    d = logvar_q - logvar_p
    # expm1 keeps the digits that e^d − 1 loses near d = 0.
    excess = jnp.where(d < 1.0, jnp.expm1(jnp.minimum(d, 1.0)), _exp(d) - 1.0) - d
    return 0.5 * jnp.sum(jnp.square(mean_q - mean_p) * jnp.exp(-logvar_p) + excess)


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
    _require_same_shape(logits=logits, x=x)
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
    _require_same_shape(logits=logits, x=x)
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
    _require_same_shape(mean=mean, x=x)
    logvar = jnp.broadcast_to(jnp.asarray(logvar, x.dtype), x.shape)
    mean, x, logvar = _flat(mean, x, logvar)
    return -0.5 * jnp.sum(jnp.square(x - mean) * jnp.exp(-logvar) + logvar + math.log(2.0 * math.pi))


def reparameterize(
    key: Key[Array, ""], mean: Float[Array, " z"], logvar: Float[Array, " z"]
) -> Float[Array, " z"]:
    """Draw z ~ N(mean, diag e^logvar) so that gradients reach mean and logvar.

    z = m + e^{v/2} ε,  ε ~ N(0, I)

    The noise of latent i depends on the key and i alone, not on the number of latents.

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
    _require_same_shape(mean=mean, logvar=logvar)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(mean.shape[-1]))
    noise = jax.vmap(lambda k: jax.random.normal(k, (), mean.dtype))(keys)
    return mean + jnp.exp(0.5 * logvar) * noise


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
    _require_same_shape(log_likelihood=log_likelihood, kl=kl)
    return log_likelihood - kl


def beta_elbo(
    log_likelihood: Float[Array, "*b"], kl: Float[Array, "*b"], beta: float | Float[Array, ""]
) -> Float[Array, "*b"]:
    """The β-VAE objective, up is better; a bound on log p(x|c) for β ≥ 1 only.

    L_β = E_q[log p(x|z,c)] − β KL(q(z|x,c) ‖ p(z|c))

    Args:
      log_likelihood: log p(x|z,c) for z ~ q, any shape, nats.
      kl: KL(q ‖ p), the same shape, nats.
      beta: weight of the KL, ≥ 0; both terms are sums, so β = 1 is the ELBO.

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
    _require_same_shape(log_likelihood=log_likelihood, kl=kl)
    return log_likelihood - jnp.asarray(beta, kl.dtype) * kl


def importance_weighted_bound(log_weights: Float[Array, " k"]) -> Float[Array, ""]:
    """Bound on log p(x|c) from k draws, up is better: with one draw the ELBO, tighter with more.

    L_k = log (1/k) Σⱼ wⱼ,  wⱼ = p(x|zⱼ,c) p(zⱼ) / q(zⱼ|x,c),  zⱼ ~ q

    With draws that were not trained on, −L_k of many draws estimates the negative log-likelihood.

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
