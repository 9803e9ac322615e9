"""Images from a trained model: generate, reconstruct, traverse, interpolate. All are means of p(x|z,c)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.conditions.label import Label
from cvae_jax.errors import SettingError
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.nn.embedding import MaskedCondition

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree

_BATCH = 250


@partial(jax.jit, static_argnames="model")
def decode_mean(model: Model, params: PyTree, z: PyTree, c: PyTree) -> Float[Array, " b *dims"]:
    """The mean of p(x|z,c), shape (b, *dims), in units of x."""
    return model.mean(model.decode(params, z, c))


@partial(jax.jit, static_argnames="model")
def generate(
    model: Model,
    params: PyTree,
    key: Key[Array, ""],
    c: PyTree,
    guidance: float | None = None,
    temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, " n *dims"]:
    """Sample z from the prior p(z|c) and return the mean of p(x|z,c), in batches.

    Args:
      model: the model.
      params: its parameters.
      key: example i draws from `fold_in(key, i)`.
      c: conditions, with a leading axis n; for a model without a condition, only that axis is used.
      guidance: g, which extrapolates from the output without a condition to the output with c:
        o(z) + g (o(z, c) − o(z)), of the likelihood's parameters, for a model trained with `condition_dropout`. None is
        the output with c itself.
      temperature: factor of the noise that z is made from, ≥ 0: 1 samples the prior; lower values give samples closer
        to its mean, for a mixture closer to the means of its most probable components.

    Returns:
      x, shape (n, *dims), in units of x.

    References:
      Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, equation 6, applied to the output of a decoder.
      Kingma & Dhariwal, Glow: Generative Flow with Invertible 1×1 Convolutions, 2018, on the temperature.
    """

    def one_batch(rows: Int[Array, " b"]) -> Float[Array, " b *dims"]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        some = jax.tree.map(lambda a: a[rows], c)
        z = model.generate(params, some, keys, temperature)
        if guidance is None:
            return decode_mean(model, params, z, some)
        conditional, unconditional = (
            model.decode(params, z, MaskedCondition(some, jnp.full(rows.shape, used))) for used in (1.0, 0.0)
        )
        return model.mean(jax.tree.map(lambda a, b: b + guidance * (a - b), conditional, unconditional))

    return in_batches(one_batch, jnp.arange(jax.tree.leaves(c)[0].shape[0]), _BATCH)


@partial(jax.jit, static_argnames="model")
def reconstruct(
    model: Model, params: PyTree, x: Float[Array, " b *dims"], c: PyTree, keys: Key[Array, " b"] | None = None
) -> Float[Array, " b *dims"]:
    """Encode a batch and return the mean of p(x|z,c). z is the mean of q(z|x,c), if the model has one array of latents.

    With several levels of latents the posterior has no mean in closed form: there z is a draw from it.

    Args:
      model: the model.
      params: its parameters.
      x: data, shape (b, *dims).
      c: conditions, with a leading axis b.
      keys: of the draws, one per example, shape (b,); only with several levels of latents.

    Returns:
      x, shape (b, *dims), in units of x.

    Raises:
      SettingError: if the model has several levels of latents and there are no keys.
    """
    c = model.embed(params, c)
    if model.flat_latents:
        q = require_flat_latents(model, "the mean of the posterior").encode(params, x, c)
        return decode_mean(model, params, q.mean, c)
    if keys is None:
        raise SettingError("keys is None, expected one per example: this model draws z to reconstruct x")
    return decode_mean(model, params, model.infer(params, x, c, keys).z, c)


@partial(jax.jit, static_argnames="model")
def traverse(
    model: Model,
    params: PyTree,
    noise: Float[Array, " z"],
    c: PyTree,
    *,
    latents: Int[Array, " l"],
    values: Float[Array, " v"],
) -> Float[Array, "l v *dims"]:
    """Change one latent at a time: set it to each of several values, in units of the prior p(z|c). The others stay.

    Under N(0, I) the values are those of the latents themselves; under another prior they are those of the noise that
    it maps to z.

    Args:
      model: a model with one array of latents.
      params: its parameters.
      noise: the starting point, shape (z,); 0 is the middle of the prior.
      c: one condition, without a leading axis.
      latents: which to change, shape (l,).
      values: in standard deviations of the prior, shape (v,).

    Returns:
      x, shape (l, v, *dims).

    Raises:
      SettingError: for a model with several levels of latents.
    """
    flat_model = require_flat_latents(model, "traversals")
    grid = jax.vmap(lambda i: jax.vmap(lambda value: noise.at[i].set(value))(values))(latents)
    count = grid.shape[0] * grid.shape[1]
    repeated = jax.tree.map(lambda a: jnp.broadcast_to(a, (count, *jnp.shape(a))), c)
    z = flat_model.from_noise(params, grid.reshape(count, -1), repeated)
    images = decode_mean(model, params, z, repeated)
    return images.reshape(*grid.shape[:2], *images.shape[1:])


def interpolate(
    model: Model,
    params: PyTree,
    z_from: Float[Array, " z"],
    z_to: Float[Array, " z"],
    c: Int[Array, ""],
    *,
    steps: int,
) -> Float[Array, " s *dims"]:
    """Decode z on the straight line between two latents, both ends included.

    Args:
      model: a model with one array of latents.
      params: its parameters.
      z_from, z_to: the ends, shape (z,).
      c: the label of all images.
      steps: number of images, ≥ 2.

    Returns:
      x, shape (steps, *dims), in units of x.

    Raises:
      SettingError: for a model with several levels of latents.
    """
    require_flat_latents(model, "interpolation")
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    z = (1.0 - t) * z_from + t * z_to
    return decode_mean(model, params, z, jnp.full(steps, c))


def interpolate_labels(
    model: Model,
    params: PyTree,
    z: Float[Array, " z"],
    c_from: Int[Array, ""],
    c_to: Int[Array, ""],
    *,
    steps: int,
) -> Float[Array, " s *dims"]:
    """Decode one z with embeddings on the straight line between those of two labels, both ends included.

    Args:
      model: a model with one array of latents, conditioned on a label.
      params: its parameters.
      z: the latents of all images, shape (z,).
      c_from, c_to: the labels at the ends.
      steps: number of images, ≥ 2.

    Returns:
      x, shape (steps, *dims), in units of x.

    Raises:
      SettingError: if the condition is not a label, or the model has several levels of latents.
    """
    ends = jax.nn.one_hot(jnp.stack([c_from, c_to]), _label_of(model).num_classes)
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    c = (1.0 - t) * ends[0] + t * ends[1]
    return decode_mean(model, params, jnp.tile(z, (steps, 1)), c)


def across_labels(
    model: Model, params: PyTree, z: Float[Array, "s z"], c: Int[Array, " k"]
) -> Float[Array, "s k *dims"]:
    """Decode every z under every label.

    Args:
      model: a model with one array of latents, conditioned on a label.
      params: its parameters.
      z: latents, shape (s, z).
      c: labels, shape (k,).

    Returns:
      x, shape (s, k, *dims), in units of x.

    Raises:
      SettingError: if the condition is not a label, or the model has several levels of latents.
    """
    _label_of(model)
    images = decode_mean(model, params, jnp.repeat(z, len(c), axis=0), jnp.tile(c, len(z)))
    return images.reshape(len(z), len(c), *images.shape[1:])


def _label_of(model: Model) -> Label:
    """The condition of a model whose classes can be compared at the same z."""
    require_flat_latents(model, "comparison of classes")
    if not isinstance(model.condition, Label):
        name = "none" if model.condition is None else model.condition.name
        raise SettingError(f"condition is {name}, expected label to compare classes")
    return model.condition
