"""The training objective on the validation split. It is used to choose the best parameters."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.data.examples import Examples
from cvae_jax.draws import draw
from cvae_jax.model import Model
from cvae_jax.objectives.base import Batch, Terms
from cvae_jax.options import with_values
from cvae_jax.rng import Stream, evaluation_key, root_key, stream
from cvae_jax.training.hparams import Hparams
from cvae_jax.training.loader import batch_size

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree


def validate(
    model: Model, params: PyTree, examples: Examples, hparams: Hparams, *, num_examples: int
) -> Terms:
    """Means over a split: the training loss at its final settings (no warm-up), the distortion and the rate.

    Nothing is annealed, so that a warm-up does not make the loss of an early epoch lower. An objective that compares
    the examples of a batch meets batches of the training size, or the whole of a smaller split. The batches are
    the same each time, in a random order; the last one is filled up with examples of the first, which do not count
    again. Noise is fixed, that of example i comes from `fold_in(evaluation_key(), i)`.

    Args:
      model: the model.
      params: its variables, and those that the objective adds.
      examples: the split.
      hparams: one member's settings, not annealed.
      num_examples: of the training split.

    Returns:
      Scalars, nats per example: the loss; distortion and rate of one draw of z, as of `evaluation.elbo_terms`; and the
      objective's parts.
    """
    config, n = hparams.config, len(examples)
    # Two at least, because an objective may compare them.
    size = min(batch_size(config, num_examples), max(n, 2))
    num_batches = -(-n // size)
    order_key, batch_key = jax.random.split(stream(root_key(0), Stream.VALIDATION))
    order = jax.random.permutation(order_key, n)
    rows = order[jnp.arange(num_batches * size) % n].reshape(num_batches, size)

    def one_batch(batch: tuple[Int[Array, " b"], Key[Array, ""]]) -> Terms:
        rows, key = batch
        x, c = examples.take(rows)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(evaluation_key(), rows)
        terms = config.objective.loss(model, params, Batch(x, c, keys, key, num_examples=num_examples))
        if config.objective.one_draw:
            return terms
        _, log_likelihood, rate = draw(model, params, x, c, keys)
        return terms._replace(distortion=-log_likelihood, rate=rate)

    terms = jax.lax.map(one_batch, (rows, jax.random.split(batch_key, num_batches)))
    return jax.tree.map(lambda each: jnp.mean(each.reshape(-1)[:n]), terms)


@partial(jax.jit, static_argnames="model")
def members_bounds(model: Model, params: PyTree, examples: Examples, hparams: Hparams) -> Float[Array, " m"]:
    """The bound log (1/k) Σⱼ wⱼ with the configured number of draws k, for stacked members with the same noise.

    At β = 1 for every member, so that members of different β can be compared.

    Args:
      model: of an importance-weighted objective.
      params: variables of the members, stacked.
      examples: the split.
      hparams: settings of the members, stacked.

    Returns:
      Means over the split, nats per example, up is better.
    """
    objective = hparams.config.objective
    objective = with_values(objective, beta=jnp.ones_like(objective.beta))  # pyright: ignore[reportAttributeAccessIssue]
    at_one = dataclasses.replace(hparams, config=with_values(hparams.config, objective=objective))
    loss_of = partial(validate, model, num_examples=len(examples))
    return -jax.vmap(lambda params, hparams: loss_of(params, examples, hparams).loss)(params, at_one)
