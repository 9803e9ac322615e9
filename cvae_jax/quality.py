"""How good samples of a conditional model are, as a classifier of the project's own sees them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from cvae_jax import classifier as classifiers
from cvae_jax import evaluation, sampling
from cvae_jax.classifier import Classifier
from cvae_jax.config import Config
from cvae_jax.cvae import CVAE
from cvae_jax.dataset import DataError, Dataset, Split
from cvae_jax.evaluation import Examples
from cvae_jax.randomness import Stream, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

_NUM_IMAGES = 10_000
_MOST_TRAINING_IMAGES = 60_000
_KERNEL_ROWS = 1_000


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
    blocks = (x[i : i + _KERNEL_ROWS] for i in range(0, len(x), _KERNEL_ROWS))
    return sum(float(np.sum((block @ y.T / x.shape[1] + 1.0) ** 3)) for block in blocks)


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
      accuracy: on the test split, share of images.
      features: of at most 10,000 test images, shape (n, 64).
      c: their labels, shape (n,).
      real_distance: Fréchet distance between test and validation images: what real images score.
    """

    dataset: Dataset
    classifier: Classifier
    params: PyTree
    accuracy: float
    features: Float[np.ndarray, "n f"]
    c: Int[np.ndarray, " n"]
    real_distance: float


def require_classes(dataset: Dataset) -> None:
    """Refuse a dataset that has nothing to tell apart.

    Raises:
      DataError: if all labels are the same.
    """
    if len(np.unique(dataset.train.labels)) < 2:
        raise DataError(
            f"{dataset.name}: c_train has one label only, expected at least 2 to judge samples by their class"
        )


def abstract_classifier(dataset: Dataset) -> PyTree:
    """Shapes and types of the variables of a dataset's classifier."""
    init = Classifier(dataset.num_classes).init
    return jax.eval_shape(init, _classifier_key(), jnp.zeros((1, *dataset.shape)))


def train_classifier(dataset: Dataset, *, num_steps: int = classifiers.NUM_STEPS) -> PyTree:
    """The variables of a classifier of a dataset's real images, chosen on validation."""
    train, validation = (evaluation.on_device(s, dataset.x_max) for s in (dataset.train, dataset.validation))
    classifier = Classifier(dataset.num_classes)
    return classifiers.fit(classifier, train, validation, _classifier_key(), num_steps=num_steps)


def appoint_judge(dataset: Dataset, params: PyTree) -> Judge:
    """Look at the real images once, for all models that will be judged.

    Args:
      dataset: its splits as they are stored, not binarized.
      params: the classifier's, see `train_classifier`.

    Returns:
      The judge.
    """
    classifier = Classifier(dataset.num_classes)

    def look_at(split: Split) -> tuple[np.ndarray, float]:
        examples = evaluation.on_device(split, dataset.x_max)
        scores = classifiers.scores(classifier, params, examples)
        return np.asarray(scores.features), _share(classifiers.correct(scores, examples.c))

    rows = _some(len(dataset.test), _NUM_IMAGES)
    features, accuracy = look_at(dataset.test)
    others, _ = look_at(dataset.validation.take(_some(len(dataset.validation), _NUM_IMAGES)))
    return Judge(
        dataset, classifier, params, accuracy, features[rows], dataset.test.labels[rows],
        frechet_distance(features[rows], others),
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
) -> dict[str, float | str]:
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
      - `classifier_frechet_distance`, `classifier_kernel_distance`: between 10,000 samples and test images, classes in
        the same shares, in the judge's features; `real_frechet_distance` is the first between validation and
        test images.
      - `judged`: what the judge was shown.

    References:
      Ravuri & Vinyals, Classification Accuracy Score for Conditional Generative Models, 2019.
    """
    dataset, classifier = judge.dataset, judge.classifier
    keys = jax.random.split(stream(jax.random.key(0), Stream.QUALITY), 4)
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

    like_test = samples(keys[1], np.resize(judge.c, _NUM_IMAGES))
    features = np.asarray(classifiers.scores(classifier, judge.params, like_test).features)

    train_c, validation_c = (
        split.labels[_some(len(split), _MOST_TRAINING_IMAGES)]
        for split in (dataset.train, dataset.validation)
    )
    taught = classifiers.fit(
        classifier,
        samples(keys[2], train_c),
        samples(keys[3], validation_c),
        _classifier_key(),
        num_steps=num_steps,
    )
    test = evaluation.on_device(dataset.test, dataset.x_max)
    return {
        "classifier_test_accuracy": judge.accuracy,
        "conditional_accuracy": float(hits.mean()),
        "lowest_class_accuracy": float(hits.mean(axis=1).min()),
        "diversity": float(spreads.mean()) if len(spreads) else float("nan"),
        "lowest_class_diversity": float(spreads.min()) if len(spreads) else float("nan"),
        "classification_accuracy_score": _share(
            classifiers.correct(classifiers.scores(classifier, taught, test), test.c)
        ),
        "classifier_frechet_distance": frechet_distance(judge.features, features),
        "real_frechet_distance": judge.real_distance,
        "classifier_kernel_distance": kernel_distance(judge.features, features),
        "judged": "draws of p(x|z,c)" if draws else "means of p(x|z,c)",
    }


def _classifier_key() -> Key[Array, ""]:
    """One key for all classifiers, so that two of them differ by what they were trained on alone."""
    return stream(jax.random.key(0), Stream.CLASSIFIER)


def _some(n: int, most: int) -> Int[np.ndarray, " m"]:
    """All rows of n, or so many drawn at random, always the same."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _share(hits: Bool[Array, " n"]) -> float:
    return float(np.mean(np.asarray(hits)))
