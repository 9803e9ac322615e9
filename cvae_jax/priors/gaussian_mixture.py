"""Mixtures of Gaussians over latents, and the base of priors that are such mixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from cvae_jax.losses import standard_deviation
from cvae_jax.nn.latent import Gaussian, log_density
from cvae_jax.priors.base import PriorModule

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key

# What log-weights are divided by at a temperature of 0.
_LEAST_TEMPERATURE = 1e-30


class GaussianMixture(NamedTuple):
    """A mixture of K diagonal Gaussians; a batch of mixtures has a leading axis b.

    Attributes:
      log_weights: logarithms of the components' probabilities, shape (K,).
      parts: the components, shapes (K, z).
    """

    log_weights: Float[Array, "*b k"]
    parts: Gaussian


def mixture_log_density(
    z: Float[Array, " z"], mixture: GaussianMixture, latent_mask: Bool[Array, " z"]
) -> Float[Array, ""]:
    """log Σₖ wₖ N(z; mean_k, e^logvar_k) over the latents in use.

    Args:
      z: latents, shape (z,).
      mixture: of K Gaussians.
      latent_mask: the latents in use, shape (z,).

    Returns:
      Scalar, nats.

    Example:
      >>> parts = Gaussian(jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
      >>> even = GaussianMixture(jnp.log(jnp.full(2, 0.5)), parts)
      >>> round(float(mixture_log_density(jnp.zeros(1), even, jnp.ones(1, bool))), 4)  # log N(1; 0, 1)
      -1.4189
    """
    each = jax.vmap(log_density, (None, 0, 0, None))(z, *mixture.parts, latent_mask)
    return jax.nn.logsumexp(mixture.log_weights + each)


def sample_mixture(
    key: Key[Array, ""], mixture: GaussianMixture, temperature: Float[Array, ""] | float
) -> Float[Array, " z"]:
    """One z: a component by the weights, to the power 1/temperature, then a draw of it, noise times the temperature.

    At 0 it is the mean of the most likely component, and of one of them at random where several are equally likely.

    Args:
      key: of the component and the noise.
      mixture: of K Gaussians.
      temperature: ≥ 0, scalar; 1 draws from the mixture.

    Returns:
      Shape (z,), float32.

    References:
      Ha & Eck, A Neural Representation of Sketch Drawings, 2017, equation 8, there with the root of the temperature
      for the noise.
    """
    of_component, of_noise = jax.random.split(key)
    # Relative to the largest, so that equal weights stay equal at 0.
    scores = mixture.log_weights - jnp.max(mixture.log_weights)
    component = jax.random.categorical(of_component, scores / jnp.maximum(temperature, _LEAST_TEMPERATURE))
    mean, logvar = mixture.parts.mean[component], mixture.parts.logvar[component]
    return mean + standard_deviation(logvar) * (temperature * jax.random.normal(of_noise, mean.shape))


def moments(mixture: GaussianMixture) -> tuple[Float[Array, " z"], Float[Array, " z"]]:
    """Mean and standard deviation of each latent under a whole mixture.

    Example:
      >>> parts = Gaussian(jnp.array([[-3.0], [3.0]]), jnp.full((2, 1), jnp.log(16.0)))
      >>> mixture = GaussianMixture(jnp.log(jnp.array([0.5, 0.5])), parts)
      >>> [a.round(4).tolist() for a in moments(mixture)]  # 3² + 16 = 5²
      [[0.0], [5.0]]
    """
    weights = jnp.exp(mixture.log_weights)[:, None]
    mean = jnp.sum(weights * mixture.parts.mean, axis=0)
    spread = jnp.square(standard_deviation(mixture.parts.logvar)) + jnp.square(mixture.parts.mean - mean)
    return mean, jnp.sqrt(jnp.sum(weights * spread, axis=0))


def unstandardize(noise: Float[Array, " z"], mixture: GaussianMixture) -> Float[Array, " z"]:
    """Noise times the standard deviation of a whole mixture, plus its mean: a place under it, not a draw of it."""
    mean, deviation = moments(mixture)
    return mean + deviation * noise


def standardize(z: Float[Array, " z"], mixture: GaussianMixture) -> Float[Array, " z"]:
    """The inverse of `unstandardize`: z in standard deviations from the mean of a whole mixture."""
    mean, deviation = moments(mixture)
    return (z - mean) / deviation


class MixtureModule(PriorModule):
    """A prior that is a mixture of Gaussians; a subclass has `__call__`.

    `from_noise` takes mean and variance of the whole mixture, `sample` draws from it.

    Attributes:
      batch_axis: 0 where `__call__` gives one mixture per condition, None where it gives one for all.
    """

    batch_axis: ClassVar[int | None] = 0

    def __call__(self, e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]) -> GaussianMixture:
        """p(z|c) of a batch of embeddings; latents that are not in use are N(0, 1)."""
        raise NotImplementedError

    def log_prob(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """log p(z|c) of one z per condition, nats."""
        axes = (0, self.batch_axis, None)
        return jax.vmap(mixture_log_density, axes)(z, self(e, latent_mask), latent_mask)

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition: a component by the weights, then a draw of it; see `sample_mixture`."""
        axes = (0, self.batch_axis, None)
        return jax.vmap(sample_mixture, axes)(keys, self(e, latent_mask), temperature)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z of standard normal noise, see `unstandardize`."""
        return jax.vmap(unstandardize, (0, self.batch_axis))(noise, self(e, latent_mask))

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`, see `standardize`."""
        return jax.vmap(standardize, (0, self.batch_axis))(z, self(e, latent_mask))
