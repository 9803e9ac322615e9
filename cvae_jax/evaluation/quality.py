"""How good samples of a conditional model are, as a classifier of the project's own sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist, pdist

from cvae_jax.config import Config
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import DataError
from cvae_jax.evaluation import bounds, sampling
from cvae_jax.evaluation import classifier as classifiers
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.evaluation.classifier import Classifier
from cvae_jax.model import CVAE
from cvae_jax.rng import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

_NUM_IMAGES = 10_000
_MOST_TRAINING_IMAGES = 60_000
_ROWS_AT_ONCE = 1_000
# The k of precision and recall that the paper chose.
_NEIGHBOUR = 3


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Fréchet distance between Gaussians of the same means and covariances as two sets of features.

    ‖μₓ − μᵧ‖² + tr(Σₓ + Σᵧ − 2 (Σₓ Σᵧ)^½)

    With Σₓ = A Aᵀ and Σᵧ = B Bᵀ the trace of the root is the sum of the singular values of AᵀB, which needs no root
    of a matrix that is not symmetric.

    Args:
      x: features, n ≥ 2.
      y: features, m ≥ 2.

    Returns:
      ≥ 0, in squared units of the features; NaN if any of them is not finite. "FID" names it for Inception's only.

    Example:
      >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])), 6)  # (1 − 3)² + (√2 − √8)²
      6.0

    References:
      Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
      equation 6.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    (mean_x, a), (mean_y, b) = _moments(x), _moments(y)
    root = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    distance = np.sum((mean_x - mean_y) ** 2) + np.sum(a**2) + np.sum(b**2) - 2.0 * root
    return max(float(distance), 0.0)


def _moments(x: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """The mean, and a factor A of the unbiased covariance A Aᵀ."""
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    return mean, vectors * np.sqrt(np.maximum(values, 0.0))


def kernel_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy under the cubic kernel.

    mean of k(xᵢ, xⱼ) over i ≠ j + mean of k(yᵢ, yⱼ) over i ≠ j − 2 mean of k(xᵢ, yⱼ),  k(x, y) = (xᵀy/d + 1)³

    Over all pairs rather than averaged over random subsets, so that it needs no random numbers.

    Args:
      x: features, n ≥ 2.
      y: features, m ≥ 2.

    Returns:
      0 in expectation for two sets from one distribution, so that it may be negative.

    References:
      Bińkowski et al., Demystifying MMD GANs, 2018, equation 4 and section 4.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)

    def within(x: np.ndarray) -> float:
        diagonal = np.sum((np.sum(x * x, axis=1) / x.shape[1] + 1.0) ** 3)
        return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))

    return float(within(x) + within(y) - 2.0 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """The cubic kernel summed over all pairs, so many rows at a time."""
    return sum(float(np.sum((rows @ y.T / x.shape[1] + 1.0) ** 3)) for rows in _blocks(x))


class PrecisionRecall(NamedTuple):
    """Two shares of images, from 0 to 1.

    Attributes:
      precision: of the generated images, those that lie among the real ones: are samples realistic?
      recall: of the real images, those that lie among the generated ones: are all kinds of images generated?
    """

    precision: float
    recall: float


def precision_recall(
    real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "n d"], *, k: int = _NEIGHBOUR
) -> PrecisionRecall:
    """Improved precision and recall.

    A point lies among a set if its distance to some member is at most the distance of this member to its k-th nearest
    neighbour within the set.

    Args:
      real: features of real images, n > k.
      generated: features of as many generated images: both shares depend on n.
      k: which neighbour's distance is the radius.

    Returns:
      Precision and recall.

    Raises:
      ValueError: if the two sets differ in size, or n ≤ k.

    Example:
      >>> real = np.array([[0.0], [1.0], [2.0], [9.0]])
      >>> precision_recall(real, np.array([[0.5], [1.5], [1.6], [1.7]]), k=1)  # real radii 1, 1, 1, 7
      PrecisionRecall(precision=1.0, recall=0.5)

    References:
      Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019, section 2.
    """
    if len(real) != len(generated) or len(real) <= k:
        raise ValueError(
            f"expected as many real as generated images, > {k}, got {len(real)} and {len(generated)}"
        )
    real, generated = real.astype(np.float64), generated.astype(np.float64)

    def share_among(points: np.ndarray, others: np.ndarray) -> float:
        # A point's own distance is the first, 0.
        radii = np.concatenate(
            [np.partition(cdist(rows, others), k, axis=1)[:, k] for rows in _blocks(others)]
        )
        return float(
            np.mean(np.concatenate([(cdist(rows, others) <= radii).any(1) for rows in _blocks(points)]))
        )

    return PrecisionRecall(share_among(generated, real), share_among(real, generated))


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    return (x[i : i + _ROWS_AT_ONCE] for i in range(0, len(x), _ROWS_AT_ONCE))


class Comparison(NamedTuple):
    """How two sets of equally many images differ in the judge's features.

    Attributes:
      frechet: see `frechet_distance`.
      kernel: see `kernel_distance`.
      precision, recall: see `precision_recall`.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float


def compare(real: Float[np.ndarray, "n d"], others: Float[np.ndarray, "n d"]) -> Comparison:
    """Compare features of real images with those of as many others.

    All four depend on n: the Fréchet distance of two sets from one distribution is about proportional to d/n. Only
    comparisons of equal n can stand beside each other.

    Args:
      real: features of real images.
      others: features of as many other images, generated or real.

    Returns:
      Distances, and precision and recall of the others.

    Raises:
      ValueError: if the two sets differ in size.
    """
    shares = precision_recall(real, others)
    return Comparison(frechet_distance(real, others), kernel_distance(real, others), *shares)


def diversity(
    features: Float[np.ndarray, "n d"],
    c: Int[np.ndarray, " n"],
    real_features: Float[np.ndarray, "m d"],
    real_c: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " k"]:
    """Mean distance between two images of one class, as a share of the same among real images.

    Args:
      features: of generated images.
      c: their labels.
      real_features: of real images.
      real_c: their labels.

    Returns:
      A value for each class of `c` that has two real images that differ: 0 where all generated images of the class
      are the same, 1 where they differ as real ones do.

    Example:
      >>> real, c = np.array([[0.0], [4.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
      >>> diversity(np.array([[3.0], [1.0], [7.0], [7.0]]), c, real, c).tolist()
      [0.5, 0.0]
    """

    def spread(features: np.ndarray, c: np.ndarray, label: int) -> float:
        mine = features[c == label].astype(np.float64)
        return float(pdist(mine).mean()) if len(mine) > 1 else 0.0

    real = {label: spread(real_features, real_c, label) for label in np.unique(c)}
    return np.array([spread(features, c, label) / scale for label, scale in real.items() if scale > 0.0])


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier trained on real images, and what it makes of others that no model has made.

    Attributes:
      dataset: the three splits as they are stored, not binarized.
      classifier, params: trained on the training split, chosen on validation.
      seed: of its training, and of the classifiers that learn from samples.
      accuracy: on the test split, share of images.
      features: of at most 10,000 test images, shape (n, 64).
      c: their labels, shape (n,).
      compared: features of the test images that others are compared with, as many as `others_c`, shape (m, 64).
      others_c: labels of m validation images.
      real: these validation images compared with the test images: what a perfect model would score.
    """

    dataset: Dataset
    classifier: Classifier
    params: PyTree
    seed: int
    accuracy: float
    features: Float[np.ndarray, "n f"]
    c: Int[np.ndarray, " n"]
    compared: Float[np.ndarray, "m f"]
    others_c: Int[np.ndarray, " m"]
    real: Comparison


def require_classes(dataset: Dataset) -> None:
    """Refuse a dataset whose samples cannot be judged by their class.

    Raises:
      DataError: if all labels are the same, or validation or test are too small to be compared, or the images of every
        class of test are the same.
    """
    if len(np.unique(dataset.train.labels)) < 2:
        raise DataError(
            f"{dataset.name}: c_train has one label only, expected at least 2 to judge samples by their class"
        )
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        if len(split) <= _NEIGHBOUR:
            raise DataError(
                f"{dataset.name}: the {name} split holds {len(split)} images, expected at least {_NEIGHBOUR + 1} to "
                "compare samples with"
            )
    test = dataset.test
    classes = (test.x[test.labels == label] for label in np.unique(test.labels))
    if not any((x != x[:1]).any() for x in classes):
        raise DataError(
            f"{dataset.name}: no class of the test split holds two images that differ, expected one that does, to "
            "compare the diversity of samples with"
        )


def abstract_classifier(dataset: Dataset) -> PyTree:
    """Shapes and types of the variables of a dataset's classifier."""
    init = Classifier(dataset.num_classes).init
    return jax.eval_shape(init, _classifier_key(0), jnp.zeros((1, *dataset.shape)))


def train_classifier(dataset: Dataset, *, seed: int = 0, num_steps: int = classifiers.NUM_STEPS) -> PyTree:
    """The variables of a classifier of a dataset's real images, chosen on validation."""
    train, validation = (bounds.on_device(s, dataset.x_max) for s in (dataset.train, dataset.validation))
    classifier = Classifier(dataset.num_classes)
    return classifiers.fit(classifier, train, validation, _classifier_key(seed), num_steps=num_steps)


def appoint_judge(dataset: Dataset, params: PyTree, *, seed: int = 0) -> Judge:
    """Look at the real images once, for all models that will be judged.

    Args:
      dataset: its splits as they are stored, not binarized.
      params: the classifier's, see `train_classifier`.
      seed: that it was trained with.

    Returns:
      The judge.
    """
    classifier = Classifier(dataset.num_classes)

    def look_at(split: Split) -> tuple[np.ndarray, float]:
        examples = bounds.on_device(split, dataset.x_max)
        scores = classifiers.scores(classifier, params, examples)
        return np.asarray(scores.features), _share(classifiers.correct(scores, examples.c))

    rows = _some(len(dataset.test), _NUM_IMAGES)
    features, accuracy = look_at(dataset.test)
    m = min(len(dataset.validation), len(rows))
    others = dataset.validation.take(_some(len(dataset.validation), m))
    compared = features[_some(len(dataset.test), m)]
    return Judge(
        dataset, classifier, params, seed, accuracy, features[rows], dataset.test.labels[rows], compared,
        others.labels, compare(compared, look_at(others)[0]),
    )  # fmt: skip


def judges_draws(dataset: Dataset, config: Config) -> bool:
    """Whether samples are judged as draws of p(x|z,c): binary data under the Bernoulli likelihood; else as means."""
    x = dataset.train.x
    return config.likelihood == "bernoulli" and bool(((x == 0) | (x == dataset.x_max)).all())


def sample_quality(
    judge: Judge,
    model: CVAE,
    params: PyTree,
    latent_mask: Bool[Array, " z"],
    *,
    temperature: float = 1.0,
    num_steps: int = classifiers.NUM_STEPS,
) -> dict[str, float | int | str]:
    """Judge samples from the prior.

    The judge has learned from images as they are stored, and sees means of p(x|z,c): under `dynamic` and `static`
    binarization, too, the mean of a pixel is its grey level. Only where the stored images are binary themselves and
    the likelihood is Bernoulli does it see draws of p(x|z,c).

    Args:
      judge: see `appoint_judge`.
      model: a conditional model.
      params: its variables.
      latent_mask: the latents in use, shape (z,).
      temperature: of the samples, see `sampling.generate`.
      num_steps: updates of the classifier that learns from samples, as many as the judge's.

    Returns:
      - `classifier_test_accuracy`: of the judge, on real test images; all accuracies are shares of images.
      - `conditional_accuracy`: of 10,000 samples, as many of each class, those that the judge finds in the class asked
        for; `lowest_class_accuracy` that of the class where it is lowest.
      - `diversity`: see `diversity`, of these samples, averaged over classes; `lowest_class_diversity`.
      - `classification_accuracy_score`: accuracy on real test images of a classifier that differs from the judge in
        having been trained, and chosen, on samples only; as many of each class as the training split has, at most
        60,000.
      - `classifier_frechet_distance`, `classifier_kernel_distance`, `precision`, `recall`: of samples compared with
        test images, in the judge's features; `real_frechet_distance` and so on are those of validation images in
        place of the samples, which have the same labels. `compared_images` is the number of each: all of the smaller
        of the two splits, at most 10,000. `precision_recall_k` is which neighbour's distance counts.
      - `judged`: what the judge was shown.

    References:
      Ravuri & Vinyals, Classification Accuracy Score for Conditional Generative Models, 2019; and those of
      `frechet_distance`, `kernel_distance` and `precision_recall`.
    """
    dataset, classifier = judge.dataset, judge.classifier
    keys = jax.random.split(stream(root_key(0), Stream.QUALITY), 4)
    draws = judges_draws(dataset, model.config)

    def samples(key: Key[Array, ""], c: Int[np.ndarray, " n"]) -> Examples:
        latent_key, pixel_key = jax.random.split(key)
        x = sampling.generate(model, params, latent_key, jnp.asarray(c), latent_mask, temperature=temperature)
        x = jax.random.bernoulli(pixel_key, x).astype(x.dtype) if draws else x
        # Through the host, off the mesh that the model's parameters lie on: as the real images, for which the
        # classifier's programs are compiled.
        return Examples(jnp.asarray(np.asarray(x)), jnp.asarray(c), jnp.float32(1))

    classes = np.unique(dataset.train.labels)
    balanced = samples(keys[0], np.repeat(classes, -(-_NUM_IMAGES // len(classes))))
    scores = classifiers.scores(classifier, judge.params, balanced)
    hits = np.asarray(classifiers.correct(scores, balanced.c)).reshape(len(classes), -1)
    spreads = diversity(np.asarray(scores.features), np.asarray(balanced.c), judge.features, judge.c)

    like_real = samples(keys[1], judge.others_c)
    features = np.asarray(classifiers.scores(classifier, judge.params, like_real).features)
    generated = compare(judge.compared, features)

    train_c, validation_c = (
        split.labels[_some(len(split), _MOST_TRAINING_IMAGES)]
        for split in (dataset.train, dataset.validation)
    )
    taught = classifiers.fit(
        classifier,
        samples(keys[2], train_c),
        samples(keys[3], validation_c),
        _classifier_key(judge.seed),
        num_steps=num_steps,
    )
    test = bounds.on_device(dataset.test, dataset.x_max)
    return {
        "classifier_test_accuracy": judge.accuracy,
        "conditional_accuracy": float(hits.mean()),
        "lowest_class_accuracy": float(hits.mean(axis=1).min()),
        "diversity": float(spreads.mean()) if len(spreads) else float("nan"),
        "lowest_class_diversity": float(spreads.min()) if len(spreads) else float("nan"),
        "classification_accuracy_score": _share(
            classifiers.correct(classifiers.scores(classifier, taught, test), test.c)
        ),
        "classifier_frechet_distance": generated.frechet,
        "real_frechet_distance": judge.real.frechet,
        "classifier_kernel_distance": generated.kernel,
        "real_kernel_distance": judge.real.kernel,
        "precision": generated.precision,
        "real_precision": judge.real.precision,
        "recall": generated.recall,
        "real_recall": judge.real.recall,
        "precision_recall_k": _NEIGHBOUR,
        "compared_images": len(judge.compared),
        "judged": "draws of p(x|z,c)" if draws else "means of p(x|z,c)",
    }


def _classifier_key(seed: int) -> Key[Array, ""]:
    """One key for a judge and the classifiers of samples beside it: they differ by what they were trained on alone."""
    return stream(root_key(seed), Stream.CLASSIFIER)


def _some(n: int, most: int) -> Int[np.ndarray, " m"]:
    """All rows of n, or so many drawn at random, always the same."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _share(hits: Bool[Array, " n"]) -> float:
    return float(np.mean(np.asarray(hits)))
