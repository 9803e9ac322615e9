"""Draws of z for data: the parts of the ELBO, and importance weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax

from cvae_jax.model import Inference, Model

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key, PyTree


class Draw(NamedTuple):
    """One draw z ~ q(z|x,c) of each example of a batch: the parts of the ELBO.

    Attributes:
      inference: the draw, its KL and its densities.
      log_likelihood: log p(x|z,c), shape (b,), nats.
      rate: KL(q(z|x,c) ‖ p(z|c)), shape (b,), nats; estimated from the draw where it has no closed form.
    """

    inference: Inference
    log_likelihood: Float[Array, " b"]
    rate: Float[Array, " b"]


def draw(
    model: Model, params: PyTree, x: Float[Array, " b *dims"], c: PyTree, keys: Key[Array, " b"]
) -> Draw:
    """Encode, draw one z per example, decode, and compare with x.

    Args:
      model: the model.
      params: its parameters.
      x: data, shape (b, *dims), float32.
      c: conditions, with a leading axis b.
      keys: one key per example, shape (b,).

    Returns:
      The draw, log p(x|z,c) and the rate per example, nats.
    """
    embedded = model.embed(params, c)
    inference = model.infer(params, x, embedded, keys)
    return Draw(inference, log_likelihood(model, params, x, inference.z, embedded), inference.rate)


def log_likelihood(
    model: Model, params: PyTree, x: Float[Array, " b *dims"], z: PyTree, c: PyTree
) -> Float[Array, " b"]:
    """log p(x|z,c) of one z per example, shape (b,), nats."""
    return model.log_prob(model.decode(params, z, c), x)


class LogWeights(NamedTuple):
    """The two parts of log w = log p(x|z,c) + log p(z|c) − log q(z|x,c), of k draws of z per example.

    Attributes:
      log_likelihood: log p(x|z,c), shape (b, k), nats.
      log_ratio: log p(z|c) − log q(z|x,c), shape (b, k), nats.
      rate: KL(q(z|x,c) ‖ p(z|c)), shape (b,), nats; from the first draw where it has no closed form.
    """

    log_likelihood: Float[Array, "b k"]
    log_ratio: Float[Array, "b k"]
    rate: Float[Array, " b"]


def log_weights(
    model: Model, params: PyTree, x: Float[Array, " b *dims"], c: PyTree, keys: Key[Array, "b k"]
) -> LogWeights:
    """Log importance weights of k posterior draws per example, for bounds that are tighter than the ELBO.

    Args:
      model: the model.
      params: its parameters.
      x: data, shape (b, *dims).
      c: conditions, with a leading axis b.
      keys: one per draw, shape (b, k).

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8.
    """
    embedded = model.embed(params, c)

    def one(keys: Key[Array, " b"]) -> tuple[Array, Array, Array]:
        inference = model.infer(params, x, embedded, keys)
        likelihood = log_likelihood(model, params, x, inference.z, embedded)
        return likelihood, inference.log_p - inference.log_q, inference.rate

    likelihood, ratio, rate = jax.vmap(one, in_axes=1, out_axes=1)(keys)
    return LogWeights(likelihood, ratio, rate[:, 0])
