"""What two wordings of one condition should not change: what the prior makes of it, and what the decoder draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp

from cvae_jax.hparams import Hparams
from cvae_jax.model import CVAE, embed
from cvae_jax.nn.embedding import Embeddings
from cvae_jax.priors.gaussian import Apart

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PyTree


# One in so many examples of a batch is told in two wordings: reading a text costs as much as drawing it.
_ONE_IN = 4


def tied(
    model: CVAE, params: PyTree, c: PyTree, reworded: PyTree, hparams: Hparams
) -> tuple[Embeddings, Float[Array, ""]]:
    """What the parts of the model are told of conditions, some in two wordings, and how far apart their priors are.

    λ ½ [KL(p(z|c) ‖ p(z|c′)) + KL(p(z|c′) ‖ p(z|c))] + μ ½ Σₖ |wₖ − wₖ′|,  λ the `rewording_weight` of the step, μ its
    `tipping_weight`, and w the weights of a mixture's parts.

    Of every fourth example, those first in the batch, encoder and prior are told c, the decoder c′: what z means of a
    picture may not depend on the wording. The priors are compared part by part, see
    `mixture_priors.matched_divergence`, so that at 0 the same noise is the same z. That is of second order in small
    differences, and pulls ever less, while every difference of the weights tips draws from one part to another, which
    is another picture: the second term, of first order, is of these.

    Args:
      model: with a prior that can tell how far `apart` two are.
      params: its variables.
      c: a batch of conditions, or a `MaskedCondition`.
      reworded: c′, which say the same in other words, likewise.
      hparams: with a `rewording_weight`; at 0 nothing is told in other words.

    Returns:
      What takes the place of c, and the mean of the terms, scalar, nats.

    References:
      Xie et al., Unsupervised Data Augmentation for Consistency Training, 2020, equation 1, of a classifier that is to
      answer alike however a text is worded.
    """
    batch_size = len(jax.tree.leaves(c)[0])
    some = -(-batch_size // _ONE_IN)

    def joined(a: PyTree, b: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), a, b)

    def rows(told: PyTree, start: int, end: int) -> PyTree:
        return jax.tree.map(lambda a: a[start:end], told)

    both = embed(model, params, joined(c, rows(reworded, 0, some)))
    told, other = rows(both, 0, batch_size), rows(both, batch_size, batch_size + some)
    as_told = rows(told, 0, some)
    weight, tipping = (cast("Array", w) for w in (hparams.rewording_weight, hparams.tipping_weight))
    # A member without it is to equal its solo run, which has no part for it: no other wording, and no 0 times infinity.
    other = jax.tree.map(lambda a, b: jnp.where(weight > 0, a, b), other, as_told)
    apart = model.apply(params, as_told, other, hparams.latent_mask, method="priors_apart")
    divergence, tipped = jax.tree.map(jnp.mean, cast("Apart", apart))
    decoder = joined(other.decoder, rows(told.decoder, some, batch_size))
    return told._replace(decoder=decoder), weight * divergence + tipping * tipped
