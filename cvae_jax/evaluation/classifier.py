"""A small convolutional classifier of images, used to measure the quality of a model's samples."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from cvae_jax.data import augmentation
from cvae_jax.data.examples import Examples
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.networks.conv import Conv
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.dense import Dense

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

FEATURES = 64
NUM_STEPS = 2_500
_BATCH = 128
_EVALUATION_BATCH = 250
_STEPS_PER_CALL = 250
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-2
# The largest shift of a training image, as a fraction of its side: 2 pixels of 28, 1 of 8.
_SHIFT = 1 / 14


class Scores(NamedTuple):
    """The output of the classifier for n images.

    Attributes:
      features: the layer before the last, shape (n, 64).
      logits: shape (n, classes).
    """

    features: Float[Array, "n f"]
    logits: Float[Array, "n k"]


class Classifier(nn.Module):
    """The layers of the `conv` encoder without a condition, a layer of features, and a linear map onto classes.

    Attributes:
      num_classes: labels run from 0 to num_classes − 1.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"]) -> Scores:
        """Features and logits of a batch of images, pixels between 0 and 1."""
        body = Conv().encoder((x.shape[1], x.shape[2], x.shape[3]), jnp.float32)
        features = nn.silu(Dense(FEATURES)(body(x, Context(e=None))))
        return Scores(features, Dense(self.num_classes)(features))


@struct.dataclass
class _State:
    """The state of training.

    Attributes:
      params, opt_state: the classifier's variables and the optimizer's.
      best_params: the variables with the highest validation accuracy so far.
      best_accuracy: scalar, −1 before the first.
      step: number of updates made, scalar int32.
    """

    params: PyTree
    opt_state: PyTree
    best_params: PyTree
    best_accuracy: Float[Array, ""]
    step: Int[Array, ""]


def fit(
    classifier: Classifier,
    train: Examples,
    validation: Examples,
    key: Key[Array, ""],
    *,
    num_steps: int = NUM_STEPS,
) -> PyTree:
    """Train a classifier by AdamW with a cosine schedule, on batches drawn with replacement, images shifted at random.

    Args:
      classifier: the classifier.
      train: images and labels of the training split.
      validation: images and labels, on which the accuracy is measured every 250 steps.
      key: of the initialization, the batches and the shifts.
      num_steps: number of updates.

    Returns:
      The variables with the highest validation accuracy; if several have it, the last of them.
    """
    init_key, step_key = jax.random.split(key)
    state = _init(classifier, train, init_key, num_steps)
    while int(state.step) < num_steps:
        state = _train_and_validate(classifier, state, train, validation, step_key, num_steps)
    return state.best_params


@partial(jax.jit, static_argnames="classifier")
def scores(classifier: Classifier, params: PyTree, examples: Examples) -> Scores:
    """Features and logits of every image, in batches.

    Args:
      classifier: the classifier.
      params: its variables.
      examples: n images; their labels are not used.

    Returns:
      Shapes (n, 64) and (n, classes).
    """

    def one_batch(rows: Int[Array, " b"]) -> Scores:
        return cast("Scores", classifier.apply(params, examples.take(rows)[0]))

    return in_batches(one_batch, jnp.arange(len(examples)), _EVALUATION_BATCH)


def correct(scores: Scores, c: Int[Array, " n"]) -> Bool[Array, " n"]:
    """Whether the most probable class of each image is its label, shape (n,)."""
    return jnp.argmax(scores.logits, axis=-1) == c


def _optimizer(num_steps: Int[Array, ""] | int) -> optax.GradientTransformation:
    return optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(_WEIGHT_DECAY),
        optax.scale_by_learning_rate(
            lambda count: 0.5 * _LEARNING_RATE * (1.0 + jnp.cos(jnp.pi * count / num_steps))
        ),
    )


@partial(jax.jit, static_argnames="classifier")
def _init(classifier: Classifier, train: Examples, key: Key[Array, ""], num_steps: Int[Array, ""]) -> _State:
    params = classifier.init(key, train.take(jnp.zeros(1, jnp.int32))[0])
    return _State(params, _optimizer(num_steps).init(params), params, jnp.float32(-1), jnp.int32(0))


@partial(jax.jit, static_argnames="classifier", donate_argnames="state")
def _train_and_validate(
    classifier: Classifier,
    state: _State,
    train: Examples,
    validation: Examples,
    key: Key[Array, ""],
    num_steps: Int[Array, ""],
) -> _State:
    """Make up to 250 updates, then measure the validation accuracy and keep the best variables."""
    n = len(train)
    move = partial(augmentation.shift, pixels=round(max(train.x.shape[1:3]) * _SHIFT))

    def one_step(_: Int[Array, ""], state: _State) -> _State:
        rows_key, shift_key = jax.random.split(jax.random.fold_in(key, state.step))
        x, c = train.take(jax.random.randint(rows_key, (_BATCH,), 0, n))
        x = jax.vmap(move)(jax.random.split(shift_key, _BATCH), x)

        def loss(params: PyTree) -> Float[Array, ""]:
            logits = cast("Scores", classifier.apply(params, x)).logits
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, c))

        gradient = jax.grad(loss)(state.params)
        # optax raises a float to the power of its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = _optimizer(num_steps).update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)

    count = jnp.minimum(_STEPS_PER_CALL, num_steps - state.step)
    state = jax.lax.fori_loop(0, count, one_step, state)
    hits = correct(scores(classifier, state.params, validation), validation.c)
    accuracy = jnp.mean(hits, dtype=jnp.float32)
    better = accuracy >= state.best_accuracy
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.params, state.best_params)
    return dataclasses.replace(
        state, best_params=best, best_accuracy=jnp.maximum(accuracy, state.best_accuracy)
    )
