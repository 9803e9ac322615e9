"""Metrics over a whole split: every example once, the last batch padded and its padding dropped."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from cvae_jax.data.dataset import Split
from cvae_jax.draws import draw, log_likelihood_of_each, log_weights, sample_prior
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.losses import reparameterize
from cvae_jax.model import CVAE, embed, encode
from cvae_jax.nn.latent import Gaussian
from cvae_jax.rng import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, Num, PyTree

_BATCH = 250
_NLL_BATCH = 100


@struct.dataclass
class Examples:
    """A split on the device.

    Attributes:
      x: pixels from 0 to x_max, shape (n, H, W, C).
      c: conditions, with a leading axis n.
      x_max: the value of x that stands for 1, scalar float32.
    """

    x: Num[Array, "n H W C"]
    c: PyTree
    x_max: Float[Array, ""]

    def __len__(self) -> int:
        """Number of examples."""
        return self.x.shape[0]

    def take(self, rows: Int[Array, " b"]) -> tuple[Float[Array, "b H W C"], PyTree]:
        """The examples of the given rows, pixels as float32 between 0 and 1."""
        c = jax.tree.map(lambda a: a[rows], self.c)
        return self.x[rows].astype(jnp.float32) / self.x_max, c


def on_device(split: Split, x_max: float) -> Examples:
    """Put a split on the device, pixels in the type they are stored in."""
    return Examples(jnp.asarray(split.x), jax.tree.map(jnp.asarray, split.c), jnp.float32(x_max))


class ElboTerms(NamedTuple):
    """The two terms of the bound, per example; ELBO = −(distortion + rate).

    Attributes:
      distortion: −log p(x|z,c) for one z ~ q(z|x,c), shape (n,), nats.
      rate: KL(q(z|x,c) ‖ p(z|c)), shape (n,), nats.
    """

    distortion: Float[Array, " n"]
    rate: Float[Array, " n"]


def evaluation_key() -> Key[Array, ""]:
    """The one key that all evaluations draw from, so that two models meet the same noise."""
    return stream(root_key(0), Stream.EVALUATION)


def elbo_terms(
    model: CVAE, params: PyTree, examples: Examples, latent_mask: Bool[Array, " z"], key: Key[Array, ""]
) -> ElboTerms:
    """Distortion and rate of every example.

    The noise of example i comes from `fold_in(key, i)`: the answer does not depend on batches or padding.

    Args:
      model: the model.
      params: its variables.
      examples: the split, n examples.
      latent_mask: the latents in use, shape (z,).
      key: see `evaluation_key`.

    Returns:
      Distortion and rate, shape (n,), nats per example.
    """

    def one_batch(rows: Int[Array, " b"]) -> ElboTerms:
        x, c = examples.take(rows)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        _, _, log_likelihood, rate = draw(model, params, x, c, keys, latent_mask)
        return ElboTerms(-log_likelihood, rate)

    return in_batches(one_batch, jnp.arange(len(examples)), _BATCH)


@partial(jax.jit, static_argnames="model")
def members_elbo_terms(
    model: CVAE, params: PyTree, examples: Examples, latent_masks: Bool[Array, "m z"]
) -> ElboTerms:
    """`elbo_terms` of stacked members, under the same noise; shapes (m, n)."""
    evaluate = partial(elbo_terms, model, examples=examples, key=evaluation_key())
    return jax.vmap(lambda params, mask: evaluate(params, latent_mask=mask))(params, latent_masks)


@partial(jax.jit, static_argnames="model")
def posteriors(model: CVAE, params: PyTree, examples: Examples, latent_mask: Bool[Array, " z"]) -> Gaussian:
    """The posterior q(z|x,c) of every example.

    Args:
      model: the model.
      params: its variables.
      examples: the split, n examples.
      latent_mask: the latents in use, shape (z,).

    Returns:
      Mean and logarithm of the variance, shape (n, z) each; latents out of use are N(0, 1).
    """

    def one_batch(rows: Int[Array, " b"]) -> Gaussian:
        return encode(model, params, *examples.take(rows), latent_mask)

    return in_batches(one_batch, jnp.arange(len(examples)), _BATCH)


@partial(jax.jit, static_argnames=("model", "num_samples", "chunk", "proposal"))
def importance_nll(
    model: CVAE,
    params: PyTree,
    examples: Examples,
    latent_mask: Bool[Array, " z"],
    key: Key[Array, ""],
    *,
    num_samples: int,
    chunk: int = 50,
    proposal: Literal["posterior", "prior"] = "posterior",
) -> Float[Array, " n"]:
    """Negative log-likelihood of every example, estimated by importance sampling.

    −log p(x|c) ≈ −log (1/K) Σⱼ p(x|zⱼ,c) p(zⱼ|c) / q(zⱼ|x,c),  zⱼ ~ q(z|x,c)

    With draws from the prior the ratio of prior and proposal is 1: plain Monte Carlo.

    In expectation an upper bound on the true value that falls towards it as K grows. Draw j of example i comes from
    `fold_in(fold_in(key, i), j)`: the answer depends neither on batches nor on the chunk, up to float rounding.

    Args:
      model: the model.
      params: its variables.
      examples: the split, n examples.
      latent_mask: the latents in use, shape (z,).
      key: the noise's.
      num_samples: K, ≥ 1.
      chunk: draws at a time; memory grows with it, not with K.
      proposal: what z is drawn from.

    Returns:
      Shape (n,), nats per example.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.
    """
    chunk = min(chunk, num_samples)
    draws = jnp.arange(-(-num_samples // chunk) * chunk).reshape(-1, chunk)

    def one_batch(rows: Int[Array, " b"]) -> Float[Array, " b"]:
        x, c = examples.take(rows)
        c = embed(model, params, c)
        q = encode(model, params, x, c, latent_mask)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)

        def of_prior(keys: Key[Array, "b k"]) -> Float[Array, "b k"]:
            draw_one = partial(sample_prior, model, params, c=c, latent_mask=latent_mask)
            z = jax.vmap(draw_one, in_axes=1, out_axes=1)(keys)
            return log_likelihood_of_each(model, params, x, z, c, latent_mask)

        def of_posterior(keys: Key[Array, "b k"]) -> Float[Array, "b k"]:
            draw_some = jax.vmap(jax.vmap(reparameterize, (0, None, None)))
            z = draw_some(keys, q.mean, q.logvar)
            weights = log_weights(model, params, x, c, z, q, latent_mask)
            return weights.log_likelihood + weights.log_ratio

        def add_chunk(total: Float[Array, " b"], draws: Int[Array, " k"]) -> tuple[Float[Array, " b"], None]:
            each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, draws)
            weights = of_prior(each) if proposal == "prior" else of_posterior(each)
            weights = jnp.where(draws < num_samples, weights, -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=1)), None

        total, _ = jax.lax.scan(add_chunk, jnp.full(rows.shape, -jnp.inf), draws)
        return math.log(num_samples) - total

    return in_batches(one_batch, jnp.arange(len(examples)), _NLL_BATCH)


def summarize(terms: ElboTerms, *, dims: int | None = None) -> list[dict[str, float]]:
    """Means over the split in float64, one dictionary a member.

    Args:
      terms: distortion and rate, shape (m, n).
      dims: numbers per example, to add `bits_per_dim` where the likelihood is of whole levels.

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
    """A code length of one example, in nats, as bits per number.

    Example:
      >>> round(bits_per_dim(28 * 28 * math.log(256), 28 * 28), 6)
      8.0
    """
    return nats / (dims * math.log(2.0))
