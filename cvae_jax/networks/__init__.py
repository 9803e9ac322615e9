"""Encoder and decoder bodies."""

from cvae_jax.networks.base import Network
from cvae_jax.networks.conv import Conv
from cvae_jax.networks.mlp import MLP
from cvae_jax.networks.resnet import ResNet
from cvae_jax.options import Table

NETWORKS = Table(Network, {"mlp": MLP, "conv": Conv, "resnet": ResNet})

__all__ = ["MLP", "NETWORKS", "Conv", "Network", "ResNet"]
