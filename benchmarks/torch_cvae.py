"""The networks and the training step of `cvae_jax`, written once more in eager PyTorch to measure against.

`python -m benchmarks.same_network` shows that the two agree in outputs and gradients, and
`python -m benchmarks.step` compares their speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int, UInt8

Shape = tuple[int, int, int]  # height, width and channels, both sides multiples of 4
MNIST: Shape = (28, 28, 1)
NUM_CLASSES = 10
BATCH_SIZE = 128
NUM_PARAMS = {"mlp": 1_426_552, "conv": 369_801}  # on MNIST with 20 latents

_EMBEDDING = 32
_HIDDEN = 512
_MIDDLE, _TOP = 16, 64  # channels at half and at a quarter of the size


class Conditioned(nn.Module):
    """A layer, plus a learned per-channel term of the condition, through SiLU."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        """Condition the output of `layer`."""
        super().__init__()
        self.layer = layer
        self.condition = nn.Linear(_EMBEDDING, channels, bias=False)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """Activations (b, channels) or (b, channels, h, w), from embeddings (b, e)."""
        h = self.layer(h)
        term = self.condition(e)
        return F.silu(h + (term if h.ndim == 2 else term[:, :, None, None]))


class PointwiseBlock(nn.Module):
    """A residual two-layer network applied at every position."""

    def __init__(self, channels: int) -> None:
        """Make the two 1×1 convolutions."""
        super().__init__()
        self.inner = Conditioned(nn.Conv2d(channels, 2 * channels, 1), 2 * channels)
        self.outer = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """Refine feature maps (b, channels, h, w)."""
        return h + self.outer(self.inner(h, e))


class MLPEncoder(nn.Module):
    """Two dense layers over the flattened image."""

    features = _HIDDEN

    def __init__(self, shape: Shape) -> None:
        """Make the layers."""
        super().__init__()
        self.first = Conditioned(nn.Linear(math.prod(shape), _HIDDEN), _HIDDEN)
        self.second = Conditioned(nn.Linear(_HIDDEN, _HIDDEN), _HIDDEN)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Features of images (b, c, h, w)."""
        return self.second(self.first(x.flatten(1), e), e)


class MLPDecoder(nn.Module):
    """Dense layers from latents to the flattened image."""

    def __init__(self, latent_dim: int, shape: Shape) -> None:
        """Make the layers."""
        super().__init__()
        height, width, channels = shape
        self.shape = channels, height, width
        self.first = Conditioned(nn.Linear(latent_dim, _HIDDEN), _HIDDEN)
        self.second = Conditioned(nn.Linear(_HIDDEN, _HIDDEN), _HIDDEN)
        self.last = nn.Linear(_HIDDEN, math.prod(shape))

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        """Logits (b, c, h, w)."""
        return self.last(self.second(self.first(z, e), e)).reshape(-1, *self.shape)


class ConvEncoder(nn.Module):
    """Two stride-2 convolutions, then a pointwise block."""

    def __init__(self, shape: Shape) -> None:
        """Make the layers."""
        super().__init__()
        height, width, channels = shape
        self.features = (height // 4) * (width // 4) * _TOP
        self.first = Conditioned(nn.Conv2d(channels, _MIDDLE, 4, 2, padding=1), _MIDDLE)
        self.second = Conditioned(nn.Conv2d(_MIDDLE, _TOP, 4, 2, padding=1), _TOP)
        self.block = PointwiseBlock(_TOP)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Features of images (b, c, h, w), ordered by row, column and channel: a view in channels_last."""
        h = self.block(self.second(self.first(x, e), e), e)
        return h.permute(0, 2, 3, 1).flatten(1)


class ConvDecoder(nn.Module):
    """A dense layer, a pointwise block, then two stride-2 transposed convolutions."""

    def __init__(self, latent_dim: int, shape: Shape) -> None:
        """Make the layers."""
        super().__init__()
        height, width, channels = shape
        self.top = height // 4, width // 4, _TOP
        self.first = Conditioned(nn.Linear(latent_dim, math.prod(self.top)), math.prod(self.top))
        self.block = PointwiseBlock(_TOP)
        self.second = Conditioned(nn.ConvTranspose2d(_TOP, _MIDDLE, 4, 2, padding=1), _MIDDLE)
        self.last = nn.ConvTranspose2d(_MIDDLE, channels, 4, 2, padding=1)

    def forward(self, z: Tensor, e: Tensor) -> Tensor:
        """Logits (b, c, h, w)."""
        h = self.first(z, e).reshape(-1, *self.top).permute(0, 3, 1, 2)
        return self.last(self.second(self.block(h, e), e))


class CVAE(nn.Module):
    """A conditional variational autoencoder of images with ten labels."""

    def __init__(self, network: str, latent_dim: int = 20, shape: Shape = MNIST) -> None:
        """Make the `mlp` or the `conv` network."""
        super().__init__()
        encoder, decoder = {"mlp": (MLPEncoder, MLPDecoder), "conv": (ConvEncoder, ConvDecoder)}[network]
        self.embedding = nn.Embedding(NUM_CLASSES, _EMBEDDING)
        self.encoder = encoder(shape)
        self.to_latents = nn.Linear(self.encoder.features, 2 * latent_dim)  # mean and logvar in one product
        self.decoder = decoder(latent_dim, shape)
        if network == "conv":
            self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of q(z|x,c), each (b, z), from x (b, c, h, w)."""
        mean, logvar = self.to_latents(self.encoder(x, self.embedding(c))).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        """Logits of p(x|z,c), (b, c, h, w)."""
        return self.decoder(z, self.embedding(c))


class Terms(NamedTuple):
    """Batch means in nats per example."""

    loss: Tensor
    distortion: Tensor
    rate: Tensor


def negative_beta_elbo(model: CVAE, x: Tensor, c: Tensor, noise: Tensor, beta: float) -> Terms:
    """The loss of a β-VAE and its terms, from one draw of z per example."""
    mean, logvar = model.encode(x, c)
    z = mean + torch.exp(0.5 * logvar) * noise
    logits = model.decode(z, c)
    distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
    rate = 0.5 * (mean.square() + torch.expm1(logvar) - logvar).sum() / len(x)
    return Terms(distortion + beta * rate, distortion, rate)


class Training:
    """One member's training: the model, its optimizer, and the data."""

    def __init__(
        self,
        network: str,
        x: UInt8[np.ndarray, "n H W C"],
        c: Int[np.ndarray, " n"],
        *,
        latent_dim: int = 20,
        x_max: float = 255.0,
        beta: float = 1.0,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        """Initialize the model; its images stay uint8."""
        torch.manual_seed(seed)
        _, height, width, channels = x.shape
        self.shape = channels, height, width
        self.x = torch.from_numpy(x).flatten(1)
        self.x_max = x_max
        self.c = torch.from_numpy(c).long()
        self.model = CVAE(network, latent_dim, (height, width, channels))
        self.latent_dim = latent_dim
        self.beta = beta
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate, fused=True)
        self.sums = torch.zeros(3)
        self.batches = self._endless_batches()

    def _endless_batches(self) -> Iterator[Tensor]:
        """Rows of full batches, in a new order every epoch."""
        while True:
            yield from torch.randperm(len(self.x)).split(BATCH_SIZE)[: len(self.x) // BATCH_SIZE]

    def step(self) -> None:
        """One update, left out if the loss or the gradient is not finite."""
        rows = next(self.batches)
        grey = self.x.index_select(0, rows).float() / self.x_max
        x = torch.bernoulli(grey).reshape(-1, *self.shape)
        noise = torch.randn(len(rows), self.latent_dim)

        self.optimizer.zero_grad(set_to_none=True)
        terms = negative_beta_elbo(self.model, x, self.c[rows], noise, self.beta)
        terms.loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        with torch.no_grad():
            values = torch.stack(terms)
            if torch.isfinite(values.sum() + norm):
                self.optimizer.step()
                self.sums += values

    def run(self, num_steps: int) -> None:
        """Train for some steps."""
        for _ in range(num_steps):
            self.step()


def train_one_after_another(members: Sequence[Training], num_steps: int) -> list[float]:
    """Train every member for some steps, each to its end before the next; seconds per member."""
    seconds = []
    for member in members:
        start = time.perf_counter()
        member.run(num_steps)
        seconds.append(time.perf_counter() - start)
    return seconds
