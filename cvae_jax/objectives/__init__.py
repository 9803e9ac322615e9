"""What training minimizes. A new objective is one file, and one line of `OBJECTIVES`."""

from cvae_jax.objectives.base import Batch, Need, Objective, Terms
from cvae_jax.objectives.dipvae import DipVaeI, DipVaeII
from cvae_jax.objectives.elbo import Capacity, Elbo, FreeBits
from cvae_jax.objectives.factorvae import FactorVae
from cvae_jax.objectives.importance import Dreg, Iwae
from cvae_jax.objectives.multirate import MultiRate
from cvae_jax.objectives.prediction import Deterministic, Gsnn, Hybrid
from cvae_jax.objectives.tcvae import TotalCorrelation
from cvae_jax.options import Table

OBJECTIVES = Table(
    Objective,
    {
        "elbo": Elbo,
        "free_bits": FreeBits,
        "capacity": Capacity,
        "iwae": Iwae,
        "dreg": Dreg,
        "tcvae": TotalCorrelation,
        "dipvae_i": DipVaeI,
        "dipvae_ii": DipVaeII,
        "factorvae": FactorVae,
        "multirate": MultiRate,
        "gsnn": Gsnn,
        "hybrid": Hybrid,
        "nn": Deterministic,
    },
)

__all__ = [
    "OBJECTIVES",
    "Batch",
    "Capacity",
    "Deterministic",
    "DipVaeI",
    "DipVaeII",
    "Dreg",
    "Elbo",
    "FactorVae",
    "FreeBits",
    "Gsnn",
    "Hybrid",
    "Iwae",
    "MultiRate",
    "Need",
    "Objective",
    "Terms",
    "TotalCorrelation",
]
