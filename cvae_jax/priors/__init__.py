"""Priors p(z|c), one file per choice."""

from cvae_jax.options import Table
from cvae_jax.priors.base import Prior, PriorContext, PriorModule
from cvae_jax.priors.conditional import Conditional
from cvae_jax.priors.flow import Flow
from cvae_jax.priors.mixture import Mixture
from cvae_jax.priors.standard import Standard
from cvae_jax.priors.vamp import Vamp

PRIORS = Table(
    Prior,
    {"standard": Standard, "conditional": Conditional, "mixture": Mixture, "vamp": Vamp, "flow": Flow},
)

__all__ = [
    "PRIORS",
    "Conditional",
    "Flow",
    "Mixture",
    "Prior",
    "PriorContext",
    "PriorModule",
    "Standard",
    "Vamp",
]
