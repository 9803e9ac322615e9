"""Figures of one trained member: samples, reconstructions, and pictures of its latents."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Split, stratified_split, unit
from cvae_jax.data.examples import on_device
from cvae_jax.evaluation import posteriors, sampling
from cvae_jax.nn.latent import Gaussian
from cvae_jax.plots import drawing, latents
from cvae_jax.rng import Stream, evaluation_key, root_key, stream
from cvae_jax.runs.session import RunModel, Session, Trained
from experiments.reports import shown

_COLUMNS = 12
_OTHERS = 10
_MOST_ROWS = 16
_MOST_PANELS = 64
_LATENTS_PER_CLASS = 8
_PROJECTED = 2000
_EDGES = np.linspace(-4.0, 4.0, 65)


def samples_figure(session: RunModel, trained: Trained) -> Figure:
    """Samples from the prior: a row per class, or per condition of some test examples."""
    chosen = shown.conditions(session, most_classes=_MOST_ROWS, most_others=_OTHERS)
    c = jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a), _COLUMNS, axis=0), chosen.c)
    key = stream(root_key(0), Stream.SAMPLES)
    images = sampling.generate(session.model, trained.best.params, key, c)
    return drawing.image_grid(
        _pictures(session, np.asarray(images).reshape(chosen.rows, _COLUMNS, *session.data.shape)),
        title=", ".join(filter(None, ("samples from the prior", chosen.title))),
        row_labels=chosen.names,
    )


def reconstructions_figure(session: RunModel, trained: Trained) -> Figure:
    """Test images above their reconstructions, with the classes alternating."""
    count = min(len(session.examples), 3 * _COLUMNS)
    columns = min(_COLUMNS, count)
    few = session.examples.take(np.arange(count // columns * columns))
    x = unit(few.x, session.data.x_max)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(evaluation_key(), jnp.arange(len(few)))
    c = jax.tree.map(jnp.asarray, few.c)
    images = np.asarray(sampling.reconstruct(session.model, trained.best.params, jnp.asarray(x), c, keys))
    pairs = np.stack([a.reshape(-1, columns, *session.data.shape) for a in (x, images)], axis=1)
    return drawing.image_grid(
        _pictures(session, pairs.reshape(-1, columns, *session.data.shape)),
        title="test examples above their reconstructions",
        row_labels=("test", "mean") * len(pairs),
    )


def _pictures(session: RunModel, x: Any) -> np.ndarray:
    """Examples, shape (..., *shape), as images."""
    return drawing.pictures(np.asarray(x), session.data.shape, session.data.limits)


def _units(session: RunModel) -> str:
    return "" if session.model.prior.standard else " standard deviations of the prior"


def traversals_figure(session: RunModel, trained: Trained, label: int | None = None) -> Figure:
    """Each latent from −3 to 3 with the others at 0, the most informative first, under one condition.

    Args:
      session: the run.
      trained: its member.
      label: the class; of other conditions, and where it is None, the middle one is drawn.
    """
    if label is None:
        chosen = shown.conditions(session, most_classes=session.data.num_classes, most_others=1)
        row = chosen.rows // 2
        c, name = (
            jax.tree.map(lambda a: jnp.asarray(a[row]), chosen.c),
            (chosen.names or ("",) * chosen.rows)[row],
        )
    else:
        c, name = jnp.int32(label), session.data.class_names[label]
    condition = f"class {name}" if isinstance(session.model.condition, Label) else name
    in_use = informative_latents(session, trained)
    moved = in_use[:_MOST_ROWS]
    values = jnp.linspace(-3.0, 3.0, _COLUMNS + 1)
    images = sampling.traverse(
        session.model,
        trained.best.params,
        jnp.zeros(session.model.capacity),
        c,
        latents=jnp.array([each.latent for each in moved]),
        values=values,
    )
    title = f"each latent from −3 to 3{_units(session)}, the most informative first"
    return drawing.image_grid(
        _pictures(session, images),
        title=", ".join(filter(None, (title, condition)))
        + shown.first_of(len(in_use), _MOST_ROWS, "latents"),
        row_labels=[f"z{each.latent}" for each in moved],
        column_labels=_signed(values),
    )


class Informative(NamedTuple):
    """A latent and how informative it is.

    Attributes:
      latent: its index.
      kl: see `kl_per_latent`, nats.
    """

    latent: int
    kl: float


def informative_latents(session: RunModel, trained: Trained, split: Split | None = None) -> list[Informative]:
    """The latents in use, the most informative first.

    Args:
      session: the run.
      trained: its member.
      split: examples to average over; the recorded ones if it is None.
    """
    examples = on_device(session.examples if split is None else split, session.data.x_max)
    kl = posteriors.kl_per_latent(session.model, trained.best.params, examples)
    order = posteriors.by_information(kl, session.model.latent_mask(trained.best.params))
    return [Informative(int(i), float(kl[i])) for i in order]


def posterior(session: RunModel, trained: Trained, split: Split) -> Gaussian:
    """q(z|x,c) of a split."""
    return posteriors.encode_examples(
        session.model, trained.best.params, on_device(split, session.data.x_max)
    )


def traversals_by_class_figure(session: RunModel, trained: Trained) -> Figure:
    """The most informative latents from −3 to 3 with the others at 0: a table per class."""
    data = session.data
    moved = informative_latents(session, trained)[:_LATENTS_PER_CLASS]
    values = jnp.linspace(-3.0, 3.0, 7)
    classes = data.seen_classes[:_MOST_ROWS]
    start, which = jnp.zeros(session.model.capacity), jnp.array([each.latent for each in moved])
    blocks = [
        sampling.traverse(
            session.model, trained.best.params, start, jnp.int32(label), latents=which, values=values
        )
        for label in classes
    ]
    return drawing.image_blocks(
        _pictures(session, np.stack([np.asarray(block) for block in blocks])),
        title=f"the most informative latents from −3 to 3{_units(session)}, the others at 0{_first_of(session)}",
        block_titles=[f"class {data.class_names[label]}" for label in classes],
        row_labels=[f"z{each.latent}" for each in moved],
        column_labels=_signed(values),
    )


def interpolations_figure(session: RunModel, trained: Trained) -> Figure:
    """Straight lines between posterior means of two test images of one class; without a condition, of two classes."""
    few, by_class = session.examples, _rows_by_class(session)
    q = posterior(session, trained, few)
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
            jnp.int32(few.labels[a]),
            steps=_COLUMNS - 1,
        )
        for a, b in ends
    ]
    x = unit(few.x[np.array(ends)], session.data.x_max)
    return _beside_test_images(
        session, x[:, :1], np.stack([np.asarray(walk) for walk in walks]), x[:, 1:],
        title=f"straight lines in z between two test examples{_first_of(session)}",
        column_labels=[f"{t:.3g}" for t in np.linspace(0, 1, _COLUMNS - 1)],
    )  # fmt: skip


def label_interpolations_figure(session: RunModel, trained: Trained) -> Figure:
    """A straight line from the embedding of a test image's class to that of the next class, under the image's z."""
    few, z = _one_of_each_class(session, trained)
    classes = few.labels
    following = np.roll(classes, -1)
    walks = [
        sampling.interpolate_labels(
            session.model, trained.best.params, each, jnp.int32(a), jnp.int32(b), steps=_COLUMNS - 1
        )
        for each, a, b in zip(z, classes, following, strict=True)
    ]
    names = session.data.class_names
    return _beside_test_images(
        session,
        unit(few.x, session.data.x_max)[:, None],
        np.stack([np.asarray(walk) for walk in walks]),
        title=f"straight lines between the embeddings of two classes, under a test example's z{_first_of(session)}",
        row_labels=[f"{names[a]} → {names[b]}" for a, b in zip(classes, following, strict=True)],
        column_labels=[f"{t:.3g}" for t in np.linspace(0, 1, _COLUMNS - 1)],
    )  # fmt: skip


def styles_figure(session: RunModel, trained: Trained) -> Figure:
    """The z of a test image of each class, decoded under every class: a z per row, a class per column."""
    data, (few, z) = session.data, _one_of_each_class(session, trained)
    classes = np.array(data.seen_classes[:_MOST_ROWS])
    images = sampling.across_labels(session.model, trained.best.params, z, jnp.asarray(classes))
    return _beside_test_images(
        session, unit(few.x, data.x_max)[:, None], np.asarray(images),
        title=f"the z of a test example under every class: a z per row{_first_of(session)}",
        column_labels=[data.class_names[k] for k in classes],
    )  # fmt: skip


def aggregate_posterior_figure(session: Session, trained: Trained) -> Figure:
    """The aggregate posterior of each latent over the test split and N(0, 1), the most informative latents first."""
    q = posterior(session, trained, session.dataset.test)
    first = informative_latents(session, trained, session.dataset.test)[:_MOST_PANELS]
    shares = np.asarray(posteriors.aggregate_histogram(q, jnp.asarray(_EDGES, jnp.float32)))
    return latents.aggregate_posterior(
        shares[[each.latent for each in first]],
        _EDGES,
        titles=[f"z{each.latent}: {each.kl:.2f} nats" for each in first],
    )


def scatter_figure(session: Session, trained: Trained) -> Figure:
    """Posterior means of the test split by class, by PCA and by t-SNE."""
    dataset = session.dataset
    q = posterior(session, trained, dataset.test)
    rows, title = np.arange(len(dataset.test)), "posterior means of the test split"
    if len(rows) > _PROJECTED:
        _, rows = stratified_split(dataset.test.labels, _PROJECTED / len(rows))
        title = f"posterior means of {len(rows):,} examples of the test split"
    in_use = np.flatnonzero(session.model.latent_mask(trained.best.params))
    projected = posteriors.project(np.asarray(q.mean)[rows][:, in_use])
    shares = " and ".join(f"{share:.0%}" for share in projected.explained)
    return latents.scatter(
        [(f"PCA, {shares} of the variance", projected.pca), ("t-SNE", projected.tsne)],
        dataset.test.labels[rows],
        class_names=dataset.class_names,
        title=f"{title}, {len(in_use)} latents",
    )


def _one_of_each_class(session: RunModel, trained: Trained) -> tuple[Split, jax.Array]:
    """A test example of each class that is drawn, and the means of their posteriors."""
    few = session.examples.take(np.array([rows[0] for rows in _rows_by_class(session)]))
    return few, posterior(session, trained, few).mean


def _rows_by_class(session: RunModel) -> list[np.ndarray]:
    """Rows of the recorded test examples by class, of the classes that are drawn."""
    c = session.examples.labels
    return [np.flatnonzero(c == label) for label in np.unique(c)[:_MOST_ROWS]]


def _first_of(session: RunModel) -> str:
    """The end of a title if not every class is drawn."""
    return shown.first_of(len(session.data.seen_classes), _MOST_ROWS, "classes")


def _beside_test_images(
    session: RunModel,
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
