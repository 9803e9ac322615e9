"""Where training takes its batches from: the training split on the device, its order, augmentation, binary pixels."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, NamedSharding

from cvae_jax.data.augmentation import augment
from cvae_jax.data.dataset import Dataset
from cvae_jax.data.examples import Examples, on_device
from cvae_jax.model import Model
from cvae_jax.rng import Stream, root_key, stream
from cvae_jax.training import devices
from cvae_jax.training.config import Config

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree


_FEW_EXAMPLES = 20


@struct.dataclass
class TrainingData:
    """The training split on the device, and the random keys of its order, augmentation and binary pixels.

    Attributes:
      examples: the split.
      alternative: its alternative conditions, where it has them.
      order_key: of the permutation of each epoch.
      augment_key: of the augmentation of each step.
      binarize_key: of the binary pixels of each step.
      batch_sharding: how each batch is split over devices, None where it is not.
    """

    examples: Examples
    alternative: PyTree
    order_key: Key[Array, ""]
    augment_key: Key[Array, ""]
    binarize_key: Key[Array, ""]
    batch_sharding: NamedSharding | None = struct.field(pytree_node=False, default=None)


def batch_size(config: Config, num_examples: int) -> int:
    """Examples per step: as configured, or all training examples if there are fewer."""
    return min(config.batch_size, num_examples)


def steps_per_epoch(config: Config, dataset: Dataset) -> int:
    """Number of full batches in an epoch. The few examples that do not fill a batch are others in each epoch."""
    return len(dataset.train) // batch_size(config, len(dataset.train))


def warn_of_few_examples(config: Config, dataset: Dataset) -> None:
    """Warn if a batch is the whole training split, or if there are too few validation examples.

    Warns:
      UserWarning: for each of the two.
    """
    train, validation = len(dataset.train), len(dataset.validation)
    if train < config.batch_size:
        warnings.warn(
            f"batch_size is lowered from {config.batch_size} to the {train} training examples", stacklevel=2
        )
    if validation < _FEW_EXAMPLES:
        warnings.warn(
            f"{validation} validation examples, expected at least {_FEW_EXAMPLES}: the best epoch is chosen by chance",
            stacklevel=2,
        )


def training_data(config: Config, dataset: Dataset, mesh: Mesh | None = None) -> TrainingData:
    """Put the training split on the device, or on every device of a mesh."""
    key = root_key(config.data.data_seed)
    data = TrainingData(
        on_device(dataset.train, dataset.x_max),
        jax.tree.map(jnp.asarray, dataset.train.alternative),
        stream(key, Stream.ORDER),
        stream(key, Stream.AUGMENT),
        stream(key, Stream.BINARIZE),
    )
    if mesh is None:
        return data
    return dataclasses.replace(devices.replicated(data, mesh), batch_sharding=devices.by_batch(mesh))


@jax.jit
def epoch_order(data: TrainingData, epoch: Int[Array, ""]) -> Int[Array, " n"]:
    """The order in which an epoch takes the examples of the training split.

    Args:
      data: the training split of n examples, and the key of its order.
      epoch: epochs before it, scalar int32.

    Returns:
      A permutation of the rows, shape (n,), int32.
    """
    return jax.random.permutation(jax.random.fold_in(data.order_key, epoch), len(data.examples))


def draw_batch(
    config: Config, model: Model, data: TrainingData, rows: Int[Array, " b"], step: Int[Array, ""]
) -> tuple[Float[Array, " b *dims"], PyTree, PyTree]:
    """Take the examples of one step and scale them. Augment and binarize them if the configuration says so.

    Args:
      config: shared by all members.
      model: its condition may depend on the pixels of this step.
      data: the training split, and the keys of what happens to it.
      rows: of the examples, shape (b,), int32.
      step: number of updates made before, scalar int32.

    Returns:
      x of shape (b, *dims), float32 from 0 to 1 where the pixels are whole levels; the conditions; and the
      alternative conditions, where the data have them.
    """
    x, c = data.examples.take(rows)
    alternative = jax.tree.map(lambda a: a[rows], data.alternative)
    if config.data.augment:
        keys = jax.random.split(jax.random.fold_in(data.augment_key, step), len(rows))
        x = jax.vmap(partial(augment, names=config.data.augment))(keys, x)
        if jnp.issubdtype(data.examples.x.dtype, jnp.integer):  # Pixels of whole levels stay such.
            x = jnp.round(x * data.examples.x_max) / data.examples.x_max
    if config.binarize == "dynamic":
        key = jax.random.fold_in(data.binarize_key, step)
        # As a matrix, because XLA compiles random numbers of four axes slowly.
        flat = x.reshape(len(rows), -1)
        x = jax.random.bernoulli(key, flat).astype(jnp.float32).reshape(x.shape)
    if model.condition is not None:
        c = model.condition.of_batch(x, c)
    if data.batch_sharding is not None:
        x, c, alternative = jax.lax.with_sharding_constraint((x, c, alternative), data.batch_sharding)
    return x, c, alternative
