"""Priors p(z|c): standard normal, a Gaussian made from the condition, a normalizing flow.

Each has `log_prob`, `sample`, `from_noise` and its inverse `to_noise` over the latents in use, and those whose
divergence from a Gaussian has a closed form have `rate`; what the condition says arrives as its embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.densities import standard_deviation
from cvae_jax.losses import gaussian_kl, gaussian_log_likelihood, standard_normal_kl
from cvae_jax.nn.dense import Dense
from cvae_jax.nn.latent import FromLatents, Gaussian, ToLatents

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float, Key

# Of a coupling's log-scale: no layer stretches a latent more than e-fold.
_MOST_LOG_SCALE = 1.0


def masked(q: Gaussian, latent_mask: Bool[Array, " z"]) -> Gaussian:
    """The same Gaussians, but N(0, 1) in the latents out of use."""
    return Gaussian(jnp.where(latent_mask, q.mean, 0.0), jnp.where(latent_mask, q.logvar, 0.0))


def masked_log_density(
    z: Float[Array, " z"],
    mean: Float[Array, " z"],
    logvar: Float[Array, " z"],
    latent_mask: Bool[Array, " z"],
) -> Float[Array, ""]:
    """log N(z; mean, e^logvar) over the latents in use, nats."""
    each = jax.vmap(lambda z, m, v: gaussian_log_likelihood(m[None], z[None], v[None]))(z, mean, logvar)
    return jnp.sum(jnp.where(latent_mask, each, 0.0))


def log_density_of_draws(
    z: Float[Array, "b k z"], q: Gaussian, latent_mask: Bool[Array, " z"]
) -> Float[Array, "b k"]:
    """`masked_log_density` of k draws under each Gaussian of a batch, nats."""
    of_draws = jax.vmap(masked_log_density, (0, None, None, None))
    return jax.vmap(of_draws, (0, 0, 0, None))(z, q.mean, q.logvar, latent_mask)


def noise_of(keys: Key[Array, " b"], capacity: int) -> Float[Array, "b z"]:
    """Standard normal noise, one row per key."""
    return jax.vmap(lambda key: jax.random.normal(key, (capacity,)))(keys)


def sampled_rate(
    q: Gaussian, z: Float[Array, "b z"], log_prior: Float[Array, "b 1"], latent_mask: Bool[Array, " z"]
) -> Float[Array, " b"]:
    """log q(z) − log p(z) of one draw z of each q, whose mean is the divergence, nats."""
    return (log_density_of_draws(z[:, None], q, latent_mask) - log_prior)[:, 0]


class Apart(NamedTuple):
    """How far apart a batch of priors and another are.

    Attributes:
      divergence: part by part, shape (b,), nats.
      tipped: the least share of draws that come from another part, 0 where there is but one, shape (b,).
    """

    divergence: Float[Array, " b"]
    tipped: Float[Array, " b"]


def symmetric(
    apart: Callable[[Any, Any], Apart],
    prior: Callable[[Array, Array], Any],
    e: Float[Array, "b e"],
    other: Float[Array, "b e"],
    latent_mask: Bool[Array, " z"],
) -> Apart:
    """How far apart a prior puts two embeddings, the mean of both directions."""
    # One call, on twice the batch: a step has half the products, each twice the size.
    both = prior(jnp.concatenate([e, other]), latent_mask)
    p, q = (jax.tree.map(lambda a, i=i: jnp.split(a, 2)[i], both) for i in (0, 1))
    return jax.tree.map(lambda a, b: 0.5 * (a + b), apart(p, q), apart(q, p))


class StandardPrior(nn.Module):
    """N(0, I), whatever the condition.

    Attributes:
      capacity: number of latents there is room for.
    """

    capacity: int

    def log_prob(
        self, z: Float[Array, "b k z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b k"]:
        """log p(z) of k draws per condition, nats."""
        zeros = jnp.zeros_like(z[:, 0])
        return log_density_of_draws(z, Gaussian(zeros, zeros), latent_mask)

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition."""
        return self.from_noise(temperature * noise_of(keys, self.capacity), e, latent_mask)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z of standard normal noise: the noise itself."""
        return noise

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`: z itself."""
        return z

    def rate(
        self, q: Gaussian, e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """KL(q ‖ p), exact, nats."""
        return jax.vmap(standard_normal_kl)(q.mean, q.logvar)


class ConditionalPrior(nn.Module):
    """Two dense layers from the condition's embedding to a Gaussian p(z|c).

    References:
      Sohn, Lee & Yan, Learning Structured Output Representation Using Deep Conditional Generative Models, 2015,
      section 4.1.
    """

    capacity: int
    width: int = 256
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]) -> Gaussian:
        """p(z|c) of a batch; latents out of use are N(0, 1)."""
        h = nn.silu(Dense(self.width, dtype=self.dtype)(e.astype(self.dtype)))
        h = nn.silu(Dense(self.width, dtype=self.dtype)(h))
        return masked(ToLatents(self.capacity, name="to_latents")(h), latent_mask)

    def log_prob(
        self, z: Float[Array, "b k z"], e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b k"]:
        """log p(z|c) of k draws per condition, nats."""
        return log_density_of_draws(z, self(e, latent_mask), latent_mask)

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"],
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition."""
        return self.from_noise(temperature * noise_of(keys, self.capacity), e, latent_mask)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z of standard normal noise."""
        mean, logvar = self(e, latent_mask)
        return mean + standard_deviation(logvar) * noise

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`: z in standard deviations from the mean of p(z|c)."""
        mean, logvar = self(e, latent_mask)
        return (z - mean) * standard_deviation(-logvar)

    def rate(self, q: Gaussian, e: Float[Array, "b e"], latent_mask: Bool[Array, " z"]) -> Float[Array, " b"]:
        """KL(q ‖ p), exact, nats."""
        return jax.vmap(gaussian_kl)(*q, *self(e, latent_mask))

    def apart(
        self, e: Float[Array, "b e"], other: Float[Array, "b e"], latent_mask: Bool[Array, " z"]
    ) -> Apart:
        """How far apart the priors of two embeddings are, by the exact KL."""

        def apart(p: Gaussian, q: Gaussian) -> Apart:
            return Apart(gaussian_kl(*p, *q), jnp.zeros(()))

        return symmetric(jax.vmap(apart), self, e, other, latent_mask)


class Coupling(nn.Module):
    """Shift and log-scale of every latent, from some of the latents and the condition."""

    capacity: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, kept: Bool[Array, " z"]
    ) -> tuple[Float[Array, "b z"], Float[Array, "b z"]]:
        """Read the latents that are kept, for a batch."""
        h = FromLatents(self.width)(jnp.where(kept, z, 0.0), kept)
        if e is not None:
            h = h + Dense(self.width, use_bias=False, dtype=self.dtype)(e.astype(self.dtype))
        h = nn.silu(Dense(self.width, dtype=self.dtype)(nn.silu(h.astype(self.dtype))))
        shift, log_scale = ToLatents(self.capacity, name="to_latents")(h)
        return shift, _MOST_LOG_SCALE * jnp.tanh(log_scale)


class FlowPrior(nn.Module):
    """Affine couplings between z and standard normal noise, given the condition.

    Layer i keeps the latents of the parity of i and moves the others by a shift and a scale that it reads off the kept
    ones: both directions cost the same.

    References:
      Dinh, Sohl-Dickstein & Bengio, Density Estimation Using Real NVP, 2017, equations 7 and 8.
    """

    capacity: int
    layers: int = 4
    width: int = 128
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Build the couplings."""
        self.couplings = [Coupling(self.capacity, self.width, self.dtype) for _ in range(self.layers)]

    def _parts(
        self, layer: int, latent_mask: Bool[Array, " z"]
    ) -> tuple[Bool[Array, " z"], Bool[Array, " z"]]:
        kept = latent_mask & (jnp.arange(self.capacity) % 2 == layer % 2)
        return kept, latent_mask & ~kept

    def _invert(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> tuple[Float[Array, "b z"], Float[Array, " b"]]:
        """The noise that z is made of, and the log-determinant of the map to it."""
        noise, log_det = z, jnp.zeros(z.shape[0])
        for layer, coupling in enumerate(self.couplings):
            kept, moved = self._parts(layer, latent_mask)
            shift, log_scale = coupling(noise, e, kept)
            noise = jnp.where(moved, (noise - shift) * jnp.exp(-log_scale), noise)
            log_det = log_det - jnp.sum(jnp.where(moved, log_scale, 0.0), axis=1)
        return noise, log_det

    def log_prob(
        self, z: Float[Array, "b k z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b k"]:
        """log p(z|c) of k draws per condition, nats."""
        b, k, capacity = z.shape
        e = None if e is None else jnp.repeat(e, k, axis=0)
        noise, log_det = self._invert(z.reshape(b * k, capacity), e, latent_mask)
        standard = jnp.zeros(capacity)
        log_density = jax.vmap(masked_log_density, (0, None, None, None))(
            noise, standard, standard, latent_mask
        )
        return (log_density + log_det).reshape(b, k)

    def sample(
        self,
        keys: Key[Array, " b"],
        e: Float[Array, "b e"] | None,
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float,
    ) -> Float[Array, "b z"]:
        """One z per condition."""
        return self.from_noise(temperature * noise_of(keys, self.capacity), e, latent_mask)

    def from_noise(
        self, noise: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z of standard normal noise."""
        z = noise
        for layer, coupling in reversed(list(enumerate(self.couplings))):
            kept, moved = self._parts(layer, latent_mask)
            shift, log_scale = coupling(z, e, kept)
            z = jnp.where(moved, z * jnp.exp(log_scale) + shift, z)
        return z

    def to_noise(
        self, z: Float[Array, "b z"], e: Float[Array, "b e"] | None, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`."""
        return self._invert(z, e, latent_mask)[0]
