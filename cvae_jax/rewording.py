"""What two wordings of one condition should not change: what the prior makes of it, and what the decoder draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp

from cvae_jax.cvae import CVAE, decode, embed
from cvae_jax.draws import sample_prior
from cvae_jax.embeddings import Embeddings
from cvae_jax.likelihoods import GaussianOutput

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree


# One in so many examples of a batch is told in two wordings: reading a text costs as much as drawing it.
_ONE_IN = 8


def embedded_twice(
    model: CVAE, params: PyTree, c: PyTree, reworded: PyTree
) -> tuple[Embeddings, Embeddings, Embeddings]:
    """What the parts of the model are told of a batch of conditions, and of every eighth, the first, in two wordings.

    Args:
      model: the model.
      params: its variables.
      c: a batch of conditions, or a `Given`.
      reworded: what says the same in other words, likewise.

    Returns:
      What takes the place of c; and what takes that of ⌈b/8⌉ of c, and of as many of `reworded`.
    """
    batch_size = len(jax.tree.leaves(c)[0])
    some = -(-batch_size // _ONE_IN)

    def rows(told: PyTree, start: int, end: int) -> PyTree:
        return jax.tree.map(lambda a: a[start:end], told)

    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b[:some]]), c, reworded)
    both = embed(model, params, joined)
    return rows(both, 0, batch_size), rows(both, 0, some), rows(both, batch_size, batch_size + some)


def divergence(
    model: CVAE,
    params: PyTree,
    c: PyTree,
    other: PyTree,
    key: Key[Array, ""],
    latent_mask: Bool[Array, " z"],
) -> Float[Array, " b"]:
    """How far apart what two wordings come to is: the priors, and the pictures of one z.

    ½ [KL(p(z|c) ‖ p(z|c′)) + KL(p(z|c′) ‖ p(z|c))] + KL(p(x|z,c) ‖ p(x|z,c′)),  z ~ p(z|c)

    The priors are compared part by part, see `mixture_priors.matched_divergence`, so that at 0 the same noise is the
    same z. The picture of c is what that of c′ is to be: it and z are constants to the gradient, and so is a variance
    of the pixels.

    Args:
      model: with a prior that has a `divergence`, and pixels of an exponential family.
      params: its variables.
      c: conditions, or embedded ones.
      other: c′, which say the same in other words.
      key: of z.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Shape (b,), nats.

    References:
      Xie et al., Unsupervised Data Augmentation for Consistency Training, 2020, equation 1, of a classifier that is to
      answer alike however a text is worded.
    """
    of_priors = cast(
        "Float[Array, ' b']", model.apply(params, c, other, latent_mask, method="divergence_of_priors")
    )
    z = sample_prior(model, params, jax.random.split(key, len(of_priors)), c, latent_mask)
    family = model.likelihood
    drawn = decode(model, params, z, c, latent_mask)
    z, drawn = jax.lax.stop_gradient((z, drawn))
    drawn_of_other = decode(model, params, z, other, latent_mask)
    if isinstance(drawn_of_other, GaussianOutput):
        drawn_of_other = drawn_of_other._replace(logvar=drawn.logvar)
    # Log-densities of an exponential family are linear in x: what they are at the mean is their mean.
    x = jax.vmap(family.mean)(drawn)
    of_pictures = jax.vmap(family.log_prob)(drawn, x) - jax.vmap(family.log_prob)(drawn_of_other, x)
    return of_priors + of_pictures
