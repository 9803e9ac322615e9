"""One member's training: state, initialization, one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax
from flax import struct

from cvae_jax.model import Model, require_flat_latents
from cvae_jax.objectives.base import Batch, Terms
from cvae_jax.rng import Stream, stream
from cvae_jax.training.config import Config, at, name_of
from cvae_jax.training.hooks import Hook, key_of
from cvae_jax.training.hparams import Hparams
from cvae_jax.training.schedules import Time

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PyTree

DIVERGED_TERMS = ("distortion", "rate", "gradient")


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
    """Everything that changes during the training of one member.

    Attributes:
      params: the model's variables, and those that the objective adds.
      opt_state: of each of the `optimizers`.
      hooks: what each hook keeps, in the order of the hooks.
      best: the best parameters so far, by validation.
      diverged_step: the step whose loss or gradient was not finite, −1 if none; from there on `params` are frozen.
      diverged_term: which it was, an index into `DIVERGED_TERMS`.
      stopped_epoch: epochs trained when the member ran out of patience, −1 before; from there on `params` are frozen.
      sums: loss, distortion, rate and the objective's other parts summed over the steps of this epoch.
    """

    params: PyTree
    opt_state: PyTree
    hooks: tuple[PyTree, ...]
    best: Best
    diverged_step: Int[Array, ""]
    diverged_term: Int[Array, ""]
    stopped_epoch: Int[Array, ""]
    sums: Terms


def evaluated(config: Config, state: TrainState) -> PyTree:
    """The parameters to validate and to keep as the best: a hook may replace them, for example by their average."""
    params = state.params
    for hook, kept in zip(config.all_hooks, state.hooks, strict=True):
        params = hook.evaluated(params, kept)
    return params


def optimizers(config: Config) -> dict[str, optax.GradientTransformation]:
    """The optimizer of each collection of variables that is trained. Other collections do not change."""
    return {"params": config.optimizer.transformation(), **config.objective.optimizers()}


def require_trainable(config: Config, model: Model) -> None:
    """Refuse a model without the latents that the objective needs.

    Raises:
      SettingError: naming the objective.
    """
    if config.objective.needs_flat_latents:
        require_flat_latents(model, f"the objective {name_of(config, 'objective')}")


def init(model: Model, hparams: Hparams) -> TrainState:
    """The state before the first step. For a given seed it does not depend on the latent capacity.

    Raises:
      SettingError: as `require_trainable`.
    """
    config, mask = hparams.config, hparams.latent_mask
    require_trainable(config, model)
    params = model.init(stream(hparams.key, Stream.INIT), mask)
    params = {**params, **config.objective.init(model, hparams.key, mask)}
    zero = jnp.zeros(())
    return TrainState(
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers(config).items()},
        hooks=tuple(hook.init(params) for hook in config.all_hooks),
        best=Best(params=params, loss=jnp.float32(jnp.inf), epoch=jnp.int32(0)),
        diverged_step=jnp.int32(-1),
        diverged_term=jnp.int32(0),
        stopped_epoch=jnp.int32(-1),
        sums=Terms(zero, zero, zero, dict.fromkeys(config.objective.part_names, zero) or None),
    )


def train_step(model: Model, state: TrainState, batch: Batch, hparams: Hparams, time: Time) -> TrainState:
    """One update of one member.

    A loss or gradient that is not finite freezes the member: the step is recorded, and its parameters never
    change again. Nor do those of a member that has stopped.

    Args:
      model: the model.
      state: the member's state.
      batch: the examples.
      hparams: the member's settings.
      time: of the step.

    Returns:
      The new state; `sums` grows by the batch means of the objective's terms, in nats per example.
    """
    config = at(hparams.config, time)
    changed = model
    for hook in config.all_hooks:
        changed, batch = hook.prepare(changed, batch, key_of(hook, hparams.key, time.step), time)
    fixed = {name: value for name, value in state.params.items() if name not in state.opt_state}

    def loss_and_terms(trained: PyTree) -> tuple[Array, Terms]:
        terms = _loss(config, changed, trained | fixed, batch, time)
        return terms.loss, terms

    trained = {name: state.params[name] for name in state.opt_state}
    (_, terms), gradient = jax.value_and_grad(loss_and_terms, has_aux=True)(trained)
    failures = ~jnp.isfinite(jnp.stack([terms.distortion, terms.rate, optax.tree.norm(gradient)]))
    ran = (state.diverged_step < 0) & (state.stopped_epoch < 0)
    fails_now = ran & jnp.any(failures)
    runs = ran & ~fails_now

    params, opt_state = _update(config, state, gradient, runs, time)
    kept = list(state.hooks)
    for i, hook in enumerate(config.all_hooks):
        params, kept[i] = hook.after(model, params, kept[i], terms, time, runs)
    return dataclasses.replace(
        state,
        params=params,
        opt_state=opt_state,
        hooks=tuple(kept),
        diverged_step=jnp.where(fails_now, time.step, state.diverged_step),
        diverged_term=jnp.where(fails_now, jnp.argmax(failures), state.diverged_term).astype(jnp.int32),
        sums=jax.tree.map(lambda total, term: total + jnp.where(runs, term, 0.0), state.sums, terms),
    )


def _loss(config: Config, model: Model, params: PyTree, batch: Batch, time: Time) -> Terms:
    """Batch means of the objective's terms, as the hooks change them."""

    def objective(params: PyTree, batch: Batch) -> Terms:
        return jax.tree.map(jnp.mean, config.objective.loss(model, params, batch))

    def changed_by(hook: Hook, inner: Callable[[PyTree, Batch], Terms]) -> Callable[[PyTree, Batch], Terms]:
        return lambda params, batch: hook.loss(inner, model, params, batch, time)

    loss = objective
    for hook in reversed(config.all_hooks):
        loss = changed_by(hook, loss)
    return loss(params, batch)


def _update(
    config: Config, state: TrainState, gradient: PyTree, runs: Bool[Array, ""], time: Time
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """Variables and optimizer states after one step down the gradient; a member that no longer runs keeps its bits.

    Freezing by a gradient and an update of zero leaves the parameters' bits alone. Selecting between old and
    new parameters would, too, but keeps XLA from updating them in place. Adam's moments go on decaying: nothing
    reads them again.
    """
    # Clipping comes first, so that it shares the norm of the gradient with the check for divergence.
    clip = optax.clip_by_global_norm(config.optimizer.clip_norm)  # pyright: ignore[reportArgumentType]
    clipped, _ = clip.update(gradient["params"], clip.init(state.params["params"]))
    gradient = jax.tree.map(lambda g: jnp.where(runs, g, 0.0), {**gradient, "params": clipped})
    params, opt_state = dict(state.params), dict(state.opt_state)
    for hook in config.all_hooks:
        if (restarts := hook.restarts(time)) is not None:
            opt_state = jax.tree.map(lambda a, r=restarts: jnp.where(r, jnp.zeros_like(a), a), opt_state)
    for name, optimizer in optimizers(config).items():
        # optax raises a float to its int32 step count, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state[name] = optimizer.update(gradient[name], opt_state[name], params[name])
        updates = jax.tree.map(lambda u: jnp.where(runs, u, 0.0), updates)
        params[name] = optax.apply_updates(params[name], updates)
    return params, opt_state
