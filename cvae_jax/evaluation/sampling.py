"""Draw from a trained model: generate, reconstruct, traverse, interpolate. All images are means of p(x|z,c)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.conditions.kinds import Label
from cvae_jax.draws import from_noise, sample_prior
from cvae_jax.errors import SettingError
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.model import CVAE, decode, encode
from cvae_jax.nn.embedding import MaskedCondition

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

_BATCH = 250


@partial(jax.jit, static_argnames="model")
def decode_mean(
    model: CVAE,
    params: PyTree,
    z: Float[Array, "b z"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
) -> Float[Array, "b H W C"]:
    """The mean of p(x|z,c), shape (b, H, W, C), in units of x."""
    return jax.vmap(model.likelihood.mean)(decode(model, params, z, c, latent_mask))


@partial(jax.jit, static_argnames="model")
def generate(
    model: CVAE,
    params: PyTree,
    key: Key[Array, ""],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
    guidance: float | None = None,
    temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, "b H W C"]:
    """Sample z from the prior p(z|c) and return the mean of p(x|z,c), many images in batches.

    Args:
      model: the model.
      params: its variables.
      key: example i draws from `fold_in(key, i)`, latent by latent.
      c: conditions, with a leading axis b.
      latent_mask: the latents in use, shape (z,).
      guidance: g, how far the output goes from that of no condition towards that of c and beyond:
        o(z) + g (o(z, c) − o(z)), of logits or means, for a model trained with `condition_dropout`; None is c itself.
      temperature: times the noise that z is made of, ≥ 0; see `draws.sample_prior`.

    Returns:
      Images, shape (b, H, W, C), in units of x.

    References:
      Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, equation 6, here of a decoder's output.
      Kingma & Dhariwal, Glow: Generative Flow with Invertible 1×1 Convolutions, 2018, of the temperature.
    """

    def one_batch(rows: Int[Array, " b"]) -> Float[Array, "b H W C"]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        some = jax.tree.map(lambda a: a[rows], c)
        z = sample_prior(model, params, keys, some, latent_mask, temperature)
        if guidance is None:
            return decode_mean(model, params, z, some, latent_mask)
        told, untold = (
            decode(model, params, z, MaskedCondition(some, jnp.full(z.shape[0], mask)), latent_mask)
            for mask in (1.0, 0.0)
        )
        output = jax.tree.map(lambda a, b: b + guidance * (a - b), told, untold)
        return jax.vmap(model.likelihood.mean)(output)

    return in_batches(one_batch, jnp.arange(jax.tree.leaves(c)[0].shape[0]), _BATCH)


@partial(jax.jit, static_argnames="model")
def reconstruct(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
) -> Float[Array, "b H W C"]:
    """Encode to the posterior mean and return the mean of p(x|z,c), shape (b, H, W, C)."""
    q = encode(model, params, x, c, latent_mask)
    return decode_mean(model, params, q.mean, c, latent_mask)


@partial(jax.jit, static_argnames="model")
def traverse(
    model: CVAE,
    params: PyTree,
    noise: Float[Array, " z"],
    c: PyTree,
    latent_mask: Bool[Array, " z"],
    *,
    latents: Int[Array, " l"],
    values: Float[Array, " v"],
) -> Float[Array, "l v H W C"]:
    """Set one latent after another to each of some values, the others held, in units of the prior p(z|c).

    Under N(0, I) these are the latents themselves; under another prior the noise that it makes them of.

    Args:
      model: the model.
      params: its variables.
      noise: where to start, 0 in the middle of the prior, shape (z,).
      c: one condition, without a leading axis.
      latent_mask: the latents in use, shape (z,).
      latents: which to move, shape (l,).
      values: where to, in standard deviations of the prior, shape (v,).

    Returns:
      Images, shape (l, v, H, W, C).
    """
    grid = jax.vmap(lambda i: jax.vmap(lambda value: noise.at[i].set(value))(values))(latents)
    count = grid.shape[0] * grid.shape[1]
    repeated = jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *jnp.shape(a))), c)
    z = from_noise(model, params, grid.reshape(count, -1), repeated, latent_mask)
    images = decode_mean(model, params, z, repeated, latent_mask)
    return images.reshape(*grid.shape[:2], *images.shape[1:])


def interpolate(
    model: CVAE,
    params: PyTree,
    z_from: Float[Array, " z"],
    z_to: Float[Array, " z"],
    c: Int[Array, ""],
    latent_mask: Bool[Array, " z"],
    *,
    steps: int,
) -> Float[Array, "s H W C"]:
    """Walk in a straight line between two latents, both ends included; shape (steps, H, W, C)."""
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    z = (1.0 - t) * z_from + t * z_to
    return decode_mean(model, params, z, jnp.full(steps, c), latent_mask)


def interpolate_labels(
    model: CVAE,
    params: PyTree,
    z: Float[Array, " z"],
    c_from: Int[Array, ""],
    c_to: Int[Array, ""],
    latent_mask: Bool[Array, " z"],
    *,
    steps: int,
) -> Float[Array, "s H W C"]:
    """Walk in a straight line between the embeddings of two labels, z held; both ends included.

    Args:
      model: the model.
      params: its variables.
      z: the style, shape (z,).
      c_from: the label to start from.
      c_to: the label to end at.
      latent_mask: the latents in use, shape (z,).
      steps: images, ≥ 2.

    Returns:
      Images, shape (steps, H, W, C), in units of x.

    Raises:
      SettingError: if the model has no condition.
    """
    ends = jax.nn.one_hot(jnp.stack([c_from, c_to]), _labels_of(model).num_classes)
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    c = (1.0 - t) * ends[0] + t * ends[1]
    return decode_mean(model, params, jnp.tile(z, (steps, 1)), c, latent_mask)


def across_labels(
    model: CVAE,
    params: PyTree,
    z: Float[Array, "s z"],
    c: Int[Array, " k"],
    latent_mask: Bool[Array, " z"],
) -> Float[Array, "s k H W C"]:
    """Decode every z under every label: a style per row, a class per column.

    Args:
      model: the model.
      params: its variables.
      z: styles, shape (s, z).
      c: labels, shape (k,).
      latent_mask: the latents in use, shape (z,).

    Returns:
      Images, shape (s, k, H, W, C), in units of x.

    Raises:
      SettingError: if the model has no condition.
    """
    _labels_of(model)
    styles, labels = z.shape[0], c.shape[0]
    images = decode_mean(model, params, jnp.repeat(z, labels, axis=0), jnp.tile(c, styles), latent_mask)
    return images.reshape(styles, labels, *images.shape[1:])


def _labels_of(model: CVAE) -> Label:
    if not isinstance(model.kind, Label):
        raise SettingError(f"condition is {model.config.condition!r}, expected label to compare classes")
    return model.kind
