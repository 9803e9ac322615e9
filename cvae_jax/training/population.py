"""Many trainings as one program: members are stacked, with one `vmap` and one `jit`. A single run has one member."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct

from cvae_jax.conditions.base import Condition
from cvae_jax.conditions.several import parts_of
from cvae_jax.data.dataset import Dataset, Description
from cvae_jax.data.examples import Examples
from cvae_jax.errors import SettingError
from cvae_jax.model import CVAE, Model
from cvae_jax.objectives.base import Batch, Terms
from cvae_jax.options import LARGEST_INT
from cvae_jax.rng import Stream, stream
from cvae_jax.training import step as training
from cvae_jax.training.config import Config, name_of, require_without_condition
from cvae_jax.training.hparams import Hparams, alike
from cvae_jax.training.loader import TrainingData, batch_size, draw_batch, epoch_order, steps_per_epoch
from cvae_jax.training.schedules import Time
from cvae_jax.training.step import TrainState
from cvae_jax.training.validation import validate

if TYPE_CHECKING:
    from jaxtyping import Array, Int, PyTree


@struct.dataclass
class Population:
    """The members of a sweep, all after the same number of steps.

    Attributes:
      step: number of updates made, scalar int32.
      members: every array with a leading member axis.
    """

    step: Int[Array, ""]
    members: TrainState


def build_model(members: Sequence[Config], dataset: Dataset) -> Any:
    """The model that all members share, with room for the largest latent size.

    Args:
      members: settings that differ in traced options alone.
      dataset: what they train on.

    Raises:
      SettingError: if the dataset lacks what a member needs, or there would be too many steps.
    """
    config = alike(members)[0]
    for hook in config.hooks:
        if hook.needs_alternative and dataset.train.alternative is None:
            raise SettingError(
                f"{type(hook).__name__} needs alternative conditions, expected none with the dataset {dataset.name}: "
                "an .npz has them as c_alternative_train"
            )
    per_epoch = steps_per_epoch(config, dataset)
    if len(dataset.train) < config.objective.smallest_batch:
        raise SettingError(
            f"the training split has {len(dataset.train)} examples, expected at least "
            f"{config.objective.smallest_batch} with the objective {name_of(config, 'objective')}"
        )
    if config.epochs * per_epoch > LARGEST_INT:
        raise SettingError(
            f"epochs is {config.epochs}, expected at most {LARGEST_INT // per_epoch} of {per_epoch} steps each"
        )
    return model_of(members, dataset.description)


def model_of(members: Sequence[Config], data: Description) -> Any:
    """The model that all members share, for data of this description.

    Raises:
      DataError: if the network cannot take x of that shape.
      SettingError: if the data have other conditions than the members, or the objective cannot train the model.
    """
    config = alike(members)[0]
    config.network.require_shape(data.shape)
    model = config.network.adapted(
        CVAE(
            config.network,
            config.likelihood.of_levels(data.levels),
            config.prior,
            _condition_of(config, data),
            shape=data.shape,
            capacity=max(member.latent_dim for member in members),
            film=config.conditioning == "film",
            share_condition=config.share_condition,
            compute_dtype=config.compute_dtype,
        )
    )
    training.require_trainable(config, model)
    return config.objective.adapted(model)


def _condition_of(config: Config, data: Description) -> Condition | None:
    """What c is made of, from the data."""
    # The data of a plain VAE may keep their conditions, for evaluation by class.
    condition = None if config.condition == () else data.condition
    if condition is None:
        require_without_condition(config)
    if config.condition and list(map(type, config.condition)) != list(map(type, parts_of(condition))):
        found = "none" if condition is None else condition.name
        raise SettingError(
            f"condition is {name_of(config, 'condition')!r}, expected {found!r}, which the data were prepared for"
        )
    return condition


@partial(jax.jit, static_argnames="model")
def init(model: Model, hparams: Hparams) -> Population:
    """The members' states before the first step, stacked."""
    return Population(jnp.int32(0), jax.vmap(partial(training.init, model))(hparams))


def solo_state(state: TrainState, members: Sequence[Config], index: int) -> TrainState:
    """The state of one sweep member, cut to what a run of it alone would hold: its own latents and its own hooks.

    Args:
      state: of a member of a sweep.
      members: the settings of all.
      index: which member.

    Returns:
      The state, every array with an axis of latents cut to the member's first `latent_dim`.
    """
    shared, own = alike(members)[index], alike(members[index : index + 1])[0]
    used = {type(hook) for hook in own.all_hooks}
    kept = tuple(k for hook, k in zip(shared.all_hooks, state.hooks, strict=True) if type(hook) in used)
    state = dataclasses.replace(state, hooks=kept)
    latent_dim = own.latent_dim

    # Leaves are arrays of the device or of the host.
    def cut(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        if "to_latents" in names or names[-2:] == ["latents", "mask"]:
            return leaf[..., :latent_dim]
        if "FromLatents_0" in names and names[-1] == "kernel":
            return leaf[:latent_dim]
        return leaf

    return jax.tree_util.tree_map_with_path(cut, state)


def train_steps(
    model: Model,
    state: TrainState,
    hparams: Hparams,
    data: TrainingData,
    step: Int[Array, ""],
    num_steps: Int[Array, ""] | int,
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
      order: the epoch's `epoch_order`, drawn here if not given.

    Returns:
      The state after these steps.
    """
    config, n = hparams.config, len(data.examples)
    size = batch_size(config, n)
    per_epoch = n // size
    epoch, start = step // per_epoch, step % per_epoch
    order = epoch_order(data, epoch) if order is None else order
    delay = sum((hook.delay() for hook in config.hooks), 0.0)

    def examples_of(i: Int[Array, ""] | int) -> tuple[Array, PyTree, PyTree]:
        rows = jax.lax.dynamic_slice(order, ((start + i) * size,), (size,))
        return draw_batch(config, model, data, rows, step + i)

    def one_step(i: Int[Array, ""], carried: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
        state, (x, c, alternative) = carried
        # Beside the step before, on processors that it leaves idle; the last one is not used.
        following = examples_of(i + 1)
        noise, shared = (
            jax.random.fold_in(stream(hparams.key, name), step + i)
            for name in (Stream.NOISE, Stream.OBJECTIVE)
        )
        keys = jax.random.split(noise, size)
        batch = Batch(x, c, keys, shared, alternative, num_examples=n)
        time = Time(step + i, delay, steps_per_epoch=per_epoch, epochs=config.epochs)
        return training.train_step(model, state, batch, hparams, time), following

    state, _ = jax.lax.fori_loop(0, num_steps, one_step, (state, examples_of(0)))
    return state


def make_train(model: Model, *, num_steps: int) -> Callable[[Hparams, TrainingData], TrainState]:
    """Make a pure function that does a whole training from settings and data. It can be jitted, vmapped and sharded.

    Args:
      model: a `CVAE`, or anything with its methods.
      num_steps: number of updates.

    Returns:
      A function from one member's `Hparams` and the training data to its state after the last step.

    Example:
      >>> import numpy as np
      >>> from cvae_jax.data.arrays import from_arrays
      >>> from cvae_jax.training.config import from_flat
      >>> from cvae_jax.training.hparams import stack_hparams
      >>> from cvae_jax.training.loader import training_data
      >>> dataset = from_arrays(np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2)
      >>> members = [from_flat(beta=beta, latent_dim=2, batch_size=4) for beta in (0.5, 1.0, 2.0)]
      >>> model = build_model(members, dataset)
      >>> train = jax.jit(jax.vmap(make_train(model, num_steps=3), in_axes=(0, None)))
      >>> train(stack_hparams(members, capacity=2), training_data(members[0], dataset)).diverged_step.shape
      (3,)
    """

    def train(hparams: Hparams, data: TrainingData) -> TrainState:
        per_epoch = len(data.examples) // batch_size(hparams.config, len(data.examples))
        epochs, rest = divmod(num_steps, per_epoch)

        def steps(state: TrainState, first: Int[Array, ""], count: int) -> TrainState:
            return train_steps(model, state, hparams, data, first, count)

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
    model: Model,
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
    model: Model,
    population: Population,
    hparams: Hparams,
    validation: Examples,
    steps_in_epoch: Int[Array, ""],
    num_examples: int,
) -> tuple[Population, Terms, Terms]:
    """Validate every member, keep its best parameters, and average the sums of the epoch.

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
        params = training.evaluated(hparams.config, state)
        terms = validate(model, params, validation, hparams, num_examples=num_examples)
        better = terms.loss < state.best.loss
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            training.Best(params, terms.loss, epoch),
            state.best,
        )
        config = hparams.config
        settled = sum((hook.delay() for hook in config.hooks), config.schedule.warmup_epochs)
        waited = epoch.astype(jnp.float32) - jnp.maximum(best.epoch.astype(jnp.float32), settled)
        stops = (waited >= config.patience) & (state.stopped_epoch < 0) & (state.diverged_step < 0)
        stopped_epoch = jnp.where(stops, epoch, state.stopped_epoch)
        means = jax.tree.map(lambda total: total / steps_in_epoch.astype(jnp.float32), state.sums)
        zeros = jax.tree.map(jnp.zeros_like, state.sums)
        state = dataclasses.replace(state, best=best, stopped_epoch=stopped_epoch, sums=zeros)
        return state, means, terms

    members, train_terms, validation_terms = jax.vmap(one_member)(population.members, hparams)
    return Population(population.step, members), train_terms, validation_terms
