"""The objectives of importance-weighted autoencoders: bounds from several draws of z per example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.cvae import CVAE, embed, encode
from cvae_jax.draws import log_weights, rate
from cvae_jax.hparams import Hparams
from cvae_jax.losses import importance_weighted_bound, reparameterize
from cvae_jax.terms import Terms

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key, PyTree


def importance_weighted_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    keys: Key[Array, " b"],
    hparams: Hparams,
    *,
    num_samples: int,
    doubly_reparameterized: bool,
) -> Terms:
    """The loss of an importance-weighted autoencoder, from several draws of z per example.

    loss = −log (1/k) Σⱼ wⱼ,  log wⱼ = log p(x|zⱼ,c) + β (log p(zⱼ) − log q(zⱼ|x,c)),  zⱼ ~ q(z|x,c)

    With one draw and β = 1 it is the ELBO with a sampled KL. Doubly reparameterized, the value and the decoder's
    gradient are the same; the encoder's reaches it through z alone, each draw's weighted by the square of its
    normalized weight, which takes out the score's noise and leaves the expectation.

    Args:
      model, params, x, c, keys: see `negative_beta_elbo`.
      hparams: `beta` and `latent_mask` are read.
      num_samples: k, ≥ 1.
      doubly_reparameterized: whether the encoder takes the gradient of Tucker et al.

    Returns:
      Loss; distortion, the mean over the draws; and rate, in closed form; per example, nats.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equations 8 and 14; Tucker et al., Doubly
      Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019, equation 8.
    """
    mask = hparams.latent_mask
    c = embed(model, params, c)
    q = encode(model, params, x, c, mask)
    keys = jax.vmap(lambda key: jax.random.split(key, num_samples))(keys)
    z = jax.vmap(lambda keys, m, v: jax.vmap(reparameterize, (0, None, None))(keys, m, v))(
        keys, q.mean, q.logvar
    )
    density = q
    extra = jnp.zeros(z.shape[:2])
    if doubly_reparameterized:
        density = jax.lax.stop_gradient(q)
        z, extra = _weigh_gradient(z)
    log_likelihood, ratio = log_weights(model, params, x, c, z, density, mask)
    bound = jax.vmap(importance_weighted_bound)(log_likelihood + hparams.beta * ratio + extra)
    return Terms(-bound, -jnp.mean(log_likelihood, axis=1), rate(model, params, q, z[:, 0], c, mask))


@jax.custom_vjp
def _weigh_gradient(z: Float[Array, "b k z"]) -> tuple[Float[Array, "b k z"], Float[Array, "b k"]]:
    """z itself, and zeros to add to its log-weights: on the way back z's gradient is weighed once more.

    The gradient that reaches the zeros is that of the log-weights: normalized over the draws, the weights
    themselves.
    """
    return z, jnp.zeros(z.shape[:2], z.dtype)


def _weigh_forward(z: Array) -> tuple[tuple[Array, Array], None]:
    return _weigh_gradient(z), None


def _weigh_backward(_: None, gradients: tuple[Array, Array]) -> tuple[Array]:
    of_z, of_log_weights = gradients
    total = jnp.sum(of_log_weights, axis=1, keepdims=True)
    weights = of_log_weights / jnp.where(total == 0.0, 1.0, total)
    return (of_z * weights[..., None],)


_weigh_gradient.defvjp(_weigh_forward, _weigh_backward)
