"""What a finished run shows: metrics of its best parameters, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cvae_jax import checkpoints, evaluation, plots, sampling
from cvae_jax.config import Hparams
from cvae_jax.dataset import unit
from cvae_jax.randomness import Stream, stream
from cvae_jax.sweep import Population, init
from cvae_jax.training import Best
from experiments.cli import UserError
from experiments.loop import Session
from experiments.workdir import write_atomically

_COLUMNS = 12
_TRAVERSED_LATENTS = 16


def load_population(session: Session, workdir: Path) -> Population:
    """The latest checkpoint of a run."""
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        like = jax.eval_shape(lambda h: init(session.model, h), session.hparams)
        population = checkpoints.restore(manager, like)
    if population is None:
        raise UserError(f"{workdir} holds no checkpoint yet, expected a run of at least one")
    return population


def split_metrics(session: Session, best: Best) -> dict[str, list[dict[str, float]]]:
    """ELBO, rate and distortion of every member's best parameters, on validation and test."""
    dataset = session.dataset
    return {
        name: evaluation.summarize(
            evaluation.members_elbo_terms(
                session.model,
                best.params,
                evaluation.on_device(split, dataset.x_max),
                session.hparams.latent_mask,
            )
        )
        for name, split in (("validation", dataset.validation), ("test", dataset.test))
    }


def member_of(tree: Any, index: int) -> Any:
    """One member of a stacked pytree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def write_pictures(session: Session, best: Best, hparams: Hparams, workdir: Path) -> None:
    """`samples.png`, `reconstructions.png` and `traversals.png` of one member."""
    for name, figure in (
        ("samples", samples_figure(session, best, hparams)),
        ("reconstructions", reconstructions_figure(session, best, hparams)),
        ("traversals", traversals_figure(session, best, hparams)),
    ):
        write_atomically(workdir / f"{name}.png", figure.savefig)


def samples_figure(session: Session, best: Best, hparams: Hparams) -> Figure:
    """Draws from the prior, a row per class."""
    conditional = session.run.config.condition == "label"
    classes = session.dataset.num_classes if conditional else 10
    names = session.dataset.class_names if conditional else ()
    c = jnp.repeat(jnp.arange(classes), _COLUMNS) if conditional else jnp.zeros(classes * _COLUMNS, jnp.int32)
    key = stream(jax.random.key(0), Stream.SAMPLES)
    images = sampling.generate(session.model, best.params, key, c, hparams.latent_mask)
    title = "samples from the prior, a row per class" if conditional else "samples from the prior"
    return plots.image_grid(
        np.asarray(images).reshape(classes, _COLUMNS, *session.dataset.shape), title=title, row_labels=names
    )


def reconstructions_figure(session: Session, best: Best, hparams: Hparams) -> Figure:
    """Test images above their reconstructions, classes in turn."""
    test = session.dataset.test
    rows = np.concatenate([np.flatnonzero(test.c == label)[:4] for label in np.unique(test.c)])
    rows = rows[np.argsort(np.arange(len(rows)) % 4, kind="stable")][: 3 * _COLUMNS]
    rows = rows[: max(1, len(rows) // _COLUMNS) * _COLUMNS]
    columns = min(_COLUMNS, len(rows))
    x = unit(test.x[rows], session.dataset.x_max)
    images = np.asarray(
        sampling.reconstruct(
            session.model, best.params, jnp.asarray(x), jnp.asarray(test.c[rows]), hparams.latent_mask
        )
    )
    pairs = np.stack([a.reshape(-1, columns, *session.dataset.shape) for a in (x, images)], axis=1)
    return plots.image_grid(
        pairs.reshape(-1, columns, *session.dataset.shape),
        title="test images above their reconstructions",
        row_labels=("test", "mean") * len(pairs),
    )


def traversals_figure(session: Session, best: Best, hparams: Hparams) -> Figure:
    """Each latent swept from −3 to 3, the others at 0, for one condition."""
    label = session.dataset.num_classes // 2 if session.run.config.condition == "label" else 0
    latents = jnp.flatnonzero(hparams.latent_mask)[:_TRAVERSED_LATENTS]
    values = jnp.linspace(-3.0, 3.0, _COLUMNS + 1)
    images = sampling.traverse(
        session.model,
        best.params,
        jnp.zeros(session.model.capacity),
        jnp.int32(label),
        hparams.latent_mask,
        latents=latents,
        values=values,
    )
    condition = (
        f", class {session.dataset.class_names[label]}" if session.run.config.condition == "label" else ""
    )
    return plots.image_grid(
        np.asarray(images),
        title=f"each latent from −3 to 3{condition}",
        row_labels=[f"z{int(i)}" for i in latents],
        column_labels=[f"{float(v):g}" for v in values],
    )
