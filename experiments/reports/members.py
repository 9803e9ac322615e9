"""What the report and TensorBoard show of one member: small pictures, and its settings beside its test metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data.dataset import unit
from cvae_jax.errors import load_package
from cvae_jax.evaluation import sampling
from cvae_jax.plots import drawing
from cvae_jax.rng import Stream, root_key, stream
from cvae_jax.runs.session import RunModel, Trained
from cvae_jax.training.config import traced_options
from experiments.reports import shown

if TYPE_CHECKING:
    from jaxtyping import UInt8

_SAMPLES_PER_CLASS = 6
_MOST_CLASSES = 10


class Pictures(NamedTuple):
    """A member's pictures, shape (y, x, C), uint8.

    Attributes:
      samples: from the prior, a row for each condition of `conditions_of`.
      reconstructions: test images above their reconstructions.
    """

    samples: UInt8[np.ndarray, "y x C"]
    reconstructions: UInt8[np.ndarray, "y x C"]


def conditions_of(session: RunModel) -> shown.Shown:
    """The conditions that samples are drawn of."""
    most_others = 4 if session.model.condition is None else _MOST_CLASSES
    return shown.conditions(session, most_classes=_MOST_CLASSES, most_others=most_others)


def pictures_of(session: RunModel, trained: Trained) -> Pictures:
    """Draw one member's pictures, the same noise and test images for all members."""
    chosen = conditions_of(session)
    c = jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a), _SAMPLES_PER_CLASS, axis=0), chosen.c)
    key = stream(root_key(0), Stream.SAMPLES)
    samples = sampling.generate(session.model, trained.best.params, key, c)
    few = session.examples.take(np.arange(min(_MOST_CLASSES, len(session.examples))))
    x, c = unit(few.x, session.data.x_max), jax.tree.map(jnp.asarray, few.c)
    keys = jax.random.split(key, len(few))
    means = sampling.reconstruct(session.model, trained.best.params, jnp.asarray(x), c, keys)
    return Pictures(
        samples=_canvas(
            session, np.asarray(samples).reshape(chosen.rows, _SAMPLES_PER_CLASS, *session.data.shape)
        ),
        reconstructions=_canvas(session, np.stack([x, np.asarray(means)])),
    )


def _canvas(session: RunModel, x: np.ndarray) -> UInt8[np.ndarray, "y x C"]:
    """A table of examples, shape (r, n, *dims), in their own pixels."""
    images = drawing.pictures(x, session.data.shape, session.data.limits)
    return np.round(255 * drawing.tile(images)).astype(np.uint8)


def write_tensorboard(
    session: RunModel, member: int, test: dict[str, Any], pictures: Pictures | None, step: int, workdir: Path
) -> None:
    """Add a member's settings, its test metrics and its pictures to its folder for TensorBoard.

    Args:
      session: the run.
      member: its number.
      test: metrics of the test split.
      pictures: of the member, None where there are none.
      step: updates made.
      workdir: of the run.
    """
    writer = load_package("tensorboardX", extra="experiments").SummaryWriter
    hparams = load_package("tensorboardX.summary", extra="experiments").hparams
    settings = {k: v for k, v in traced_options(session.run.members[member]).items() if np.isfinite(v)}
    metrics = {f"test/{name}": value for name, value in test.items() if _is_number(value)}
    root = workdir / "tensorboard"
    with writer(str(root / f"member-{member:03d}" if session.run.kind == "sweep" else root)) as board:
        for summary in hparams(settings, metrics):
            board.file_writer.add_summary(summary)
        for name, value in metrics.items():
            board.add_scalar(name, value, step)
        for name, canvas in ({} if pictures is None else pictures._asdict()).items():
            board.add_image(name, canvas, step, dataformats="HWC")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
