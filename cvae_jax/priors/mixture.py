"""Priors p(z|c) of several modes: the mean of learned posteriors, and Gaussians made from the condition.

Their methods are those of `priors.py`. The divergence of a Gaussian from a mixture has no closed form, so they have no
`rate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.densities import standard_deviation
from cvae_jax.losses import gaussian_kl
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import Gaussian, ToLatents
from cvae_jax.priors.gaussian import Apart, masked, masked_log_density, symmetric

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float, Key


# What scores of parts are divided by at a temperature of 0.
_LEAST_TEMPERATURE = 1e-30


class Mixture(NamedTuple):
    """Gaussians, each of which a draw comes from with a probability of its own; a batch of them has a leading axis b.

    Attributes:
      log_weights: logarithms of the probabilities, shape (K,).
      parts: the Gaussians, shapes (K, z).
    """

    log_weights: Float[Array, "*b k"]
    parts: Gaussian


def mixture_log_density(
    z: Float[Array, " z"], mixture: Mixture, latent_mask: Bool[Array, " z"]
) -> Float[Array, ""]:
    """log Σₖ wₖ N(z; mean_k, e^logvar_k) over the latents in use.

    Args:
      z: where, shape (z,).
      mixture: of K Gaussians.
      latent_mask: the latents in use, shape (z,).

    Returns:
      Scalar, nats.

    Example:
      >>> even = Mixture(jnp.log(jnp.full(2, 0.5)), Gaussian(jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1))))
      >>> round(float(mixture_log_density(jnp.zeros(1), even, jnp.ones(1, bool))), 4)  # log N(1; 0, 1)
      -1.4189
    """
    each = jax.vmap(masked_log_density, (None, 0, 0, None))(z, *mixture.parts, latent_mask)
    return jax.nn.logsumexp(mixture.log_weights + each)


def matched_divergence(p: Mixture, q: Mixture) -> Float[Array, ""]:
    """KL(p ‖ q) part by part, Σₖ wₖ [log wₖ − log vₖ + KL(pₖ ‖ qₖ)]: that of pairs of a part and a draw of it.

    At least the KL between the mixtures, by the log-sum inequality, and 0 only where the same noise is the same draw
    of both.

    Args:
      p: with weights w, of K Gaussians.
      q: with weights v, likewise.

    Returns:
      Scalar, nats.

    Example:
      >>> parts = Gaussian(jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
      >>> p, q = Mixture(jnp.log(jnp.array([0.5, 0.5])), parts), Mixture(jnp.log(jnp.array([0.2, 0.8])), parts)
      >>> round(float(matched_divergence(p, q)), 4)  # ½ log(0.25 / 0.16)
      0.2231

    References:
      Cover & Thomas, Elements of Information Theory, 2006, theorem 2.7.1.
    """
    of_parts = jax.vmap(gaussian_kl)(*p.parts, *q.parts)
    return jnp.sum(jnp.exp(p.log_weights) * (p.log_weights - q.log_weights + of_parts))


def total_variation(p: Mixture, q: Mixture) -> Float[Array, ""]:
    """½ Σₖ |wₖ − vₖ|: the least share of draws that come from another part of q than of p, whatever the draws share.

    Args:
      p: with weights w, of K Gaussians.
      q: with weights v, likewise.

    Returns:
      Scalar, from 0 to 1.

    Example:
      >>> parts = Gaussian(jnp.zeros((2, 1)), jnp.zeros((2, 1)))
      >>> p, q = Mixture(jnp.log(jnp.array([0.5, 0.5])), parts), Mixture(jnp.log(jnp.array([0.2, 0.8])), parts)
      >>> round(float(total_variation(p, q)), 4)
      0.3

    References:
      Levin & Peres, Markov Chains and Mixing Times, 2017, proposition 4.7.
    """
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(p.log_weights) - jnp.exp(q.log_weights)))


def draw_from(
    key: Key[Array, ""], mixture: Mixture, temperature: Float[Array, ""] | float
) -> Float[Array, " z"]:
    """One z: a part by the weights, to the power 1/temperature, then a draw of it, its noise times the temperature.

    At 0 it is the mean of the likeliest part, and of one of them at random where several are.

    Args:
      key: of the part and the noise.
      mixture: of K Gaussians.
      temperature: ≥ 0, scalar; 1 draws from the mixture.

    Returns:
      Shape (z,), float32.

    References:
      Ha & Eck, A Neural Representation of Sketch Drawings, 2017, equation 8, there with the root of the temperature
      for the noise.
    """
    of_part, of_noise = jax.random.split(key)
    # Relative to the likeliest, so that at 0 equal parts stay equal.
    scores = mixture.log_weights - jnp.max(mixture.log_weights)
    part = jax.random.categorical(of_part, scores / jnp.maximum(temperature, _LEAST_TEMPERATURE))
    mean, logvar = mixture.parts.mean[part], mixture.parts.logvar[part]
    return mean + standard_deviation(logvar) * (temperature * jax.random.normal(of_noise, mean.shape))


def moments(mixture: Mixture) -> tuple[Float[Array, " z"], Float[Array, " z"]]:
    """Mean and standard deviation of each latent under a whole mixture.

    Example:
      >>> parts = Gaussian(jnp.array([[-3.0], [3.0]]), jnp.full((2, 1), jnp.log(16.0)))
      >>> [a.round(4).tolist() for a in moments(Mixture(jnp.log(jnp.array([0.5, 0.5])), parts))]  # 3² + 16 = 5²
      [[0.0], [5.0]]
    """
    weights = jnp.exp(mixture.log_weights)[:, None]
    mean = jnp.sum(weights * mixture.parts.mean, axis=0)
    spread = jnp.square(standard_deviation(mixture.parts.logvar)) + jnp.square(mixture.parts.mean - mean)
    return mean, jnp.sqrt(jnp.sum(weights * spread, axis=0))


def stretched(noise: Float[Array, " z"], mixture: Mixture) -> Float[Array, " z"]:
    """z of standard normal noise by the mean and the variance of a whole mixture: where it lies, not a draw."""
    mean, deviation = moments(mixture)
    return mean + deviation * noise


def standardized(z: Float[Array, " z"], mixture: Mixture) -> Float[Array, " z"]:
    """The inverse of `stretched`: z in standard deviations from the mean of a whole mixture."""
    mean, deviation = moments(mixture)
    return (z - mean) / deviation


class VampPrior(nn.Module):
    """The mean of the posteriors of K learned images, each with an embedding of its own; the condition has no say.

    Attributes:
      pseudo_inputs: K.
      shape: of the images.
      features: size of the embeddings, 0 without a condition.
      film: as in `Context`.
      encoder, to_latents: the model's own.

    References:
      Tomczak & Welling, VAE with a VampPrior, 2018, equation 9.
    """

    pseudo_inputs: int
    shape: tuple[int, int, int]
    features: int
    film: bool
    encoder: nn.Module
    to_latents: ToLatents

    def setup(self) -> None:
        """Draw the pseudo-inputs."""
        start = nn.initializers.normal(1.0)
        self.images = self.param("images", start, (self.pseudo_inputs, *self.shape))
        self.embeddings = (
            self.param("embeddings", start, (self.pseudo_inputs, self.features)) if self.features else None
        )

    def mixture(self, latent_mask: Bool[Array, " z"]) -> Mixture:
        """p(z), the same for every condition."""
        h = self.encoder(nn.sigmoid(self.images), Context(self.embeddings, film=self.film))
        even = jnp.full(self.pseudo_inputs, -jnp.log(jnp.float32(self.pseudo_inputs)))
        return Mixture(even, masked(self.to_latents(h), latent_mask))

    def log_prob(
        self, z: Float[Array, "b k z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b k"]:
        """log p(z) of k draws per condition, nats."""
        of_draws = jax.vmap(mixture_log_density, (0, None, None))
        return jax.vmap(of_draws, (0, None, None))(z, self.mixture(latent_mask), latent_mask)

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition: a part at random, then a draw of it."""
        return jax.vmap(draw_from, (0, None, None))(keys, self.mixture(latent_mask), temperature)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z of standard normal noise, see `stretched`."""
        return jax.vmap(stretched, (0, None))(noise, self.mixture(latent_mask))

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`, see `standardized`."""
        return jax.vmap(standardized, (0, None))(z, self.mixture(latent_mask))


class MixturePrior(nn.Module):
    """Two dense layers from the condition's embedding to K Gaussians and their weights.

    A condition that leaves open what z has to say, as a caption that names no place, has several answers far apart;
    one Gaussian would lie between them.

    Attributes:
      capacity: number of latents there is room for.
      parts: K.
      width: of the dense layers.

    References:
      Bishop, Mixture Density Networks, 1994, equations 22 to 26, with a variance for each latent.
    """

    capacity: int
    parts: int
    width: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]) -> Mixture:
        """p(z|c) of a batch; latents out of use are N(0, 1)."""
        h = nn.silu(Dense(self.width, dtype=self.dtype)(e.astype(self.dtype)))
        h = nn.silu(Dense(self.width, dtype=self.dtype)(h))
        each = nn.vmap(
            ToLatents,
            in_axes=None,  # pyright: ignore[reportArgumentType]  every part reads the same h
            out_axes=1,
            axis_size=self.parts,
            variable_axes={"params": 0},
            split_rngs={"params": True},
        )
        parts = jax.vmap(masked, (0, None))(each(self.capacity, name="to_latents")(h), latent_mask)
        scores = Dense(self.parts, dtype=self.dtype)(h).astype(jnp.float32)
        return Mixture(jax.nn.log_softmax(scores), parts)

    def log_prob(
        self, z: Float[Array, "b k z"], e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b k"]:
        """log p(z|c) of k draws per condition, nats."""
        of_draws = jax.vmap(mixture_log_density, (0, None, None))
        return jax.vmap(of_draws, (0, 0, None))(z, self(e, latent_mask), latent_mask)

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"],
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition: a part by the weights, then a draw of it."""
        return jax.vmap(draw_from, (0, 0, None))(keys, self(e, latent_mask), temperature)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z of standard normal noise, see `stretched`."""
        return jax.vmap(stretched)(noise, self(e, latent_mask))

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`, see `standardized`."""
        return jax.vmap(standardized)(z, self(e, latent_mask))

    def apart(
        self, e: Float[Array, "b e"], other: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Apart:
        """How far apart the priors of two embeddings are: by `matched_divergence`, and by `total_variation`."""

        def apart(p: Mixture, q: Mixture) -> Apart:
            return Apart(matched_divergence(p, q), total_variation(p, q))

        return symmetric(jax.vmap(apart), self, e, other, latent_mask)
