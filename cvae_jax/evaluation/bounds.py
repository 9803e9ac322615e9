"""Bounds on the likelihood over a whole split: every example counts once, also where the last batch is not full."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data.examples import Examples
from cvae_jax.draws import draw, log_likelihood, log_weights
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.model import Model
from cvae_jax.rng import evaluation_key

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree

_BATCH = 250
_NLL_BATCH = 100


class ElboTerms(NamedTuple):
    """The two terms of the ELBO per example: ELBO = −(distortion + rate).

    Attributes:
      distortion: −log p(x|z,c) for one z ~ q(z|x,c), shape (n,), nats.
      rate: KL(q(z|x,c) ‖ p(z|c)), shape (n,), nats.
    """

    distortion: Float[Array, " n"]
    rate: Float[Array, " n"]


def elbo_terms(model: Model, params: PyTree, examples: Examples, key: Key[Array, ""]) -> ElboTerms:
    """Distortion and rate of every example.

    The noise of example i comes from `fold_in(key, i)`, so that the result does not depend on the batches.

    Args:
      model: the model.
      params: its parameters.
      examples: the split, n examples.
      key: see `rng.evaluation_key`.

    Returns:
      Distortion and rate, shape (n,), nats per example.
    """

    def one_batch(rows: Int[Array, " b"]) -> ElboTerms:
        x, c = examples.take(rows)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        drawn = draw(model, params, x, c, keys)
        return ElboTerms(-drawn.log_likelihood, drawn.rate)

    return in_batches(one_batch, jnp.arange(len(examples)), _BATCH)


@partial(jax.jit, static_argnames="model")
def members_elbo_terms(model: Model, params: PyTree, examples: Examples) -> ElboTerms:
    """`elbo_terms` of m members, whose parameters are stacked, with the same noise for all; shapes (m, n)."""
    return jax.vmap(lambda member: elbo_terms(model, member, examples, evaluation_key()))(params)


@partial(jax.jit, static_argnames=("model", "num_samples", "chunk", "proposal"))
def importance_nll(
    model: Model,
    params: PyTree,
    examples: Examples,
    key: Key[Array, ""],
    *,
    num_samples: int,
    chunk: int = 50,
    proposal: Literal["posterior", "prior"] = "posterior",
) -> Float[Array, " n"]:
    """Negative log-likelihood of every example, estimated by importance sampling.

    −log p(x|c) ≈ −log (1/K) Σⱼ p(x|zⱼ,c) p(zⱼ|c) / q(zⱼ|x,c),  zⱼ ~ q(z|x,c)

    With draws from the prior, p(zⱼ|c) takes the place of q(zⱼ|x,c): plain Monte Carlo.

    In expectation this is an upper bound on the true value, and it falls towards it as K grows. Draw j of example i
    comes from `fold_in(fold_in(key, i), j)`, so that the result depends neither on batches nor on the chunk, up to
    float rounding.

    Args:
      model: the model.
      params: its parameters.
      examples: the split, n examples.
      key: of the draws.
      num_samples: K, ≥ 1.
      chunk: draws at a time; memory grows with it, not with K.
      proposal: the distribution that z is drawn from.

    Returns:
      Shape (n,), nats per example.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.
    """
    chunk = min(chunk, num_samples)
    draws = jnp.arange(-(-num_samples // chunk) * chunk).reshape(-1, chunk)

    def one_batch(rows: Int[Array, " b"]) -> Float[Array, " b"]:
        x, c = examples.take(rows)
        c = model.embed(params, c)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)

        def log_likelihood_of_prior_draw(keys: Key[Array, " b"]) -> Float[Array, " b"]:
            return log_likelihood(model, params, x, model.generate(params, c, keys), c)

        def add_chunk(total: Float[Array, " b"], draws: Int[Array, " k"]) -> tuple[Float[Array, " b"], None]:
            each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, draws)
            if proposal == "prior":
                weights = jax.vmap(log_likelihood_of_prior_draw, in_axes=1, out_axes=1)(each)
            else:
                parts = log_weights(model, params, x, c, each)
                weights = parts.log_likelihood + parts.log_ratio
            weights = jnp.where(draws < num_samples, weights, -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=1)), None

        total, _ = jax.lax.scan(add_chunk, jnp.full(rows.shape, -jnp.inf), draws)
        return math.log(num_samples) - total

    return in_batches(one_batch, jnp.arange(len(examples)), _NLL_BATCH)


def summarize(terms: ElboTerms, *, dims: int | None = None) -> list[dict[str, float]]:
    """Means over the split in float64, one dictionary per member.

    Args:
      terms: distortion and rate, shape (m, n).
      dims: numbers per example, to add `bits_per_dim` for a likelihood of integer pixel values.

    Returns:
      For each member `elbo`, `rate` and `distortion`, nats per example; `elbo` is the unweighted bound, and
      `bits_per_dim` its negative in bits per number.

    Example:
      >>> summarize(ElboTerms(np.array([[80.0, 90.0]]), np.array([[20.0, 30.0]])))
      [{'elbo': -110.0, 'rate': 25.0, 'distortion': 85.0}]
    """
    rates = np.asarray(terms.rate, np.float64).mean(axis=1)
    distortions = np.asarray(terms.distortion, np.float64).mean(axis=1)
    return [
        {"elbo": float(-(r + d)), "rate": float(r), "distortion": float(d)}
        | ({} if dims is None else {"bits_per_dim": bits_per_dim(float(r + d), dims)})
        for r, d in zip(rates, distortions, strict=True)
    ]


def bits_per_dim(nats: float, dims: int) -> float:
    """Convert the code length of one example from nats to bits per number (such as a pixel).

    Example:
      >>> round(bits_per_dim(28 * 28 * math.log(256), 28 * 28), 6)
      8.0
    """
    return nats / (dims * math.log(2.0))
