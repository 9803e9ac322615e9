"""What a prior p(z|c) is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import flax.linen as nn
import jax

from cvae_jax.nn.latent import Gaussian, ToLatents, log_density
from cvae_jax.options import Part

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float, Key


class PriorContext(NamedTuple):
    """What a prior may be made of.

    Attributes:
      capacity: number of latents there is room for.
      shape: of one x, channels last.
      features: size of the condition's embedding, 0 without a condition.
      film: whether the condition scales channels in the encoder.
      encoder: the model's encoder, from (x, context) to features.
      to_latents: the model's map from those to q.
      dtype: of the matrix products.
    """

    capacity: int
    shape: tuple[int, ...]
    features: int
    film: bool
    encoder: nn.Module
    to_latents: ToLatents
    dtype: DTypeLike


class PriorModule(nn.Module):
    """The density p(z|c) over the latents in use, given the condition's embedding e; the base of a prior's flax module.

    A subclass has `log_prob`, and `from_noise` with its inverse `to_noise`; `sample` and `kl` follow from them.
    """

    def log_prob(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """log p(z|c) of one z per condition, nats."""
        raise NotImplementedError

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z that lies under p(z|c) where the noise lies under N(0, I)."""
        raise NotImplementedError

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`."""
        raise NotImplementedError

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition, its noise times the temperature."""
        noise = jax.vmap(lambda key: jax.random.normal(key, latent_mask.shape))(keys)
        return self.from_noise(temperature * noise, e, latent_mask)

    def kl(
        self,
        q: Gaussian,
        z: Float[Array, "b z"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
    ) -> Float[Array, "b g"]:
        """KL(q ‖ p) per latent or group of latents, nats.

        Here the estimate from one draw z ~ q, log q(z) − log p(z), of all latents as one group; priors with a closed
        form per latent have that instead.
        """
        return (log_density(z, *q, latent_mask) - self.log_prob(z, e, latent_mask))[:, None]


class Prior(Part):
    """A choice of p(z|c); a subclass is a frozen dataclass of its options.

    Attributes:
      needs_condition: whether it is made from the condition's embedding and from nothing else.
      reads_condition: whether it uses the embedding at all.
      standard: whether it is N(0, I).
      gated: whether its layers can be gated by β, see `objectives.multirate`.
      gaussian: whether it is one Gaussian made from the condition: its module's `__call__(e, latent_mask)` gives it.
    """

    kind: ClassVar[str] = "prior"
    needs_condition: ClassVar[bool] = False
    reads_condition: ClassVar[bool] = True
    standard: ClassVar[bool] = False
    gated: ClassVar[bool] = True
    gaussian: ClassVar[bool] = False

    def module(self, context: PriorContext) -> PriorModule:
        """The flax module."""
        raise NotImplementedError
