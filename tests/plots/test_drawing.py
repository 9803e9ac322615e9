"""Posteriors of a split, classes compared at one z, and the figures they are drawn in."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import member, of_digits, stacked
from scipy import stats
from sklearn.datasets import load_digits

from cvae_jax.conditions import Vector
from cvae_jax.data.examples import on_device
from cvae_jax.errors import DataError, SettingError, UserError
from cvae_jax.evaluation import posteriors, sampling
from cvae_jax.losses import standard_normal_kl
from cvae_jax.nn.latent import Gaussian
from cvae_jax.plots import drawing, latents
from cvae_jax.priors import Conditional
from experiments.pictures import chosen_of

Z = jnp.array([[0.3, -1.0, 2.0, 0.0, 0.0], [-2.0, 1.0, 0.5, 0.0, 0.0]])


@pytest.fixture(scope="module")
def one():
    """A model with room for 5 latents, and the parameters of a member of 3."""
    model = of_digits(5)
    return model, member(stacked(model, (5, 3)), 1)


@pytest.fixture(scope="module")
def q(one, digits):
    return posteriors.encode_examples(*one, on_device(digits.test, digits.x_max))


# Classes compared


def test_a_soft_label_of_one_class_is_its_label(one):
    model, params = one
    c = jnp.array([4, 7])
    hard, soft = (sampling.decode_mean(model, params, Z, each) for each in (c, jax.nn.one_hot(c, 10)))
    np.testing.assert_array_equal(hard, soft)


def test_walks_between_labels_include_both_ends(one):
    model, params = one
    images = sampling.interpolate_labels(model, params, Z[0], jnp.int32(4), jnp.int32(7), steps=5)
    assert images.shape == (5, 8, 8, 1)
    weights = np.zeros((3, 10), np.float32)
    weights[[0, 1, 1, 2], [4, 4, 7, 7]] = [1.0, 0.5, 0.5, 1.0]
    expected = sampling.decode_mean(model, params, Z[jnp.array([0, 0, 0])], jnp.asarray(weights))
    np.testing.assert_allclose(images[::2], expected, atol=1e-6)
    ends = sampling.decode_mean(model, params, Z[jnp.array([0, 0])], jnp.array([4, 7]))
    np.testing.assert_allclose(images[jnp.array([0, 4])], ends, atol=1e-6)
    assert len({image.tobytes() for image in np.asarray(images)}) == 5


def test_a_row_across_labels_is_one_z(one):
    model, params = one
    c = jnp.array([7, 0, 3])
    images = sampling.across_labels(model, params, Z, c)
    assert images.shape == (2, 3, 8, 8, 1)
    for row, z in zip(images, Z, strict=True):
        expected = sampling.decode_mean(model, params, jnp.stack([z, z, z]), c)
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert (jnp.abs(images[0] - images[1]).max(axis=(1, 2, 3)) > 1e-4).all()
    np.testing.assert_array_equal(images, sampling.across_labels(model, params, Z.at[:, 3:].set(5.0), c))


def test_a_model_without_a_condition_has_no_classes_to_compare():
    model, c = of_digits(2, condition=None), jnp.arange(3)
    for compare in (
        partial(sampling.across_labels, model, {}, jnp.zeros((1, 2)), c),
        partial(sampling.interpolate_labels, model, {}, jnp.zeros(2), c[0], c[1], steps=3),
    ):
        with pytest.raises(SettingError, match="condition is none, expected label"):
            compare()


# Posteriors of a split


def test_posteriors_are_those_of_the_examples(one, q, digits):
    model, params = one
    n = len(digits.test)
    assert n % 250
    assert q.mean.shape == q.logvar.shape == (n, 5)
    x, c = on_device(digits.test, digits.x_max).take(jnp.array([0, 249, 250, n - 1]))
    few = jax.jit(model.encode)(params, x, c)
    rows = jnp.array([0, 249, 250, n - 1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[rows], b, atol=1e-5), q, few)


def test_the_latents_information_sums_to_the_rate(one, q, digits):
    kl = posteriors.kl_per_latent(*one, on_device(digits.test, digits.x_max))
    np.testing.assert_allclose(kl.sum(), jnp.mean(jax.vmap(standard_normal_kl)(q.mean, q.logvar)), rtol=1e-5)
    np.testing.assert_array_equal(kl[3:], 0.0)
    order = posteriors.by_information(kl, one[0].latent_mask(one[1]))
    assert sorted(order) == [0, 1, 2]
    assert (np.diff(kl[order]) <= 0).all()


def test_information_is_measured_against_the_models_own_prior(digits):
    model = dataclasses.replace(of_digits(2), prior=Conditional())
    params, examples = member(stacked(model, (2,)), 0), on_device(digits.test, digits.x_max)
    x, c = examples.take(jnp.arange(len(examples)))
    found = posteriors.kl_per_latent(model, params, examples)
    expected = model.infer(params, x, c, jax.random.split(jax.random.key(1), len(x))).kl
    np.testing.assert_allclose(found, jnp.mean(expected, axis=0), rtol=1e-4)
    q = model.encode(params, x, c)
    other = jnp.mean(jax.vmap(standard_normal_kl)(q.mean, q.logvar))
    assert abs(float(found.sum()) - float(other)) > 1e-3


def test_the_histogram_is_the_mean_of_normal_ones():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(0, 1, (50, 2)), rng.normal(-1, 1, (50, 2))
    edges = np.array([-4.0, -1.0, 0.0, 0.5, 4.0])
    q = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(logvar, jnp.float32))
    below = stats.norm.cdf(edges[:, None, None], mean, np.exp(logvar / 2)).mean(axis=1)
    found = posteriors.aggregate_histogram(q, jnp.asarray(edges, jnp.float32))
    np.testing.assert_allclose(found, np.diff(below, axis=0).T, atol=1e-6)


def test_masked_latents_lie_as_the_prior(q):
    edges = jnp.linspace(-3.0, 3.0, 7)
    shares = posteriors.aggregate_histogram(q, edges)
    np.testing.assert_allclose(shares[4], np.diff(stats.norm.cdf(edges)), atol=1e-6)
    assert np.abs(shares[0] - shares[4]).max() > 1e-3


def test_projections_show_distances():
    x, c = load_digits(return_X_y=True)
    x = np.float32(x[c < 2][:60])
    found, again = posteriors.project(x), posteriors.project(x)
    _, s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.pca), np.abs((x - x.mean(axis=0)) @ vt[:2].T), atol=1e-2)
    np.testing.assert_allclose(found.explained, s[:2] ** 2 / np.sum(s**2), rtol=1e-4)
    np.testing.assert_array_equal(found.tsne, again.tsne)
    zeros, ones = (found.tsne[c[c < 2][:60] == k] for k in (0, 1))
    distance = np.linalg.norm(zeros.mean(axis=0) - ones.mean(axis=0))
    assert distance > 2 * max(zeros.std(axis=0).max(), ones.std(axis=0).max())


def test_projections_of_few_points_and_of_one_latent():
    line = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    found = posteriors.project(line)
    assert found.pca.shape == found.tsne.shape == (8, 2)
    np.testing.assert_allclose(np.abs(found.pca[:, 0]), np.abs(line[:, 0]), atol=1e-6)
    assert np.isfinite(found.tsne).all()
    with pytest.raises(DataError, match="holds 3 examples, expected at least 4"):
        posteriors.project(line[:3])


# Figures


def test_breaks_widen_the_gap_before_a_column():
    images = np.zeros((1, 3, 4, 8, 1), np.float32)
    assert drawing.tile(images).shape == (4, 26, 1)
    canvas = drawing.tile(images, breaks=[1, 2])
    assert canvas.shape == (4, 30, 1)
    assert np.flatnonzero(canvas[0, :, 0]).tolist() == [8, 9, 10, 19, 20, 21]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_blocks_are_drawn_each_in_its_place(count):
    images = np.zeros((count, 2, 3, 4, 4, 1), np.float32)
    figure = drawing.image_blocks(
        images, title="t", block_titles=[f"b{i}" for i in range(count)], row_labels=["r", "s"]
    )
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == count
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= 1
        assert 0 <= box.y0 < box.y1 <= 1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_every_latent_has_its_panel_against_the_prior():
    shares = np.full((7, 4), 0.25)
    figure = latents.aggregate_posterior(shares, np.linspace(-4, 4, 5), titles=[f"z{i}" for i in range(7)])
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [f"z{i}" for i in range(7)]
    for axes in shown:
        (stairs,) = axes.patches
        np.testing.assert_allclose(stairs.get_data().values, 0.125)
        (line,) = axes.lines
        np.testing.assert_allclose(line.get_ydata(), stats.norm.pdf(line.get_xdata()), atol=1e-6)


def test_the_legend_names_the_classes_that_occur():
    points, c = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3 + 1
    names = [f"class {i}" for i in range(25)]
    figure = latents.scatter([("a", points), ("b", -points)], c, class_names=names, title="t")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names[1:4]
    for axes in figure.axes:
        (dots,) = axes.collections
        assert len(dots.get_offsets()) == 30
        assert len(np.unique(dots.get_facecolors(), axis=0)) == 3


# Of which data


def test_what_a_dataset_lacks_is_not_drawn(digits):
    def run(dataset):
        return SimpleNamespace(data=dataset.description, examples=dataset.test)

    few = run(dataclasses.replace(digits, test=digits.test.take(np.arange(3))))
    unlabelled = run(dataclasses.replace(digits, condition=Vector(2)))
    digits = run(digits)
    drawable = ("samples", "interpolations", "latents")
    assert chosen_of(digits, drawable, []) == list(drawable)
    assert chosen_of(digits, drawable, ["latents"]) == ["latents"]
    assert chosen_of(few, drawable, []) == ["samples", "interpolations"]
    assert chosen_of(unlabelled, drawable, []) == ["samples"]
    for dataset, name, lacking in (
        (few, "latents", "4 test examples"),
        (unlabelled, "interpolations", "labels of its examples"),
    ):
        with pytest.raises(
            UserError, match=f"only is {name}, expected another of digits, which lacks {lacking}"
        ):
            chosen_of(dataset, drawable, [name])


# x of any shape


def test_a_vector_is_a_line_from_the_bottom_to_the_top():
    (image,) = drawing.pictures(np.linspace(0, 1, 32)[None, :, None], (32, 1))[..., 0]
    dark = image < 0.5
    assert image.shape == (32, 32)
    assert dark.any(axis=0).all()
    middles = [rows.mean() for rows in (np.flatnonzero(column) for column in dark.T)]
    assert middles == sorted(middles, reverse=True)
    assert dark[-1, 0]
    assert dark[0, -1]


def test_values_beyond_the_limits_are_at_the_edges():
    beyond = np.repeat([-2.0, 4.0], 5).reshape(2, 5, 1)
    edges = np.repeat([0.0, 1.0], 5).reshape(2, 5, 1)
    found = drawing.pictures(beyond, (5, 1), (0.0, 2.0))
    np.testing.assert_array_equal(found, drawing.pictures(edges, (5, 1)))


def test_images_stay_as_they_are_unless_their_range_is_another():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 7, 3))
    np.testing.assert_array_equal(drawing.pictures(x, (6, 7, 3)), x)
    np.testing.assert_allclose(drawing.pictures(x, (6, 7, 3), (-1.0, 3.0)), (x + 1) / 4)


def test_a_volume_is_its_slices_in_rows():
    x = np.arange(4 * 2 * 3, dtype=float).reshape(1, 4, 2, 3, 1) / 24
    (image,) = drawing.pictures(x, (4, 2, 3, 1))[..., 0]
    assert image.shape == (5, 7)
    np.testing.assert_allclose(image[:2, :3], x[0, 0, ..., 0], rtol=1e-6)
    np.testing.assert_allclose(image[3:, 4:], x[0, 3, ..., 0], rtol=1e-6)
    assert (image[2] == 0.5).all()


def test_a_long_series_is_drawn_wider():
    assert drawing.pictures(np.zeros((1, 160, 2, 1)), (160, 2, 1)).shape == (1, 160, 20, 1)
    assert drawing.pictures(np.zeros((1, 4, 160, 3)), (4, 160, 3)).shape == (1, 20, 160, 3)
