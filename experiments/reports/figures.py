"""Figures of one trained member: samples, reconstructions, and pictures of its latents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import stratified_split, unit
from cvae_jax.data.examples import on_device
from cvae_jax.evaluation import posteriors, sampling
from cvae_jax.nn.latent import Gaussian
from cvae_jax.plots import drawing, latents
from cvae_jax.rng import Stream, evaluation_key, root_key, stream
from cvae_jax.runs.session import Session, Trained
from experiments.reports import shown

_COLUMNS = 12
_OTHERS = 10
_MOST_ROWS = 16
_MOST_PANELS = 64
_LATENTS_PER_CLASS = 8
_PROJECTED = 2000
_EDGES = np.linspace(-4.0, 4.0, 65)


def samples_figure(session: Session, trained: Trained) -> Figure:
    """Samples from the prior: a row per class, or per condition of some test examples."""
    chosen = shown.conditions(session, most_classes=_MOST_ROWS, most_others=_OTHERS)
    c = jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a), _COLUMNS, axis=0), chosen.c)
    key = stream(root_key(0), Stream.SAMPLES)
    images = sampling.generate(session.model, trained.best.params, key, c)
    return drawing.image_grid(
        _pictures(session, np.asarray(images).reshape(chosen.rows, _COLUMNS, *session.dataset.shape)),
        title=", ".join(filter(None, ("samples from the prior", chosen.title))),
        row_labels=chosen.names,
    )


def reconstructions_figure(session: Session, trained: Trained) -> Figure:
    """Test images above their reconstructions, with the classes alternating."""
    test = session.dataset.test
    rows = np.arange(len(test))[: 3 * _COLUMNS]
    if session.dataset.labelled:
        rows = np.concatenate([np.flatnonzero(test.labels == label)[:4] for label in np.unique(test.labels)])
        rows = rows[np.argsort(np.arange(len(rows)) % 4, kind="stable")][: 3 * _COLUMNS]
    rows = rows[: max(1, len(rows) // _COLUMNS) * _COLUMNS]
    columns = min(_COLUMNS, len(rows))
    x = unit(test.x[rows], session.dataset.x_max)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(evaluation_key(), jnp.asarray(rows))
    c = jax.tree.map(jnp.asarray, test.take(rows).c)
    images = np.asarray(sampling.reconstruct(session.model, trained.best.params, jnp.asarray(x), c, keys))
    pairs = np.stack([a.reshape(-1, columns, *session.dataset.shape) for a in (x, images)], axis=1)
    return drawing.image_grid(
        _pictures(session, pairs.reshape(-1, columns, *session.dataset.shape)),
        title="test examples above their reconstructions",
        row_labels=("test", "mean") * len(pairs),
    )


def _pictures(session: Session, x: Any) -> np.ndarray:
    """Examples, shape (..., *shape), as images."""
    return drawing.pictures(np.asarray(x), session.dataset.shape, session.dataset.limits)


def _units(session: Session) -> str:
    return "" if session.model.prior.standard else " standard deviations of the prior"


def traversals_figure(session: Session, trained: Trained, label: int | None = None) -> Figure:
    """Each latent from −3 to 3 with the others at 0, under one condition: the middle one if `label` is None."""
    if label is None:
        chosen = shown.conditions(session, most_classes=session.dataset.num_classes, most_others=1)
        row = chosen.rows // 2
        c, name = (
            jax.tree.map(lambda a: jnp.asarray(a[row]), chosen.c),
            (chosen.names or ("",) * chosen.rows)[row],
        )
    else:
        c, name = jnp.int32(label), session.dataset.class_names[label]
    condition = f"class {name}" if isinstance(session.model.condition, Label) else name
    in_use = np.flatnonzero(_latent_mask(session, trained))
    moved = in_use[:_MOST_ROWS]
    values = jnp.linspace(-3.0, 3.0, _COLUMNS + 1)
    images = sampling.traverse(
        session.model,
        trained.best.params,
        jnp.zeros(session.model.capacity),
        c,
        latents=jnp.asarray(moved),
        values=values,
    )
    return drawing.image_grid(
        _pictures(session, images),
        title=", ".join(filter(None, (f"each latent from −3 to 3{_units(session)}", condition)))
        + shown.first_of(len(in_use), _MOST_ROWS, "latents"),
        row_labels=[f"z{i}" for i in moved],
        column_labels=_signed(values),
    )


def posterior(session: Session, trained: Trained) -> Gaussian:
    """q(z|x,c) of the test split."""
    examples = on_device(session.dataset.test, session.dataset.x_max)
    return posteriors.encode_examples(session.model, trained.best.params, examples)


def _latent_mask(session: Session, trained: Trained) -> jax.Array:
    return session.model.latent_mask(trained.best.params)


def traversals_by_class_figure(session: Session, trained: Trained, q: Gaussian) -> Figure:
    """The most informative latents from −3 to 3 with the others at 0: a table per class."""
    dataset = session.dataset
    moved = posteriors.by_information(q, _latent_mask(session, trained))[:_LATENTS_PER_CLASS]
    values = jnp.linspace(-3.0, 3.0, 7)
    classes = dataset.seen_classes[:_MOST_ROWS]
    start = jnp.zeros(session.model.capacity)
    blocks = [
        sampling.traverse(
            session.model, trained.best.params, start, jnp.int32(label), latents=jnp.asarray(moved),
            values=values,
        )
        for label in classes
    ]  # fmt: skip
    return drawing.image_blocks(
        _pictures(session, np.stack([np.asarray(block) for block in blocks])),
        title=f"the most informative latents from −3 to 3{_units(session)}, the others at 0{_first_of(session)}",
        block_titles=[f"class {dataset.class_names[label]}" for label in classes],
        row_labels=[f"z{i}" for i in moved],
        column_labels=_signed(values),
    )


def interpolations_figure(session: Session, trained: Trained, q: Gaussian) -> Figure:
    """Straight lines between posterior means of two test images of one class; without a condition, of two classes."""
    test, by_class = session.dataset.test, _rows_by_class(session)
    if isinstance(session.model.condition, Label):
        ends = [(rows[0], rows[1 % len(rows)]) for rows in by_class]
    else:
        ends = [(rows[0], by_class[(k + 1) % len(by_class)][0]) for k, rows in enumerate(by_class)]
    walks = [
        sampling.interpolate(
            session.model,
            trained.best.params,
            q.mean[a],
            q.mean[b],
            jnp.int32(test.labels[a]),
            steps=_COLUMNS - 1,
        )
        for a, b in ends
    ]
    x = unit(test.x[np.array(ends)], session.dataset.x_max)
    return _beside_test_images(
        session, x[:, :1], np.stack([np.asarray(walk) for walk in walks]), x[:, 1:],
        title=f"straight lines in z between two test images{_first_of(session)}",
        column_labels=[f"{t:.3g}" for t in np.linspace(0, 1, _COLUMNS - 1)],
    )  # fmt: skip


def label_interpolations_figure(session: Session, trained: Trained, q: Gaussian) -> Figure:
    """A straight line from the embedding of a test image's class to that of the next class, under the image's z."""
    dataset = session.dataset
    firsts = np.array([rows[0] for rows in _rows_by_class(session)])
    classes = dataset.test.labels[firsts]
    following = np.roll(classes, -1)
    walks = [
        sampling.interpolate_labels(
            session.model, trained.best.params, q.mean[row], jnp.int32(a), jnp.int32(b), steps=_COLUMNS - 1
        )
        for row, a, b in zip(firsts, classes, following, strict=True)
    ]
    names = dataset.class_names
    return _beside_test_images(
        session, unit(dataset.test.x[firsts], dataset.x_max)[:, None],
        np.stack([np.asarray(walk) for walk in walks]),
        title=f"straight lines between the embeddings of two classes, under a test image's z{_first_of(session)}",
        row_labels=[f"{names[a]} → {names[b]}" for a, b in zip(classes, following, strict=True)],
        column_labels=[f"{t:.3g}" for t in np.linspace(0, 1, _COLUMNS - 1)],
    )  # fmt: skip


def styles_figure(session: Session, trained: Trained, q: Gaussian) -> Figure:
    """The z of a test image of each class, decoded under every class: a z per row, a class per column."""
    dataset = session.dataset
    firsts = np.array([rows[0] for rows in _rows_by_class(session)])
    classes = dataset.seen_classes[:_MOST_ROWS]
    images = sampling.across_labels(session.model, trained.best.params, q.mean[firsts], jnp.asarray(classes))
    return _beside_test_images(
        session, unit(dataset.test.x[firsts], dataset.x_max)[:, None], np.asarray(images),
        title=f"the z of a test image under every class: a z per row{_first_of(session)}",
        column_labels=[dataset.class_names[k] for k in classes],
    )  # fmt: skip


def aggregate_posterior_figure(session: Session, trained: Trained, q: Gaussian) -> Figure:
    """The aggregate posterior of each latent over the test split and N(0, 1), the most informative latents first."""
    first = posteriors.by_information(q, _latent_mask(session, trained))[:_MOST_PANELS]
    kl = posteriors.kl_per_latent(q)
    shares = np.asarray(posteriors.aggregate_histogram(q, jnp.asarray(_EDGES, jnp.float32)))
    return latents.aggregate_posterior(
        shares[first], _EDGES, titles=[f"z{i}: {float(kl[i]):.2f} nats" for i in first]
    )


def scatter_figure(session: Session, trained: Trained, q: Gaussian) -> Figure:
    """Posterior means of the test split by class, by PCA and by t-SNE."""
    dataset = session.dataset
    rows, title = np.arange(len(dataset.test)), "posterior means of the test split"
    if len(rows) > _PROJECTED:
        _, rows = stratified_split(dataset.test.labels, _PROJECTED / len(rows))
        title = f"posterior means of {len(rows):,} examples of the test split"
    in_use = np.flatnonzero(_latent_mask(session, trained))
    projected = posteriors.project(np.asarray(q.mean)[rows][:, in_use])
    shares = " and ".join(f"{share:.0%}" for share in projected.explained)
    return latents.scatter(
        [(f"PCA, {shares} of the variance", projected.pca), ("t-SNE", projected.tsne)],
        dataset.test.labels[rows],
        class_names=dataset.class_names,
        title=f"{title}, {len(in_use)} latents",
    )


def _rows_by_class(session: Session) -> list[np.ndarray]:
    """Rows of the test split by class, of the classes that are drawn."""
    c = session.dataset.test.labels
    return [np.flatnonzero(c == label) for label in np.unique(c)[:_MOST_ROWS]]


def _first_of(session: Session) -> str:
    """The end of a title if not every class is drawn."""
    return shown.first_of(len(session.dataset.seen_classes), _MOST_ROWS, "classes")


def _beside_test_images(
    session: Session,
    before: np.ndarray,
    images: np.ndarray,
    after: np.ndarray | None = None,
    *,
    title: str,
    row_labels: list[str] | tuple[str, ...] = (),
    column_labels: list[str],
) -> Figure:
    """A table of decoded images, with a column of test images on the left or on both sides."""
    parts, labels, breaks = [before, images], ["test", *column_labels], [1]
    if after is not None:
        parts, labels, breaks = [*parts, after], [*labels, "test"], [1, 1 + images.shape[1]]
    return drawing.image_grid(
        _pictures(session, np.concatenate(parts, axis=1)),
        title=title,
        row_labels=row_labels,
        column_labels=labels,
        breaks=breaks,
    )


def _signed(values: jax.Array) -> list[str]:
    """Numbers as text, with a true minus sign."""
    return [f"{float(value):g}".replace("-", "−") for value in values]
