"""Conditional variational autoencoders in functional JAX.

    import cvae_jax as cj

    data = cj.from_arrays(x, c)
    run = cj.fit(cj.Config(network=cj.Conv(), objective=cj.Elbo(beta=2.0)), data, workdir="runs/a")
    images = run.sample([0, 1, 2])

Names are imported when they are first used: `cvae_jax.losses` alone needs no more than JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cvae_jax.api import Sweep, TrainedModel, dataset, fit, load, sweep
    from cvae_jax.conditions import Audio, Condition, Image, Label, Observed, Text, Vector
    from cvae_jax.data.arrays import from_arrays
    from cvae_jax.errors import UserError
    from cvae_jax.likelihoods import (
        Bernoulli,
        ContinuousBernoulli,
        Gaussian,
        GaussianLearned,
        GaussianOptimal,
        Likelihood,
        LogisticMixture,
    )
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
    from cvae_jax.model import CVAE
    from cvae_jax.networks import MLP, Conv, Network
    from cvae_jax.objectives import (
        Capacity,
        Deterministic,
        DipVaeI,
        DipVaeII,
        Dreg,
        Elbo,
        FactorVae,
        FreeBits,
        Gsnn,
        Hybrid,
        Iwae,
        MultiRate,
        Objective,
        Terms,
        TotalCorrelation,
    )
    from cvae_jax.options import POSITIVE, WEIGHT, static, traced
    from cvae_jax.priors import Conditional, Flow, Mixture, Prior, PriorModule, Standard, Vamp
    from cvae_jax.runs.logs import Logger
    from cvae_jax.training.config import Config, from_flat, replace
    from cvae_jax.training.grid import grid
    from cvae_jax.training.hooks import ConditionDropout, ConditionFirst, Hook, MovingAverage, UnitDropout
    from cvae_jax.training.optimizer import AdamW, Optimizer
    from cvae_jax.training.schedules import (
        Constant,
        CosineDecay,
        CosineWarmup,
        CyclicalWarmup,
        LinearWarmup,
        Stages,
    )

__version__ = "0.1.0"
# The module of each name.
_MODULES = {
    "Sweep": "cvae_jax.api",
    "TrainedModel": "cvae_jax.api",
    "dataset": "cvae_jax.api",
    "fit": "cvae_jax.api",
    "load": "cvae_jax.api",
    "sweep": "cvae_jax.api",
    "Audio": "cvae_jax.conditions",
    "Condition": "cvae_jax.conditions",
    "Image": "cvae_jax.conditions",
    "Label": "cvae_jax.conditions",
    "Observed": "cvae_jax.conditions",
    "Text": "cvae_jax.conditions",
    "Vector": "cvae_jax.conditions",
    "from_arrays": "cvae_jax.data.arrays",
    "UserError": "cvae_jax.errors",
    "Bernoulli": "cvae_jax.likelihoods",
    "ContinuousBernoulli": "cvae_jax.likelihoods",
    "Gaussian": "cvae_jax.likelihoods",
    "GaussianLearned": "cvae_jax.likelihoods",
    "GaussianOptimal": "cvae_jax.likelihoods",
    "Likelihood": "cvae_jax.likelihoods",
    "LogisticMixture": "cvae_jax.likelihoods",
    "LogisticMixtureParameters": "cvae_jax.losses",
    "bernoulli_log_likelihood": "cvae_jax.losses",
    "beta_elbo": "cvae_jax.losses",
    "continuous_bernoulli_log_likelihood": "cvae_jax.losses",
    "elbo": "cvae_jax.losses",
    "gaussian_kl": "cvae_jax.losses",
    "gaussian_log_likelihood": "cvae_jax.losses",
    "importance_weighted_bound": "cvae_jax.losses",
    "logistic_mixture_log_likelihood": "cvae_jax.losses",
    "optimal_logvar": "cvae_jax.losses",
    "reparameterize": "cvae_jax.losses",
    "standard_normal_kl": "cvae_jax.losses",
    "CVAE": "cvae_jax.model",
    "Conv": "cvae_jax.networks",
    "MLP": "cvae_jax.networks",
    "Network": "cvae_jax.networks",
    "Capacity": "cvae_jax.objectives",
    "Deterministic": "cvae_jax.objectives",
    "DipVaeI": "cvae_jax.objectives",
    "DipVaeII": "cvae_jax.objectives",
    "Dreg": "cvae_jax.objectives",
    "Elbo": "cvae_jax.objectives",
    "FactorVae": "cvae_jax.objectives",
    "FreeBits": "cvae_jax.objectives",
    "Gsnn": "cvae_jax.objectives",
    "Hybrid": "cvae_jax.objectives",
    "Iwae": "cvae_jax.objectives",
    "MultiRate": "cvae_jax.objectives",
    "Objective": "cvae_jax.objectives",
    "Terms": "cvae_jax.objectives",
    "TotalCorrelation": "cvae_jax.objectives",
    "POSITIVE": "cvae_jax.options",
    "WEIGHT": "cvae_jax.options",
    "static": "cvae_jax.options",
    "traced": "cvae_jax.options",
    "Conditional": "cvae_jax.priors",
    "Flow": "cvae_jax.priors",
    "Mixture": "cvae_jax.priors",
    "Prior": "cvae_jax.priors",
    "PriorModule": "cvae_jax.priors",
    "Standard": "cvae_jax.priors",
    "Vamp": "cvae_jax.priors",
    "Config": "cvae_jax.training.config",
    "from_flat": "cvae_jax.training.config",
    "replace": "cvae_jax.training.config",
    "grid": "cvae_jax.training.grid",
    "ConditionDropout": "cvae_jax.training.hooks",
    "ConditionFirst": "cvae_jax.training.hooks",
    "Hook": "cvae_jax.training.hooks",
    "MovingAverage": "cvae_jax.training.hooks",
    "UnitDropout": "cvae_jax.training.hooks",
    "Logger": "cvae_jax.runs.logs",
    "AdamW": "cvae_jax.training.optimizer",
    "Optimizer": "cvae_jax.training.optimizer",
    "Constant": "cvae_jax.training.schedules",
    "CosineDecay": "cvae_jax.training.schedules",
    "CosineWarmup": "cvae_jax.training.schedules",
    "CyclicalWarmup": "cvae_jax.training.schedules",
    "LinearWarmup": "cvae_jax.training.schedules",
    "Stages": "cvae_jax.training.schedules",
}
__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
