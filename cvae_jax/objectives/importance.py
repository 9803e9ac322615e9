"""The objectives of importance-weighted autoencoders: bounds from several draws of z per example."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from cvae_jax.draws import LogWeights, log_weights, rate
from cvae_jax.hparams import Hparams
from cvae_jax.losses import importance_weighted_bound, reparameterize
from cvae_jax.model import CVAE, embed, encode
from cvae_jax.objectives.terms import Terms

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

    loss = −log (1/k) Σⱼ wⱼ,  log wⱼ = log p(x|zⱼ,c) + β (log p(zⱼ|c) − log q(zⱼ|x,c)),  zⱼ ~ q(z|x,c)

    With one draw and β = 1 it is the ELBO with a sampled KL. Doubly reparameterized, the value is the same, and so is
    the gradient of the decoder and of a learned prior; the encoder's reaches it through z alone, see
    `_doubly_reparameterized`. Its expectation is the same for every β, its variance lower.

    Args:
      model, params, x, c, keys: see `negative_beta_elbo`.
      hparams: `beta` and `latent_mask` are read.
      num_samples: k, ≥ 1.
      doubly_reparameterized: whether the encoder takes the gradient of Tucker et al.

    Returns:
      Loss; distortion, the mean over the draws; and rate, in closed form; per example, nats.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equations 8 and 14; Tucker et al., Doubly
      Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019, equation 8, there for β = 1.
    """
    mask = hparams.latent_mask
    c = embed(model, params, c)
    q = encode(model, params, x, c, mask)
    keys = jax.vmap(lambda key: jax.random.split(key, num_samples))(keys)
    z = jax.vmap(lambda keys, m, v: jax.vmap(reparameterize, (0, None, None))(keys, m, v))(
        keys, q.mean, q.logvar
    )
    if doubly_reparameterized:
        rest = (params, x, c, jax.lax.stop_gradient(q), mask)
        log_likelihood, ratio = _doubly_reparameterized(partial(_log_weights, model), z, rest, hparams.beta)
    else:
        log_likelihood, ratio = log_weights(model, params, x, c, z, q, mask)
    bound = jax.vmap(importance_weighted_bound)(log_likelihood + hparams.beta * ratio)
    return Terms(-bound, -jnp.mean(log_likelihood, axis=1), rate(model, params, q, z[:, 0], c, mask))


def _log_weights(model: CVAE, z: Float[Array, "b k z"], rest: tuple[Any, ...]) -> LogWeights:
    params, x, c, q, mask = rest
    return log_weights(model, params, x, c, z, q, mask)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _doubly_reparameterized(
    weigh: Callable[[Array, PyTree], LogWeights],
    z: Float[Array, "b k z"],
    rest: PyTree,
    beta: Float[Array, ""],
) -> LogWeights:
    """`weigh(z, rest)`, the derivative in each zⱼ multiplied by 1 − β + β w̃ⱼ, w̃ the normalized weights.

    The gradient of the bound is Σⱼ w̃ⱼ ∇ log wⱼ. The part of the encoder's parameters φ that does not go through z
    is −β w̃ⱼ ∇ log q(zⱼ). By reparameterization its expectation is that of −β ∂w̃ⱼ/∂zⱼ ∂zⱼ/∂φ, and ∂w̃ⱼ/∂zⱼ =
    w̃ⱼ (1 − w̃ⱼ) ∂log wⱼ/∂zⱼ. Both parts together weigh ∂log wⱼ/∂zⱼ by w̃ⱼ (1 − β (1 − w̃ⱼ)); the bound itself
    has the first w̃ⱼ.

    Args:
      weigh: from z and the rest to the two parts of log w; q in the rest is a constant.
      z: draws from q, shape (b, k, z).
      rest: what else log w depends on.
      beta: β, scalar.

    Returns:
      log p(x|z,c), and log p(z|c) − log q(z|x,c), shape (b, k) each.
    """
    return weigh(z, rest)


@_doubly_reparameterized.defjvp
def _doubly_reparameterized_jvp(
    weigh: Callable[[Array, PyTree], LogWeights], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[LogWeights, LogWeights]:
    z, rest, beta = primals
    of_z, of_rest, _ = tangents
    # One evaluation: the factors need its result, and only its linear part follows.
    parts, linear = jax.linearize(weigh, z, rest)
    normalized = jax.nn.softmax(parts.log_likelihood + beta * parts.log_ratio, axis=1)
    factors = jax.lax.stop_gradient(1.0 - beta + beta * normalized)
    return parts, linear(factors[..., None] * of_z, of_rest)
