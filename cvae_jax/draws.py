"""Draws of z, of the prior and for given data: the parts of the ELBO, and importance weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp

from cvae_jax.losses import reparameterize
from cvae_jax.model import CVAE, decode, embed, encode
from cvae_jax.nn.latent import Gaussian
from cvae_jax.priors.gaussian import StandardPrior, log_density_of_draws

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree


def log_prior(
    model: CVAE, params: PyTree, z: Float[Array, "b k z"], c: PyTree, latent_mask: Bool[Array, " z"]
) -> Float[Array, "b k"]:
    """log p(z|c) over the latents in use, of k draws per condition.

    Args:
      model: the model; one without a `prior` has N(0, I).
      params: its variables.
      z: latents, shape (b, k, z).
      c: conditions.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Shape (b, k), nats.
    """
    if not hasattr(model, "log_prior"):
        return StandardPrior(z.shape[-1]).log_prob(z, None, latent_mask)
    return cast("Float[Array, 'b k']", model.apply(params, z, c, latent_mask, method="log_prior"))


def rate(
    model: CVAE,
    params: PyTree,
    q: Gaussian,
    z: Float[Array, "b z"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
) -> Float[Array, " b"]:
    """KL(q(z|x,c) ‖ p(z|c)) of a batch: exact between Gaussians, else estimated from the draw z ~ q.

    Args:
      model: the model; one without a `prior` has N(0, I).
      params: its variables.
      q: the posteriors.
      z: a draw of each, shape (b, z).
      c: conditions.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Shape (b,), nats.
    """
    if not hasattr(model, "rate"):
        return StandardPrior(z.shape[-1]).rate(q, None, latent_mask)
    return cast("Float[Array, ' b']", model.apply(params, q, z, c, latent_mask, method="rate"))


def sample_prior(
    model: CVAE,
    params: PyTree,
    keys: Key[Array, " b"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
    temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, "b z"]:
    """One z ~ p(z|c) per condition.

    Args:
      model: the model; one without a `prior` has N(0, I).
      params: its variables.
      keys: one per condition, shape (b,).
      c: conditions.
      latent_mask: the latents in use, shape (z,), bool.
      temperature: times the noise that z is made of: 1 draws from the prior, less stays nearer to its middle, or to
        those of a mixture's likelier parts.

    Returns:
      Shape (b, z); latents out of use are noise that nothing reads.
    """
    if not hasattr(model, "sample_prior"):
        return StandardPrior(latent_mask.shape[0]).sample(keys, None, latent_mask, temperature)
    z = model.apply(params, keys, c, latent_mask, temperature, method="sample_prior")
    return cast("Float[Array, 'b z']", z)


def from_noise(
    model: CVAE, params: PyTree, noise: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]
) -> Float[Array, "b z"]:
    """z that lies under p(z|c) where noise lies under N(0, I): 0 is the middle, 1 a standard deviation from it.

    Args:
      model: the model; one without a `prior` has N(0, I).
      params: its variables.
      noise: where, shape (b, z).
      c: conditions.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Shape (b, z).
    """
    if not hasattr(model, "from_noise"):
        return noise
    return cast("Float[Array, 'b z']", model.apply(params, noise, c, latent_mask, method="from_noise"))


def to_noise(
    model: CVAE, params: PyTree, z: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]
) -> Float[Array, "b z"]:
    """The inverse of `from_noise`: z in units of p(z|c), in standard deviations from its mean where it is Gaussian.

    Args:
      model: the model; one without a `prior` has N(0, I).
      params: its variables.
      z: latents, shape (b, z).
      c: conditions.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Shape (b, z).
    """
    if not hasattr(model, "to_noise"):
        return z
    return cast("Float[Array, 'b z']", model.apply(params, z, c, latent_mask, method="to_noise"))


class Draw(NamedTuple):
    """The posterior of a batch, one draw of it, the likelihood of the data there, and the rate.

    Attributes:
      q: q(z|x,c), shapes (b, z).
      z: the draw, shape (b, z).
      log_likelihood: log p(x|z,c) for z ~ q, shape (b,), nats.
      rate: KL(q(z|x,c) ‖ p(z|c)), shape (b,), nats; estimated from the draw where it has no closed form.
    """

    q: Gaussian
    z: Float[Array, "b z"]
    log_likelihood: Float[Array, " b"]
    rate: Float[Array, " b"]


def draw(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    keys: Key[Array, " b"],
    latent_mask: Bool[Array, " z"],
) -> Draw:
    """Encode, draw one z per example, decode, and compare with x: the parts of the ELBO.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C), float32.
      c: conditions, with a leading axis b.
      keys: one key per example, shape (b,).
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      The posterior, the draw, log p(x|z,c) and the rate per example, nats.
    """
    embedded = embed(model, params, c)
    q = encode(model, params, x, embedded, latent_mask)
    z = jax.vmap(reparameterize)(keys, q.mean, q.logvar)
    log_likelihood = log_likelihood_of(model, params, x, z, embedded, latent_mask)
    return Draw(q, z, log_likelihood, rate(model, params, q, z, embedded, latent_mask))


def log_likelihood_of(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    z: Float[Array, "b z"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
) -> Float[Array, " b"]:
    """log p(x|z,c) of one z per example, nats.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C), float32.
      z: latents, shape (b, z).
      c: conditions, with a leading axis b.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Shape (b,), nats.
    """
    family = model.likelihood
    output = decode(model, params, z, c, latent_mask)
    if family.fit is not None and model.fits_batch:
        output = family.fit(output, x)
    return jax.vmap(family.log_prob)(output, x)


class LogWeights(NamedTuple):
    """The two parts of log w = log p(x|z,c) + log p(z|c) − log q(z|x,c), of k draws of z per example.

    Attributes:
      log_likelihood: log p(x|z,c), shape (b, k), nats.
      log_ratio: log p(z|c) − log q(z|x,c) over the latents in use, shape (b, k), nats.
    """

    log_likelihood: Float[Array, "b k"]
    log_ratio: Float[Array, "b k"]


def log_weights(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    z: Float[Array, "b k z"],
    q: Gaussian,
    latent_mask: Bool[Array, " z"],
) -> LogWeights:
    """Importance weights of draws from the posterior, for bounds tighter than the ELBO.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C).
      c: conditions, with a leading axis b.
      z: draws from q, shape (b, k, z).
      q: the posterior of x and c.
      latent_mask: the latents in use, shape (z,).

    Returns:
      log p(x|z,c), and log p(z|c) − log q(z|x,c), shape (b, k) each.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8.
    """
    embedded = embed(model, params, c)
    log_q = log_density_of_draws(z, q, latent_mask)
    log_ratio = log_prior(model, params, z, embedded, latent_mask) - log_q
    return LogWeights(log_likelihood_of_each(model, params, x, z, embedded, latent_mask), log_ratio)


def log_likelihood_of_each(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    z: Float[Array, "b k z"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
) -> Float[Array, "b k"]:
    """log p(x|z,c) of k draws of z per example, nats; arguments as of `log_weights`."""
    b, k, _ = z.shape
    repeated = jax.tree.map(lambda a: jnp.repeat(a, k, axis=0), embed(model, params, c))
    output = decode(model, params, z.reshape(b * k, -1), repeated, latent_mask)
    output = jax.tree.map(lambda leaf: leaf.reshape(b, k, *leaf.shape[1:]), output)
    return jax.vmap(jax.vmap(model.likelihood.log_prob, (0, None)))(output, x)
