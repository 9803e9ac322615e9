"""One member's training: state, initialization, one step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from cvae_jax.config import Hparams
from cvae_jax.cvae import CVAE
from cvae_jax.dropout import Dropout
from cvae_jax.objectives import Objective, Terms, annealed
from cvae_jax.randomness import Stream, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

DIVERGED_TERMS = ("distortion", "rate", "gradient")


class Batch(NamedTuple):
    """A batch of examples.

    Attributes:
      x: shape (b, H, W, C), float32.
      c: labels, shape (b,), int32.
    """

    x: Float[Array, "b H W C"]
    c: Int[Array, " b"]


@struct.dataclass
class Best:
    """The parameters of the lowest validation loss so far.

    Attributes:
      params: the model's variables.
      loss: `selection_loss` on the validation split, nats per example; inf before the first.
      epoch: epochs trained when they were taken.
    """

    params: PyTree
    loss: Float[Array, ""]
    epoch: Int[Array, ""]


@struct.dataclass
class TrainState:
    """All that one member's training changes.

    Attributes:
      params: the model's variables.
      opt_state: the optimizer's.
      average: the exponential moving average of `params` that evaluation uses, None where no member keeps one.
      best: the best parameters so far, by validation.
      diverged_step: the step whose loss or gradient was not finite, −1 if none; from there on `params` are frozen.
      diverged_term: which it was, an index into `DIVERGED_TERMS`.
      stopped_epoch: epochs trained when the member ran out of patience, −1 before; from there on `params` are frozen.
      sums: loss, distortion and rate summed over the steps of this epoch.
    """

    params: PyTree
    opt_state: PyTree
    average: PyTree | None
    best: Best
    diverged_step: Int[Array, ""]
    diverged_term: Int[Array, ""]
    stopped_epoch: Int[Array, ""]
    sums: Terms

    @property
    def evaluated(self) -> PyTree:
        """The parameters that validation and the best so far are of: the average where there is one."""
        return self.params if self.average is None else self.average


def optimizer(hparams: Hparams) -> optax.GradientTransformation:
    """AdamW, every number of it traced."""
    return optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(hparams.weight_decay),  # pyright: ignore[reportArgumentType]
        optax.scale_by_learning_rate(hparams.learning_rate),
    )


def init(model: CVAE, hparams: Hparams) -> TrainState:
    """The state before the first step: the same for a seed whatever the latent capacity."""
    x = jnp.zeros((1, *model.shape))
    c = jnp.zeros(1, jnp.int32)
    params = model.init(stream(hparams.key, Stream.INIT), x, c, hparams.latent_mask, hparams.key)
    zero = jnp.zeros(())
    return TrainState(
        params=params,
        opt_state=optimizer(hparams).init(params),
        average=None if hparams.ema_decay is None else params,
        best=Best(params=params, loss=jnp.float32(jnp.inf), epoch=jnp.int32(0)),
        diverged_step=jnp.int32(-1),
        diverged_term=jnp.int32(0),
        stopped_epoch=jnp.int32(-1),
        sums=Terms(zero, zero, zero),
    )


def example_keys(key: Key[Array, ""], step: Int[Array, ""], batch_size: int) -> Key[Array, " b"]:
    """One key per example of one step, from the member's root key."""
    return jax.random.split(jax.random.fold_in(stream(key, Stream.NOISE), step), batch_size)


def move_average(
    average: PyTree,
    params: PyTree,
    decay: Float[Array, ""],
    num_updates: Int[Array, ""],
    runs: Bool[Array, ""],
) -> PyTree:
    """The bias-corrected exponential moving average θ̄ of the parameters θ, after one more update.

    θ̄_t = (1−d) Σ_{s≤t} d^{t−s} θ_s / (1−dᵗ) = (1−w) θ̄_{t−1} + w θ_t,  w = (1−d)/(1−dᵗ)

    The initial parameters have no share in it: θ̄₁ = θ₁. At d = 0 it is θ, bit for bit.

    Args:
      average: θ̄ before.
      params: θ after the update.
      decay: d, 0 ≤ d < 1.
      num_updates: t, counting this update, ≥ 1.
      runs: whether the member still trains; if not, the average stays as it is, bit for bit.

    Returns:
      θ̄.

    References:
      Kingma & Ba, Adam, 2015, section 7.2.
    """
    # 1 − dᵗ through expm1: a decay close to 1 leaves float32 few digits of it otherwise.
    weight = (1.0 - decay) / -jnp.expm1(num_updates.astype(jnp.float32) * jnp.log1p(decay - 1.0))
    weight = jnp.where(runs, jnp.minimum(weight, 1.0), 0.0)
    return jax.tree.map(lambda a, p: (1.0 - weight) * a + weight * p, average, params)


def train_step(
    model: CVAE,
    state: TrainState,
    batch: Batch,
    hparams: Hparams,
    step: Int[Array, ""],
    objective: Objective,
) -> TrainState:
    """One update of one member.

    A loss or gradient that is not finite freezes the member: the step is recorded, and its parameters never
    change again. Nor do those of a member that has stopped.

    Args:
      model: the model.
      state: the member's state.
      batch: x of shape (b, H, W, C), c of shape (b,).
      hparams: the member's settings.
      step: number of updates made so far.
      objective: the loss.

    Returns:
      The new state; `sums` grows by the batch means of loss, distortion and rate, in nats per example.
    """
    keys = example_keys(hparams.key, step, batch.c.shape[0])
    at_step = annealed(model.config, hparams, step)
    if hparams.dropout is not None:
        key = jax.random.fold_in(stream(hparams.key, Stream.DROPOUT), step)
        model = model.clone(dropout=Dropout(key, hparams.dropout))

    def loss_and_terms(params: PyTree) -> tuple[Array, Terms]:
        per_example = objective(model, params, batch.x, batch.c, keys, at_step)
        terms = jax.tree.map(jnp.mean, per_example)
        return terms.loss, terms

    (_, terms), gradient = jax.value_and_grad(loss_and_terms, has_aux=True)(state.params)
    failures = ~jnp.isfinite(jnp.stack([terms.distortion, terms.rate, optax.tree.norm(gradient)]))
    ran = (state.diverged_step < 0) & (state.stopped_epoch < 0)
    fails_now = ran & jnp.any(failures)
    runs = ran & ~fails_now

    # Freezing by a gradient and a learning rate of zero leaves the parameters' bits alone. Selecting between
    # old and new parameters would, too, but keeps XLA from updating them in place. Adam's moments go on decaying:
    # nothing reads them again.
    # Clipping comes before, so that it shares the norm of the gradient with the check above.
    clip = optax.clip_by_global_norm(hparams.clip_norm)  # pyright: ignore[reportArgumentType]
    gradient, _ = clip.update(gradient, clip.init(state.params))
    gradient = jax.tree.map(lambda g: jnp.where(runs, g, 0.0), gradient)
    hparams = dataclasses.replace(hparams, learning_rate=jnp.where(runs, hparams.learning_rate, 0.0))
    # optax raises a float to its int32 step count, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer(hparams).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if hparams.ema_decay is not None:
        average = move_average(average, params, hparams.ema_decay, step + 1, runs)
    return dataclasses.replace(
        state,
        params=params,
        opt_state=opt_state,
        average=average,
        diverged_step=jnp.where(fails_now, step, state.diverged_step),
        diverged_term=jnp.where(fails_now, jnp.argmax(failures), state.diverged_term).astype(jnp.int32),
        sums=jax.tree.map(lambda total, term: total + jnp.where(runs, term, 0.0), state.sums, terms),
    )
