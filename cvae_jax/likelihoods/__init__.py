"""Likelihoods p(x|z,c), one file per family."""

from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.likelihoods.bernoulli import Bernoulli
from cvae_jax.likelihoods.continuous_bernoulli import ContinuousBernoulli
from cvae_jax.likelihoods.gaussian import (
    Gaussian,
    GaussianLearned,
    GaussianOptimal,
    GaussianOutput,
    fit_logvar,
    fitted_logvar,
)
from cvae_jax.likelihoods.logistic_mixture import LogisticMixture
from cvae_jax.options import Table

LIKELIHOODS = Table(
    Likelihood,
    {
        "bernoulli": Bernoulli,
        "continuous_bernoulli": ContinuousBernoulli,
        "gaussian": Gaussian,
        "gaussian_learned": GaussianLearned,
        "gaussian_optimal": GaussianOptimal,
        "logistic_mixture": LogisticMixture,
    },
)

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "ContinuousBernoulli",
    "Gaussian",
    "GaussianLearned",
    "GaussianOptimal",
    "GaussianOutput",
    "Likelihood",
    "LogisticMixture",
    "fit_logvar",
    "fitted_logvar",
]
