"""Layers that networks are made of."""

from cvae_jax.nn.conditioning import AddCondition, Context
from cvae_jax.nn.conv import Downsample, Upsample
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.dropout import drop
from cvae_jax.nn.embedding import Embedding
from cvae_jax.nn.latent import FromLatents, ToLatents

__all__ = [
    "AddCondition",
    "Context",
    "Dense",
    "Downsample",
    "Embedding",
    "FromLatents",
    "ToLatents",
    "Upsample",
    "drop",
]
