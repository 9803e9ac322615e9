"""Distances in feature space against references, and models whose sample quality is known."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from cvae_jax import data, likelihoods, quality
from cvae_jax.config import Config
from cvae_jax.dataset import DataError, Split, unit
from experiments import quality as judging
from experiments.cli import UserError

RNG = np.random.default_rng(0)
STEPS = 500  # of the classifiers here


# Fréchet distance


def with_moments(mean, deviation, n=50, seed=0):
    """Features whose mean and unbiased covariance are exactly these, the covariance diagonal."""
    z = np.random.default_rng(seed).normal(size=(n, len(mean)))
    z = np.linalg.qr(z - z.mean(axis=0))[0] * np.sqrt(n - 1)
    return z * np.asarray(deviation) + np.asarray(mean)


def test_frechet_distance_of_diagonal_gaussians():
    (m, s), (n, t) = (([1.0, -2.0, 0.5], [1.0, 3.0, 0.1]), ([0.0, 2.0, 0.5], [2.0, 0.5, 0.0]))
    x, y = with_moments(m, s), with_moments(n, t, n=70, seed=1)
    expected = np.sum((np.array(m) - n) ** 2) + np.sum((np.array(s) - t) ** 2)
    np.testing.assert_allclose(quality.frechet_distance(x, y), expected, rtol=1e-12)


def test_frechet_distance_agrees_with_a_matrix_root():
    x, y = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)), RNG.normal(size=(90, 6)) + 1.0
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b).real)
    np.testing.assert_allclose(quality.frechet_distance(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [5, 500])  # fewer than dimensions: singular covariances
def test_frechet_distance_of_a_set_and_itself_is_0(n):
    x = 10 * RNG.normal(size=(n, 20)).astype(np.float32)
    assert quality.frechet_distance(x, x) <= 1e-9
    assert quality.frechet_distance(x, x[::-1]) <= 1e-9


def test_frechet_distance_knows_no_axes_order_or_origin():
    x, y = RNG.normal(size=(40, 7)), 2 * RNG.normal(size=(15, 7))
    distance = quality.frechet_distance(x, y)
    rotation = np.linalg.qr(RNG.normal(size=(7, 7)))[0]
    np.testing.assert_allclose(quality.frechet_distance(y, x), distance, rtol=1e-9)
    np.testing.assert_allclose(quality.frechet_distance(x @ rotation + 3, y @ rotation + 3), distance, rtol=1e-9)
    np.testing.assert_allclose(quality.frechet_distance(3 * x, 3 * y), 9 * distance, rtol=1e-9)


def test_frechet_distance_of_what_is_not_finite_is_nan():
    x = np.ones((4, 2))
    assert np.isnan(quality.frechet_distance(x, np.full((4, 2), np.inf)))


# Kernel distance


def test_kernel_distance_agrees_with_a_loop_over_pairs(monkeypatch):
    monkeypatch.setattr(quality, "_KERNEL_ROWS", 4)
    x, y = RNG.normal(size=(9, 3)), RNG.normal(size=(6, 3)) + 0.5

    def k(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    expected = (
        np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    np.testing.assert_allclose(quality.kernel_distance(x, y), expected, rtol=1e-12)


def test_kernel_distance_has_no_bias():
    x = RNG.normal(size=(300, 2, 10, 4))
    same = [quality.kernel_distance(a, b) for a, b in x]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(len(same))
    # k(x, y) = (xᵀy/d + 1)³ of points at 0 and at 1: 1 + 8 − 2.
    np.testing.assert_allclose(quality.kernel_distance(np.zeros((5, 4)), np.ones((3, 4))), 7.0)


# Diversity


def test_diversity_of_real_images_is_1_and_of_one_image_0():
    real, c = RNG.normal(size=(60, 5)) * np.arange(1, 61)[:, None], np.arange(60) % 3
    np.testing.assert_allclose(quality.diversity(real, c, real, c), 1.0)
    np.testing.assert_allclose(quality.diversity(real[c], c, real, c), 0.0)
    np.testing.assert_allclose(quality.diversity(-2 * real, c, real, c), 2.0)


def test_diversity_leaves_out_classes_without_two_real_images_that_differ():
    c = np.array([0, 0, 1, 1, 2, 2])
    real, real_c = np.array([[0.0], [4.0], [1.0], [5.0], [5.0]]), np.array([0, 0, 1, 2, 2])
    np.testing.assert_allclose(quality.diversity(np.arange(6.0)[:, None], c, real, real_c), [0.25])


# Models whose decoder is known


class Memory(nn.Module):
    """Decodes z to a remembered image of class c, picked by the first latent. Its parameters are the images."""

    shape: tuple
    capacity: int = 2
    config: Config = Config(likelihood="gaussian", binarize="none")

    @property
    def likelihood(self):
        return likelihoods.likelihood(self.config)

    @nn.compact
    def decode(self, z, c, mask):
        images = self.param("images", nn.initializers.zeros, self.shape)
        which = jnp.floor(jax.scipy.stats.norm.cdf(z[:, 0]) * images.shape[1]).astype(jnp.int32)
        return images[c, jnp.minimum(which, images.shape[1] - 1)]


@pytest.fixture(scope="module")
def grey(digits):
    """Digits with floating pixels: real and generated images then share one compiled program."""
    dataset = data.load(Config(binarize="none"), data_dir=None, cache_dir=None)

    def floating(split):
        return Split(unit(split.x, dataset.x_max), split.c)

    splits = {name: floating(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(dataset, **splits, x_max=1.0)


@pytest.fixture(scope="module")
def judge(grey):
    return quality.appoint_judge(grey, quality.train_classifier(grey, num_steps=STEPS))


@pytest.fixture(scope="module")
def judged(judge, grey):
    """What the judge says of a decoder of real images, of one image per class, and of one that ignores c."""
    images = np.stack([grey.train.x[grey.train.c == label][:100] for label in range(10)])
    decoders = {
        "real": images,
        "collapsed": np.broadcast_to(images[:, :1], images.shape),
        "wrong": np.roll(images, 1, axis=0),
    }
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(quality, "_NUM_IMAGES", 1000)
        return {
            name: quality.sample_quality(
                judge,
                Memory(images.shape),
                {"params": {"images": jnp.asarray(images)}},
                jnp.ones(2, bool),
                num_steps=STEPS,
            )
            for name, images in decoders.items()
        }


def test_the_judge_is_good(judge):
    assert judge.accuracy >= 0.95


def test_real_images_score_as_real(judged, judge):
    real = judged["real"]
    assert real["classifier_test_accuracy"] == judge.accuracy
    assert real["conditional_accuracy"] >= 0.95
    assert real["classification_accuracy_score"] >= 0.93
    assert 0.85 < real["lowest_class_diversity"] <= real["diversity"] < 1.15
    assert real["classifier_frechet_distance"] < 2 * real["real_frechet_distance"]
    assert real["judged"] == "means of p(x|z,c)"


def test_a_collapsed_decoder_does_not_score_well(judged):
    real, collapsed = judged["real"], judged["collapsed"]
    assert collapsed["conditional_accuracy"] >= 0.8
    assert collapsed["diversity"] < 1e-6
    assert collapsed["classification_accuracy_score"] < real["classification_accuracy_score"] - 0.1
    for name in ("classifier_frechet_distance", "classifier_kernel_distance"):
        assert collapsed[name] > 3 * abs(real[name])


def test_a_decoder_that_takes_the_wrong_class_is_found_out(judged):
    real, wrong = judged["real"], judged["wrong"]
    assert wrong["conditional_accuracy"] <= 0.05
    assert wrong["lowest_class_accuracy"] <= wrong["conditional_accuracy"]
    assert wrong["classification_accuracy_score"] <= 0.05
