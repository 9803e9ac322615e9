"""Conditional variational autoencoders in functional JAX.

The losses are re-exported here; the rest is imported by module: `from cvae_jax import training, sampling`.
"""

from cvae_jax.losses import (
    LogisticMixtureParameters,
    bernoulli_log_likelihood,
    beta_elbo,
    continuous_bernoulli_log_likelihood,
    elbo,
    gaussian_kl,
    gaussian_log_likelihood,
    importance_weighted_bound,
    logistic_mixture_log_likelihood,
    optimal_logvar,
    reparameterize,
    standard_normal_kl,
)

__all__ = [
    "LogisticMixtureParameters",
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
__version__ = "0.1.0"
