"""Many trainings as one program: members stacked, `vmap` over them, one `jit`. A solo run is a sweep of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct

from cvae_jax.config import Config, Member, require_compatible
from cvae_jax.data.dataset import Dataset
from cvae_jax.errors import SettingError
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.hparams import Hparams, hparams, options_used
from cvae_jax.model import CVAE
from cvae_jax.objectives import registry
from cvae_jax.objectives.terms import Objective, Terms
from cvae_jax.options import LARGEST_INT
from cvae_jax.training import step as training
from cvae_jax.training.loader import TrainingData, draw_batch, epoch_order
from cvae_jax.training.step import Batch, TrainState
from cvae_jax.training.validation import validate

if TYPE_CHECKING:
    from jaxtyping import Array, Int


@struct.dataclass
class Population:
    """The members of a sweep, all after the same number of steps.

    Attributes:
      step: number of updates made, scalar int32.
      members: every array with a leading member axis.
    """

    step: Int[Array, ""]
    members: TrainState


def build_model(config: Config, dataset: Dataset, members: Sequence[Member]) -> CVAE:
    """The model that all members share, with room for the largest latent size.

    Raises:
      SettingError: if the configured objective cannot train one of the members, or the dataset lacks what it needs.
    """
    for member in members:
        require_compatible(config, member)
        if member.rewording_weight > 0 and dataset.train.reworded is None:
            raise SettingError(
                f"rewording_weight is {member.rewording_weight}, expected 0 with the dataset {dataset.name}, which has "
                "no second wording of its conditions: captions has, and an .npz by c_reworded"
            )
    per_epoch = len(dataset.train) // config.batch_size
    if config.epochs * per_epoch > LARGEST_INT:
        raise SettingError(
            f"epochs is {config.epochs}, expected at most {LARGEST_INT // per_epoch} of {per_epoch} steps each"
        )
    capacity = max(member.latent_dim for member in members)
    return CVAE(config, dataset.shape, dataset.condition, capacity, levels=dataset.levels)


def stack_hparams(members: Sequence[Member], *, capacity: int, steps_per_epoch: int) -> Hparams:
    """The traced settings of all members, with a leading member axis."""
    settings = partial(
        hparams, capacity=capacity, steps_per_epoch=steps_per_epoch, used=options_used(members)
    )
    each = [settings(member) for member in members]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


@partial(jax.jit, static_argnames="model")
def init(model: CVAE, hparams: Hparams) -> Population:
    """The population before the first step."""
    return Population(jnp.int32(0), jax.vmap(partial(training.init, model))(hparams))


def as_alone(state: TrainState, member: Member) -> TrainState:
    """One member's state as its solo run has it: with room for its own latents only, and no average it does not use.

    Args:
      state: of a member of a sweep.
      member: its settings.

    Returns:
      The state, every array with an axis of latents cut to the member's first `latent_dim`.
    """
    if not member.ema_decay:
        state = dataclasses.replace(state, average=None)
    latent_dim = member.latent_dim

    def cut(path: tuple[Any, ...], leaf: Array) -> Array:
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        if "to_latents" in names:
            return leaf[..., :latent_dim]
        if "FromLatents_0" in names and names[-1] == "kernel":
            return leaf[:latent_dim]
        return leaf

    return jax.tree_util.tree_map_with_path(cut, state)


def train_steps(
    model: CVAE,
    state: TrainState,
    hparams: Hparams,
    data: TrainingData,
    step: Int[Array, ""],
    num_steps: Int[Array, ""] | int,
    objective: Objective | None = None,
    order: Int[Array, " n"] | None = None,
) -> TrainState:
    """Train one member for some steps of one epoch.

    Order and binarization depend on `data` and the step alone: under `jax.vmap` over members each batch is made
    once and shared.

    Args:
      model: the model.
      state: the member's state.
      hparams: its settings.
      data: the training split.
      step: number of updates made before, scalar int32.
      num_steps: how many to make, not past the end of the epoch; traced, so that one program serves any.
      objective: the loss; the one that the configuration names if not given.
      order: the epoch's `epoch_order`, drawn here if not given.

    Returns:
      The state after these steps.
    """
    config = model.config
    n = len(data.examples)
    objective = objective or registry.objective(config, n)
    per_epoch = n // config.batch_size
    epoch, start = step // per_epoch, step % per_epoch
    order = epoch_order(data, epoch) if order is None else order
    hparams = training.scheduled(config, hparams, epoch)

    def batch_of(i: Int[Array, ""] | int) -> Batch:
        rows = jax.lax.dynamic_slice(order, ((start + i) * config.batch_size,), (config.batch_size,))
        return draw_batch(model, data, rows, step + i)

    def one_step(i: Int[Array, ""], carried: tuple[TrainState, Batch]) -> tuple[TrainState, Batch]:
        state, batch = carried
        # Beside the step before, on processors that it leaves idle; the last one is not used.
        following = batch_of(i + 1)
        return training.train_step(model, state, batch, hparams, step + i, objective), following

    state, _ = jax.lax.fori_loop(0, num_steps, one_step, (state, batch_of(0)))
    return state


def make_train(
    model: CVAE, *, num_steps: int, objective: Objective | None = None
) -> Callable[[Hparams, TrainingData], TrainState]:
    """A whole training as one pure function of settings and data: jit, vmap and shard it as you like.

    Args:
      model: a `CVAE`, or any flax module with its methods `encode`, `decode` and `__call__` and the attributes
        `config`, `shape`, `likelihood` and `kind`; without `embed` and `prior` its prior is N(0, I).
      num_steps: number of updates.
      objective: the loss, with the signature of `negative_beta_elbo`; the one that the configuration names if not
        given.

    Returns:
      A function from one member's `Hparams` and the training data to its state after the last step.

    Example:
      >>> import numpy as np
      >>> from cvae_jax.dataset import Split
      >>> from cvae_jax.feed import training_data
      >>> config = Config(batch_size=4)
      >>> split = Split(np.zeros((8, 4, 4, 1), np.uint8), np.arange(8, dtype=np.int32) % 2)
      >>> dataset = Dataset("zeros", split, split, split, 255.0, ("a", "b"))
      >>> members = [Member(beta=beta, latent_dim=2) for beta in (0.5, 1.0, 2.0)]
      >>> model = build_model(config, dataset, members)
      >>> settings = stack_hparams(members, capacity=2, steps_per_epoch=2)
      >>> train = jax.jit(jax.vmap(make_train(model, num_steps=3), in_axes=(0, None)))
      >>> train(settings, training_data(config, dataset)).diverged_step.shape
      (3,)
    """

    def train(hparams: Hparams, data: TrainingData) -> TrainState:
        per_epoch = len(data.examples) // model.config.batch_size
        epochs, rest = divmod(num_steps, per_epoch)

        def steps(state: TrainState, first: Int[Array, ""], count: int) -> TrainState:
            return train_steps(model, state, hparams, data, first, count, objective)

        state = training.init(model, hparams)
        # Each of the two is a step to compile, needed or not.
        if epochs:
            state = jax.lax.fori_loop(
                0, epochs, lambda epoch, state: steps(state, epoch * per_epoch, per_epoch), state
            )
        return steps(state, jnp.int32(epochs * per_epoch), rest) if rest else state

    return train


@partial(jax.jit, static_argnames="model", donate_argnames="population")
def run_steps(
    model: CVAE,
    population: Population,
    hparams: Hparams,
    data: TrainingData,
    num_steps: Int[Array, ""],
    order: Int[Array, " n"] | None = None,
) -> Population:
    """`train_steps` of every member.

    Args:
      model: the model.
      population: donated.
      hparams: stacked settings.
      data: the training split.
      num_steps: scalar int32.
      order: the epoch's `epoch_order`: who makes its steps in many calls draws it once.

    Returns:
      The population after these steps.
    """
    members = jax.vmap(
        lambda state, hparams: train_steps(
            model, state, hparams, data, population.step, num_steps, order=order
        )
    )(population.members, hparams)
    return Population(population.step + num_steps, members)


@partial(jax.jit, static_argnames=("model", "num_examples"), donate_argnames="population")
def end_epoch(
    model: CVAE,
    population: Population,
    hparams: Hparams,
    validation: Examples,
    steps_in_epoch: Int[Array, ""],
    num_examples: int,
) -> tuple[Population, Terms, Terms]:
    """Validate every member, keep its best parameters, and close the epoch's sums.

    Parameters are compared by the training objective at its final settings, see `validate`: a warm-up never makes an
    early epoch look good. A member whose patience ends stops here.

    Args:
      model: the model.
      population: donated.
      hparams: stacked settings.
      validation: the validation split.
      steps_in_epoch: number of steps the sums hold, scalar int32.
      num_examples: of the training split.

    Returns:
      The population, the epoch's mean training terms and the validation terms; terms have shape (m,), nats per
      example.
    """
    epoch = population.step // steps_in_epoch

    def one_member(state: TrainState, hparams: Hparams) -> tuple[TrainState, Terms, Terms]:
        terms = validate(model, state.evaluated, validation, hparams, num_examples=num_examples)
        better = terms.loss < state.best.loss
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            training.Best(state.evaluated, terms.loss, epoch),
            state.best,
        )
        settled = hparams.warmup_steps
        if hparams.condition_first_steps is not None:
            settled = settled + hparams.condition_first_steps
        settled = settled / steps_in_epoch.astype(jnp.float32)
        waited = epoch.astype(jnp.float32) - jnp.maximum(best.epoch.astype(jnp.float32), settled)
        stops = (waited >= hparams.patience) & (state.stopped_epoch < 0) & (state.diverged_step < 0)
        stopped_epoch = jnp.where(stops, epoch, state.stopped_epoch)
        means = jax.tree.map(lambda total: total / steps_in_epoch.astype(jnp.float32), state.sums)
        zeros = jax.tree.map(jnp.zeros_like, state.sums)
        state = dataclasses.replace(state, best=best, stopped_epoch=stopped_epoch, sums=zeros)
        return state, means, terms

    members, train_terms, validation_terms = jax.vmap(one_member)(population.members, hparams)
    return Population(population.step, members), train_terms, validation_terms
