"""The VampPrior: the mean of the posteriors of learned inputs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.latent import ToLatents, masked
from cvae_jax.options import COUNT, static
from cvae_jax.priors.base import Prior, PriorContext
from cvae_jax.priors.gaussian_mixture import GaussianMixture, MixtureModule

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Vamp(Prior):
    """The mean of the posteriors of learned inputs, the same for every condition.

    References:
      Tomczak & Welling, VAE with a VampPrior, 2018.
    """

    pseudo_inputs: int = static(
        50, bounds=COUNT, help="Number of learned inputs whose posteriors, averaged, are the prior."
    )

    reads_condition: ClassVar[bool] = False
    # Its encoder's layers would need a β for each learned input.
    gated: ClassVar[bool] = False

    def module(self, context: PriorContext) -> VampPrior:
        """The flax module, which calls the model's encoder."""
        return VampPrior(
            self.pseudo_inputs,
            context.shape,
            context.features,
            context.film,
            context.encoder,
            context.to_latents,
        )


class VampPrior(MixtureModule):
    """A mixture, with equal weights, of the posteriors of K learned inputs. Each has its own learned embedding of c.

    Attributes:
      pseudo_inputs: K.
      shape: of one x.
      features: size of the embeddings, 0 without a condition.
      film: as in `Context`.
      encoder, to_latents: the model's own.

    References:
      Tomczak & Welling, VAE with a VampPrior, 2018, equation 9.
    """

    pseudo_inputs: int
    shape: tuple[int, ...]
    features: int
    film: bool
    encoder: nn.Module
    to_latents: ToLatents

    batch_axis: ClassVar[int | None] = None

    def setup(self) -> None:
        """Draw the pseudo-inputs."""
        start = nn.initializers.normal(1.0)
        self.images = self.param("images", start, (self.pseudo_inputs, *self.shape))
        self.embeddings = (
            self.param("embeddings", start, (self.pseudo_inputs, self.features)) if self.features else None
        )

    def __call__(self, e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]) -> GaussianMixture:
        """p(z), one mixture for all conditions; latents that are not in use are N(0, 1)."""
        h = self.encoder(nn.sigmoid(self.images), Context(self.embeddings, film=self.film))
        even = jnp.full(self.pseudo_inputs, -jnp.log(jnp.float32(self.pseudo_inputs)))
        return GaussianMixture(even, masked(self.to_latents(h), latent_mask))
