"""One member's training: state, initialization, one step."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from cvae_jax.conditions.kinds import blank
from cvae_jax.config import Config
from cvae_jax.hparams import Hparams
from cvae_jax.likelihoods.families import fitted_logvar
from cvae_jax.model import CVAE
from cvae_jax.nn.dropout import Dropout
from cvae_jax.nn.embedding import MaskedCondition
from cvae_jax.objectives.registry import annealed, extra_variables, part_names
from cvae_jax.objectives.terms import Objective, Terms
from cvae_jax.rng import Stream, stream
from cvae_jax.training import rewording

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

DIVERGED_TERMS = ("distortion", "rate", "gradient")
# A fitted variance is the plain average of the first steps', then one that forgets over a hundred.
_LEAST_WEIGHT = 0.01


class Batch(NamedTuple):
    """A batch of examples.

    Attributes:
      x: shape (b, H, W, C), float32.
      c: conditions, as the model's `condition` says: labels of shape (b,), int32.
      reworded: conditions that say the same in other words, where the data have them.
    """

    x: Float[Array, "b H W C"]
    c: PyTree
    reworded: PyTree = None


@struct.dataclass
class Best:
    """The parameters of the lowest validation loss so far.

    Attributes:
      params: the model's variables.
      loss: of the training objective at its final settings on the validation split, nats per example; inf before the
        first.
      epoch: epochs trained when they were taken.
    """

    params: PyTree
    loss: Float[Array, ""]
    epoch: Int[Array, ""]


@struct.dataclass
class TrainState:
    """All that one member's training changes.

    Attributes:
      params: the model's variables, and those that the objective adds.
      opt_state: of each of the `optimizers`.
      average: the exponential moving average of `params` that evaluation uses, None where no member keeps one.
      best: the best parameters so far, by validation.
      diverged_step: the step whose loss or gradient was not finite, −1 if none; from there on `params` are frozen.
      diverged_term: which it was, an index into `DIVERGED_TERMS`.
      stopped_epoch: epochs trained when the member ran out of patience, −1 before; from there on `params` are frozen.
      sums: loss, distortion, rate and the objective's other parts summed over the steps of this epoch.
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


def optimizers(hparams: Hparams) -> dict[str, optax.GradientTransformation]:
    """AdamW for the model and Adam for a discriminator, by collection of variables, every number traced.

    Collections without an optimizer stay as they are.
    """
    return {
        "params": optax.chain(
            optax.scale_by_adam(eps=hparams.adam_epsilon),  # pyright: ignore[reportArgumentType]
            optax.add_decayed_weights(hparams.weight_decay),  # pyright: ignore[reportArgumentType]
            optax.scale_by_learning_rate(hparams.learning_rate),
        ),
        # Kim & Mnih, 2018, appendix A
        "discriminator": optax.chain(
            optax.scale_by_adam(b1=0.5, b2=0.9),
            optax.scale_by_learning_rate(hparams.discriminator_learning_rate),
        ),
    }


def scheduled(config: Config, hparams: Hparams, epoch: Int[Array, ""]) -> Hparams:
    """The settings of an epoch: its learning rate, and its weight of rewording.

    The rate is constant; with `cosine` it is multiplied by ½ (1 + cos(π t/T)) in epoch t = 0, …, T − 1; with `iwae` by
    10^(−i/7) in stage i = 0, …, 7, which lasts 3ⁱ epochs; the last goes on.

    With `cosine` the weight of rewording is multiplied by ½ (1 − cos(π t/T)), nothing in the first epoch: what a
    condition says is learned first, and then held fast against its wording. In the last fifth of the epochs it is the
    weight of draws that tip, too: earlier, all conditions would come to share the weights of a mixture's parts.

    Args:
      config: `learning_rate_schedule` and `epochs` (T) are read.
      hparams: one member's settings.
      epoch: epochs trained so far, scalar int32.

    Returns:
      The settings of that epoch.

    References:
      Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5, without restarts.
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.
    """
    if config.learning_rate_schedule == "constant":
        return hparams
    if config.learning_rate_schedule == "cosine":
        share = jnp.minimum(epoch.astype(jnp.float32) / config.epochs, 1.0)
        falling = 0.5 * (1.0 + jnp.cos(jnp.pi * share))
        hparams = dataclasses.replace(hparams, learning_rate=hparams.learning_rate * falling)
        if hparams.rewording_weight is None:
            return hparams
        weight = hparams.rewording_weight * (1.0 - falling)
        ends = 5 * (epoch + 1) > 4 * config.epochs
        return dataclasses.replace(
            hparams, rewording_weight=weight, tipping_weight=jnp.where(ends, weight, 0.0)
        )
    # Stage i starts after 1 + 3 + … + 3^(i−1) epochs.
    starts = jnp.array([(3**i - 1) // 2 for i in range(1, 8)])
    stage = jnp.sum(epoch >= starts, dtype=jnp.float32)
    return dataclasses.replace(hparams, learning_rate=hparams.learning_rate * 10.0 ** (-stage / 7.0))


def init(model: CVAE, hparams: Hparams) -> TrainState:
    """The state before the first step: the same for a seed whatever the latent capacity."""
    x = jnp.zeros((1, *model.shape))
    c = jax.tree.map(jnp.asarray, blank(model.kind, 1))
    params = model.init(stream(hparams.key, Stream.INIT), x, c, hparams.latent_mask, hparams.key)
    params = {**params, **extra_variables(model, hparams)}
    zero = jnp.zeros(())
    return TrainState(
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers(hparams).items() if name in params},
        average=None if hparams.ema_decay is None else params,
        best=Best(params=params, loss=jnp.float32(jnp.inf), epoch=jnp.int32(0)),
        diverged_step=jnp.int32(-1),
        diverged_term=jnp.int32(0),
        stopped_epoch=jnp.int32(-1),
        sums=Terms(zero, zero, zero, dict.fromkeys(part_names(model.config), zero) or None),
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
    change again. Nor do those of a member that has stopped. Where the condition comes first, the step goes down the
    distortion at z = 0 until the member's `condition_first_steps` are over, and Adam starts anew then.

    With a `rewording_weight` the loss has a term that ties the priors of two wordings of a condition, and the decoder
    is told the other wording than encoder and prior: see `rewording.tied`.

    Args:
      model: the model.
      state: the member's state.
      batch: x of shape (b, H, W, C), and the conditions, in two wordings where the member weighs their difference.
      hparams: the member's settings.
      step: number of updates made so far.
      objective: the loss.

    Returns:
      The new state; `sums` grows by the batch means of the objective's terms, in nats per example.
    """
    keys = example_keys(hparams.key, step, len(batch.x))
    at_step = annealed(model.config, hparams, step)
    fits = model.likelihood.fit is not None
    if fits:
        model = model.clone(fits_batch=True)
    if hparams.dropout is not None:
        key = jax.random.fold_in(stream(hparams.key, Stream.DROPOUT), step)
        model = model.clone(dropout=Dropout(key, hparams.dropout))
    tells_z = None
    if hparams.condition_first_steps is not None:
        tells_z = step.astype(jnp.float32) >= hparams.condition_first_steps
        model = model.clone(tells_z=tells_z)
        begins = tells_z & (step.astype(jnp.float32) < hparams.condition_first_steps + 1.0)
        state = _start_adam_anew(state, begins)
    if hparams.condition_dropout is not None:
        key = jax.random.fold_in(stream(hparams.key, Stream.CONDITION), step)
        batch = _drop_conditions(batch, key, hparams.condition_dropout)

    def loss_and_terms(params: PyTree) -> tuple[Array, Terms]:
        c, tie = batch.c, jnp.zeros(())
        if hparams.rewording_weight is not None:
            c, tie = rewording.tied(model, params, c, batch.reworded, hparams)
        terms = jax.tree.map(jnp.mean, objective(model, params, batch.x, c, keys, at_step))
        terms = terms._replace(loss=terms.loss + tie)
        return terms.loss if tells_z is None else jnp.where(tells_z, terms.loss, terms.distortion), terms

    (_, terms), gradient = jax.value_and_grad(loss_and_terms, has_aux=True)(state.params)
    failures = ~jnp.isfinite(jnp.stack([terms.distortion, terms.rate, optax.tree.norm(gradient)]))
    ran = (state.diverged_step < 0) & (state.stopped_epoch < 0)
    fails_now = ran & jnp.any(failures)
    runs = ran & ~fails_now

    params, opt_state = _update(state, gradient, hparams, runs)
    if fits:
        logvar = params["fitted"]["logvar"]
        averaged = _averaged(logvar, fitted_logvar(terms.distortion, math.prod(model.shape)), step)
        params["fitted"] = {"logvar": jnp.where(runs, averaged, logvar)}
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


def _start_adam_anew(state: TrainState, begins: Bool[Array, ""]) -> TrainState:
    """The state without its moments where z comes in.

    To moments of a time without a gradient of z, its first gradients would be many times their usual size.
    """
    opt_state = jax.tree.map(lambda a: jnp.where(begins, jnp.zeros_like(a), a), state.opt_state)
    return dataclasses.replace(state, opt_state=opt_state)


def _drop_conditions(batch: Batch, key: Key[Array, ""], probability: Float[Array, ""]) -> Batch:
    """The batch with some conditions dropped, the same ones in both wordings."""
    mask = jax.random.bernoulli(key, 1.0 - probability, batch.x.shape[:1]).astype(jnp.float32)
    reworded = None if batch.reworded is None else MaskedCondition(batch.reworded, mask)
    return batch._replace(c=MaskedCondition(batch.c, mask), reworded=reworded)


def _update(
    state: TrainState, gradient: PyTree, hparams: Hparams, runs: Bool[Array, ""]
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """Variables and optimizer states after one step down the gradient; a member that no longer runs keeps its bits.

    Freezing by a gradient and a learning rate of zero leaves the parameters' bits alone. Selecting between old and
    new parameters would, too, but keeps XLA from updating them in place. Adam's moments go on decaying: nothing
    reads them again.
    """
    # Clipping comes first, so that it shares the norm of the gradient with the check for divergence.
    clip = optax.clip_by_global_norm(hparams.clip_norm)  # pyright: ignore[reportArgumentType]
    clipped, _ = clip.update(gradient["params"], clip.init(state.params["params"]))
    gradient = jax.tree.map(lambda g: jnp.where(runs, g, 0.0), {**gradient, "params": clipped})
    hparams = dataclasses.replace(
        hparams,
        learning_rate=jnp.where(runs, hparams.learning_rate, 0.0),
        discriminator_learning_rate=jnp.where(runs, hparams.discriminator_learning_rate, 0.0),
    )
    params, opt_state = dict(state.params), dict(state.opt_state)
    for name in opt_state:
        # optax raises a float to its int32 step count, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state[name] = optimizers(hparams)[name].update(
                gradient[name], opt_state[name], params[name]
            )
        params[name] = optax.apply_updates(params[name], updates)
    return params, opt_state


def _averaged(logvar: Float[Array, ""], of_batch: Float[Array, ""], step: Int[Array, ""]) -> Float[Array, ""]:
    """The logarithm of a running average of the batches' variances, after one more."""
    weight = jnp.maximum(1.0 / (step.astype(jnp.float32) + 1.0), _LEAST_WEIGHT)
    return jnp.logaddexp(jnp.log1p(-weight) + logvar, jnp.log(weight) + of_batch)
