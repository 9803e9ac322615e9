"""Densities, divergences and bounds of variational autoencoders.

Every function takes **one example** and returns nats summed over its pixels or latents; `jax.vmap` it over a
batch and take the mean yourself, once, at the outermost line. This module and `densities.py`, which it re-exports,
import JAX alone, so that other codebases can take them as they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.densities import (
    LogisticMixture,
    bernoulli_log_likelihood,
    bounded_exp,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
    logistic_mixture_log_likelihood,
    optimal_logvar,
    precision,
    require_same_shape,
    standard_deviation,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

__all__ = [
    "LogisticMixture",
    "bernoulli_log_likelihood",
    "beta_elbo",
    "continuous_bernoulli_log_likelihood",
    "elbo",
    "gaussian_kl",
    "gaussian_log_likelihood",
    "importance_weighted_bound",
    "logistic_mixture_log_likelihood",
    "optimal_logvar",
    "reparameterize",
    "standard_normal_kl",
]

# The logarithm of a ratio of variances from which the KL goes on as its tangent; float32 ends at exp(88.7).
_MOST_LOG_RATIO = 70.0


def _excess(d: Array) -> Array:
    """e^d − 1 − d ≥ 0, its exponential continued by its tangent."""
    # expm1 keeps the digits that e^d − 1 loses near d = 0.
    return jnp.where(d < 1.0, jnp.expm1(jnp.minimum(d, 1.0)), bounded_exp(d, _MOST_LOG_RATIO) - 1.0) - d


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
    require_same_shape(mean=mean, logvar=logvar)
    return 0.5 * jnp.sum(jnp.square(mean) + _excess(logvar))


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
    require_same_shape(mean_q=mean_q, logvar_q=logvar_q, mean_p=mean_p, logvar_p=logvar_p)
    d = logvar_q - logvar_p
    return 0.5 * jnp.sum(jnp.square(mean_q - mean_p) * precision(logvar_p) + _excess(d))


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
    require_same_shape(log_likelihood=log_likelihood, kl=kl)
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
