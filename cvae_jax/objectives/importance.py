"""The objectives of importance-weighted autoencoders: bounds from several draws of z per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from cvae_jax.draws import log_likelihood, log_weights
from cvae_jax.losses import importance_weighted_bound, reparameterize
from cvae_jax.model import FlatModel, Model, require_flat_latents
from cvae_jax.nn.latent import log_density
from cvae_jax.objectives.base import FIXED_VARIANCE, Batch, Terms
from cvae_jax.objectives.elbo import Elbo
from cvae_jax.options import COUNT, static

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key, PyTree

Parts = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Iwae(Elbo):
    """The loss of an importance-weighted autoencoder, from several draws of z per example.

    loss = −log (1/k) Σⱼ wⱼ,  log wⱼ = log p(x|zⱼ,c) + β (log p(zⱼ|c) − log q(zⱼ|x,c)),  zⱼ ~ q(z|x,c)

    With one draw and β = 1 it is the ELBO with a sampled KL.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equations 8 and 14.
    """

    num_samples: int = static(1, bounds=COUNT, help="k, the number of draws of z per example.")
    one_draw = False
    needs = (FIXED_VARIANCE,)

    @property
    def draws(self) -> int:
        """k."""
        return self.num_samples

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss; distortion, the mean over the draws; and rate, of the first draw; per example, nats."""
        likelihood, ratio, rate = log_weights(model, params, batch.x, batch.c, self._keys(batch))
        return self._terms(likelihood, ratio, rate)

    def _keys(self, batch: Batch) -> Key[Array, "b k"]:
        return jax.vmap(lambda key: jax.random.split(key, self.num_samples))(batch.keys)

    def _terms(self, likelihood: Array, ratio: Array, rate: Array) -> Terms:
        bound = jax.vmap(importance_weighted_bound)(likelihood + self.beta * ratio)
        return Terms(-bound, -jnp.mean(likelihood, axis=1), rate)


@dataclasses.dataclass(frozen=True)
class Dreg(Iwae):
    """The loss of iwae with the doubly-reparameterized gradient of the encoder.

    The value is the same, and so is the gradient of the decoder and of a learned prior; the encoder's reaches it
    through z alone, see `_doubly_reparameterized`. Its expectation is the same for every β, its variance lower.

    References:
      Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019, equation 8, there for
      β = 1.
    """

    needs_flat_latents = True

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss; distortion, the mean over the draws; and rate, of the first draw; per example, nats."""
        c = model.embed(params, batch.c)
        keys = self._keys(batch)
        first = model.infer(params, batch.x, c, keys[:, 0])
        assert first.q is not None
        mean, logvar = first.q
        z = jax.vmap(lambda keys, m, v: jax.vmap(reparameterize, (0, None, None))(keys, m, v))(
            keys, mean, logvar
        )
        rest = (params, batch.x, c, jax.lax.stop_gradient(first.q))
        weigh = partial(_log_weights, require_flat_latents(model, "the doubly-reparameterized gradient"))
        likelihood, ratio = _doubly_reparameterized(weigh, z, rest, self.beta)
        return self._terms(likelihood, ratio, first.rate)


def _log_weights(model: FlatModel, z: Float[Array, "b k z"], rest: tuple[Any, ...]) -> Parts:
    """log p(x|z,c) and log p(z|c) − log q(z|x,c) of k draws per example, with q as it is in the rest."""
    params, x, c, q = rest
    mask = model.latent_mask(params)

    def one(z: Float[Array, "b z"]) -> Parts:
        log_q = log_density(z, q.mean, q.logvar, mask)
        return log_likelihood(model, params, x, z, c), model.log_prior(params, z, c) - log_q

    return jax.vmap(one, in_axes=1, out_axes=1)(z)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _doubly_reparameterized(
    weigh: Callable[[Array, PyTree], Parts],
    z: Float[Array, "b k z"],
    rest: PyTree,
    beta: Float[Array, ""],
) -> Parts:
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
    weigh: Callable[[Array, PyTree], Parts], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Parts, Parts]:
    z, rest, beta = primals
    of_z, of_rest, _ = tangents
    # One evaluation: the factors need its result, and only its linear part follows.
    parts, linear = jax.linearize(weigh, z, rest)
    normalized = jax.nn.softmax(parts[0] + beta * parts[1], axis=1)
    factors = jax.lax.stop_gradient(1.0 - beta + beta * normalized)
    return parts, linear(factors[..., None] * of_z, of_rest)
