"""A small convolutional network that reads a picture of digits into the grid of cells; it judges drawn scenes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from cvae_jax.data import augmentation
from cvae_jax.data.dataset import Split
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.nn.conv import Downsample
from cvae_jax.nn.dense import Dense
from cvae_jax.rng import root_key
from experiments.tasks.captions import arrangements, scenes
from experiments.tasks.captions.arrangements import CELLS, CLASSES

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, Num, PyTree, UInt8

NUM_STEPS = 5_000
NUM_EXAMPLES = 200_000
_STEPS_PER_CALL = 250
_CHANNELS = (32, 64)
_SQUEEZED = 32
# Features of the second convolution to a side, each of four pixels; and where the windows of small and of large digits
# begin among them, and how wide they are.
_SIDE = 9
_SMALL_WINDOWS = ((-1, 2, 5), 5)
_LARGE_WINDOWS = ((-1, 1, 3), 7)
_HIDDEN = 128
_BATCH = 128
_READING_BATCH = 500
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-2
_SHIFT = 1
# Rows and columns that a picture is moved by to be read again.
_MOVES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
# Shares of one, two and three digits among the arrangements, and of cells that have a digit among the others.
_COUNTS = (0.45, 0.35, 0.2)
_OCCUPIED = 0.25


class Logits(NamedTuple):
    """What the reader makes of pictures.

    Attributes:
      digits: of each cell being empty, or showing 0 to 9, shape (n, 9, 11).
      large: of the digit of each cell being large, shape (n, 9); means nothing where the cell is empty.
    """

    digits: Float[Array, "n 9 11"]
    large: Float[Array, "n 9"]


class Reading(NamedTuple):
    """What pictures show.

    Attributes:
      grids: see `arrangements.to_grid`, shape (n, 18), int32; of several pictures of each scene (n, k, 18).
      certainty: probability of what each cell is read as, its digit or none, shape (n, 9) or (n, k, 9), float32.
    """

    grids: Int[np.ndarray, "*n 18"]
    certainty: Float[np.ndarray, "*n 9"]


class Reader(nn.Module):
    """Two stride-2 convolutions of the whole picture, then one network for all cells, each seen through two windows.

    One window lies about where the cell's small digits stand, the other about its large ones, which keep off the edge
    of the picture: so a digit looks the same to the network in every cell. The picture is enlarged first, so that the
    features of the second convolution fall on all cells alike.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b H W 1"]) -> Logits:
        """Logits of a batch of pictures, pixels between 0 and 1."""
        h = jax.image.resize(x, (x.shape[0], 4 * _SIDE, 4 * _SIDE, 1), "linear")
        for channels in _CHANNELS:
            h = nn.silu(Downsample(channels)(h))
        h = nn.silu(Dense(_SQUEEZED)(h))
        seen = [nn.silu(Dense(_HIDDEN)(_windows(h, *window))) for window in (_SMALL_WINDOWS, _LARGE_WINDOWS)]
        h = nn.silu(Dense(_HIDDEN)(jnp.concatenate(seen, axis=-1)))
        h = Dense(CLASSES + 2)(h)
        return Logits(h[..., :-1], h[..., -1])


def _windows(h: Float[Array, "b h w f"], starts: tuple[int, ...], width: int) -> Float[Array, "b 9 d"]:
    """A square window of each cell, flattened; `starts` of the first, second and third, zeros beyond the edge."""
    around = -min(starts)
    h = jnp.pad(h, ((0, 0), (around, around), (around, around), (0, 0)))
    first = [start + around for start in starts]
    windows = [h[:, i : i + width, j : j + width].reshape(h.shape[0], -1) for i in first for j in first]
    return jnp.stack(windows, axis=1)


@struct.dataclass
class _State:
    """All that training changes.

    Attributes:
      params, opt_state: the reader's variables and the optimizer's.
      step: number of updates made, scalar int32.
    """

    params: PyTree
    opt_state: PyTree
    step: Int[Array, ""]


def examples(
    rng: np.random.Generator, digits: Split, n: int
) -> tuple[UInt8[np.ndarray, "n 32 32 1"], Int[np.ndarray, "n 18"]]:
    """Pictures to learn reading from.

    Three in four are arrangements, held-out ones among them: a judge of what a model draws must not prefer what the
    model has seen. The others have small digits in any cells, or none at all, as a model that fails may draw them.

    Args:
      rng: draws them.
      digits: the scans they are composed from.
      n: number of pictures.

    Returns:
      Pixels from 0 to 255, and grids, see `arrangements.to_grid`.
    """
    others = n // 4
    counts = rng.multinomial(n - others, _COUNTS)
    arranged = [arrangements.draw(rng, count, k) for count, k in enumerate(counts.tolist(), 1)]
    occupied = rng.random((others, CELLS)) < _OCCUPIED
    scattered = np.concatenate([occupied * rng.integers(1, 1 + CLASSES, occupied.shape), occupied], axis=1)
    grids = np.concatenate([*arranged, scattered.astype(np.int32)])
    return scenes.compose(rng, grids, digits), grids


def fit(
    x: UInt8[np.ndarray, "n H W 1"],
    grids: Int[np.ndarray, "n 18"],
    key: Key[Array, ""],
    *,
    num_steps: int = NUM_STEPS,
) -> PyTree:
    """Train a reader by AdamW with a cosine schedule, on batches drawn with replacement.

    Every picture is shifted by up to a pixel and softened by a share between none and all.

    Args:
      x: pictures, from 0 to 255.
      grids: what they show, see `arrangements.to_grid`.
      key: of the initialization, the batches, the shifts and the shares.
      num_steps: number of updates.

    Returns:
      The reader's variables.
    """
    init_key, step_key = jax.random.split(key)
    pictures, shown = jnp.asarray(x), jnp.asarray(grids)
    state = _init(init_key, pictures[:1], num_steps)
    while int(state.step) < num_steps:
        state = _train(state, pictures, shown, step_key, num_steps)
    return state.params


def abstract_params() -> PyTree:
    """Shapes of the reader's variables."""
    return jax.eval_shape(
        Reader().init, root_key(0), jax.eval_shape(lambda: jnp.zeros((1, scenes.SIDE, scenes.SIDE, 1)))
    )


def read(params: PyTree, x: Num[Array, "n H W 1"], *, x_max: float) -> Reading:
    """What pictures show: what is likeliest by the mean of a picture's probabilities and those of it moved by a pixel.

    Args:
      params: the reader's variables.
      x: pixels from 0 to x_max.
      x_max: the value that stands for 1.

    Returns:
      Grids, and how certain the reader is of their cells.
    """
    return Reading(*map(np.asarray, _read(params, jnp.asarray(x), jnp.float32(x_max))))


def soften(x: Float[Array, "*n H W 1"], share: Float[Array, ""] | float) -> Float[Array, "*n H W 1"]:
    """Mix pictures with their own 3×3 binomial blur: a decoder draws means, which are softer than scans.

    Args:
      x: pictures, dark beyond their edges.
      share: of the blurred ones, from 0 to 1, scalar.

    Returns:
      Pictures of the same shape.

    Example:
      >>> dot = jnp.zeros((3, 3, 1)).at[1, 1].set(1.0)
      >>> soften(dot, 1.0)[..., 0].tolist()
      [[0.0625, 0.125, 0.0625], [0.125, 0.25, 0.125], [0.0625, 0.125, 0.0625]]
    """
    blurred = x
    for axis in (-3, -2):
        ends = [(0, 0)] * x.ndim
        ends[axis] = (1, 1)
        around = jnp.pad(blurred, ends)
        before, after = (
            jax.lax.slice_in_dim(around, i, i + x.shape[axis], axis=axis % x.ndim) for i in (0, 2)
        )
        blurred = 0.25 * before + 0.5 * blurred + 0.25 * after
    return (1.0 - share) * x + share * blurred


def whole_right(read: Int[np.ndarray, "n 18"], grids: Int[np.ndarray, "n 18"]) -> Bool[np.ndarray, " n"]:
    """Whether all nine cells of each picture are read as they are, digits and sizes, shape (n,).

    Example:
      >>> grids = np.zeros((2, 18), int)
      >>> grids[1, 3] = 4
      >>> whole_right(grids, np.zeros((2, 18), int)).tolist()
      [True, False]
    """
    return np.logical_and.reduce(read == grids, axis=1)


@jax.jit
def _read(
    params: PyTree, x: Num[Array, "n H W 1"], x_max: Float[Array, ""]
) -> tuple[Int[Array, "n 18"], Float[Array, "n 9"]]:
    def one_batch(rows: Int[Array, " b"]) -> tuple[Int[Array, "b 18"], Float[Array, "b 9"]]:
        pictures = x[rows].astype(jnp.float32) / x_max
        each = [cast("Logits", Reader().apply(params, _moved(pictures, *move))) for move in _MOVES]
        probabilities = jnp.mean(jnp.stack([jax.nn.softmax(logits.digits) for logits in each]), axis=0)
        large = jnp.mean(jnp.stack([jax.nn.sigmoid(logits.large) for logits in each]), axis=0)
        digits = jnp.argmax(probabilities, axis=-1).astype(jnp.int32)
        sizes = jnp.where(digits > 0, 1 + (large > 0.5).astype(jnp.int32), 0)
        return jnp.concatenate([digits, sizes], axis=-1), jnp.max(probabilities, axis=-1)

    return in_batches(one_batch, jnp.arange(x.shape[0]), _READING_BATCH)


def _moved(x: Float[Array, "n H W 1"], rows: int, columns: int) -> Float[Array, "n H W 1"]:
    """Pictures moved by up to a pixel, down and to the right; zeros move in."""
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return around[:, 1 - rows : 1 - rows + x.shape[1], 1 - columns : 1 - columns + x.shape[2]]


def _loss(logits: Logits, grids: Int[Array, "b 18"]) -> Float[Array, ""]:
    """−log p of a grid, nats per picture: of its cells, and of the sizes of those that have a digit."""
    digits, sizes = grids[:, :CELLS], grids[:, CELLS:]
    cells = optax.softmax_cross_entropy_with_integer_labels(logits.digits, digits)
    large = optax.sigmoid_binary_cross_entropy(logits.large, (sizes == 2).astype(jnp.float32))
    return jnp.mean(jnp.sum(cells + jnp.where(digits > 0, large, 0.0), axis=-1))


def _optimizer(num_steps: Int[Array, ""] | int) -> optax.GradientTransformation:
    return optax.adamw(
        lambda count: 0.5 * _LEARNING_RATE * (1.0 + jnp.cos(jnp.pi * count / num_steps)),
        weight_decay=_WEIGHT_DECAY,
    )


@jax.jit
def _init(key: Key[Array, ""], x: UInt8[Array, "1 H W 1"], num_steps: Int[Array, ""]) -> _State:
    params = Reader().init(key, x.astype(jnp.float32))
    return _State(params, _optimizer(num_steps).init(params), jnp.int32(0))


@partial(jax.jit, donate_argnames="state")
def _train(
    state: _State,
    x: UInt8[Array, "n H W 1"],
    grids: Int[Array, "n 18"],
    key: Key[Array, ""],
    num_steps: Int[Array, ""],
) -> _State:
    """Up to 250 updates."""

    def one_step(_: Int[Array, ""], state: _State) -> _State:
        rows_key, shift_key, share_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        rows = jax.random.randint(rows_key, (_BATCH,), 0, x.shape[0])
        move = partial(augmentation.shift, pixels=_SHIFT)
        pictures = jax.vmap(move)(jax.random.split(shift_key, _BATCH), x[rows].astype(jnp.float32) / 255.0)
        pictures = jax.vmap(soften)(pictures, jax.random.uniform(share_key, (_BATCH,)))

        def loss(params: PyTree) -> Float[Array, ""]:
            return _loss(cast("Logits", Reader().apply(params, pictures)), grids[rows])

        gradient = jax.grad(loss)(state.params)
        # optax raises a float to its int32 step count, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = _optimizer(num_steps).update(gradient, state.opt_state, state.params)
        return _State(optax.apply_updates(state.params, updates), opt_state, state.step + 1)

    return jax.lax.fori_loop(0, jnp.minimum(_STEPS_PER_CALL, num_steps - state.step), one_step, state)
