"""Quality of a conditional model's samples, measured by a classifier that is trained on real images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.examples import Examples, on_device
from cvae_jax.errors import DataError
from cvae_jax.evaluation import classifier as classifiers
from cvae_jax.evaluation import sampling
from cvae_jax.evaluation.classifier import Classifier
from cvae_jax.evaluation.distances import NEIGHBOUR, Comparison, compare, diversity
from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.model import Model
from cvae_jax.nn.conv import require_image
from cvae_jax.rng import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

_NUM_IMAGES = 10_000
_MOST_TRAINING_IMAGES = 60_000


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier trained on real images, and its features of real images to compare samples with.

    Attributes:
      dataset: the three splits as they are stored, not binarized.
      classifier, params: trained on the training split; the variables are chosen on the validation split.
      seed: of its training, and of that of the classifiers that are trained on samples.
      accuracy: on the test split, fraction of images.
      features: of at most 10,000 test images, shape (n, 64).
      c: their labels, shape (n,).
      compared: features of the m test images that samples are compared with, shape (m, 64).
      others_c: labels of m validation images, shape (m,).
      real: these validation images compared with the test images: the numbers of a perfect model.
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
    """Refuse a dataset for which the quality of samples cannot be measured by class.

    Raises:
      DataError: if x is no image, all labels are equal, the validation or the test split is too small, or the test
        images of every class are all equal.
    """
    require_image(dataset.shape, "the quality of samples by class")
    if len(np.unique(dataset.train.labels)) < 2:
        raise DataError(
            f"{dataset.name}: c_train has one label only, expected at least 2 to judge samples by their class"
        )
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        if len(split) <= NEIGHBOUR:
            raise DataError(
                f"{dataset.name}: the {name} split holds {len(split)} images, expected at least {NEIGHBOUR + 1} to "
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
    """Shapes and types of the variables of a classifier of a dataset's images."""
    init = Classifier(dataset.num_classes).init
    return jax.eval_shape(init, _classifier_key(0), jnp.zeros((1, *dataset.shape)))


def train_classifier(dataset: Dataset, *, seed: int = 0, num_steps: int = classifiers.NUM_STEPS) -> PyTree:
    """Train a classifier of a dataset's real images; returns its variables, chosen on the validation split."""
    train, validation = (on_device(s, dataset.x_max) for s in (dataset.train, dataset.validation))
    classifier = Classifier(dataset.num_classes)
    return classifiers.fit(classifier, train, validation, _classifier_key(seed), num_steps=num_steps)


def make_judge(dataset: Dataset, params: PyTree, *, seed: int = 0) -> Judge:
    """Compute what the measures need from real images. This is done once, and used for all models.

    Args:
      dataset: its splits as they are stored, not binarized.
      params: variables of the classifier, see `train_classifier`.
      seed: that it was trained with.

    Returns:
      The judge.
    """
    classifier = Classifier(dataset.num_classes)

    def features_and_accuracy(split: Split) -> tuple[np.ndarray, float]:
        examples = on_device(split, dataset.x_max)
        scores = classifiers.scores(classifier, params, examples)
        return np.asarray(scores.features), _fraction(classifiers.correct(scores, examples.c))

    rows = _some(len(dataset.test), _NUM_IMAGES)
    features, accuracy = features_and_accuracy(dataset.test)
    m = min(len(dataset.validation), len(rows))
    others = dataset.validation.take(_some(len(dataset.validation), m))
    compared = features[_some(len(dataset.test), m)]
    return Judge(
        dataset, classifier, params, seed, accuracy, features[rows], dataset.test.labels[rows], compared,
        others.labels, compare(compared, features_and_accuracy(others)[0]),
    )  # fmt: skip


def uses_draws(dataset: Dataset, likelihood: Likelihood) -> bool:
    """Whether samples are draws of p(x|z,c): if data and likelihood are binary. Otherwise they are means."""
    x = dataset.train.x
    return likelihood.binary and bool(((x == 0) | (x == dataset.x_max)).all())


def sample_quality(
    judge: Judge,
    model: Model,
    params: PyTree,
    *,
    temperature: float = 1.0,
    num_steps: int = classifiers.NUM_STEPS,
) -> dict[str, float | int | str]:
    """Measure the quality of samples from the prior.

    The judge is trained on images as they are stored, and gets means of p(x|z,c): also under `dynamic` and `static`
    binarization the mean of a pixel is its grey level. Only if the stored images themselves are binary and the
    likelihood is Bernoulli does it get draws of p(x|z,c).

    Args:
      judge: see `make_judge`.
      model: a model conditioned on a label.
      params: its parameters.
      temperature: of the samples, see `sampling.generate`.
      num_steps: updates of the classifier that is trained on samples, as many as of the judge.

    Returns:
      - `classifier_test_accuracy`: of the judge on real test images; all accuracies are fractions of images.
      - `conditional_accuracy`: of 10,000 samples, equally many per class, the fraction that the judge assigns to the
        class of their condition; `lowest_class_accuracy` is that of the class where it is lowest.
      - `diversity`: see `distances.diversity`, of these samples, the mean over classes; `lowest_class_diversity`.
      - `classification_accuracy_score`: accuracy on real test images of a classifier like the judge that is trained,
        and chosen, on samples instead of real images; equally many per class as in the training split, at most 60,000.
      - `classifier_frechet_distance`, `classifier_kernel_distance`, `precision`, `recall`: of samples compared with
        test images, in the judge's features; `real_frechet_distance` and so on are those of validation images, which
        have the same labels as the samples. `compared_images` is the number of images on each side: all of the smaller
        of the two splits, at most 10,000. `precision_recall_k` is k of precision and recall.
      - `judged`: whether the judge got draws or means.

    References:
      Ravuri & Vinyals, Classification Accuracy Score for Conditional Generative Models, 2019; and those of
      `distances.frechet_distance`, `kernel_distance` and `precision_recall`.
    """
    keys = jax.random.split(stream(root_key(0), Stream.QUALITY), 4)
    draws = uses_draws(judge.dataset, model.likelihood)

    def samples(key: Key[Array, ""], c: Int[np.ndarray, " n"]) -> Examples:
        latent_key, pixel_key = jax.random.split(key)
        x = sampling.generate(model, params, latent_key, jnp.asarray(c), temperature=temperature)
        x = jax.random.bernoulli(pixel_key, x).astype(x.dtype) if draws else x
        # Copied to the host and back, which takes them off the mesh of the model's parameters: the classifier's
        # programs, compiled for real images, expect them on one device.
        return Examples(jnp.asarray(np.asarray(x)), jnp.asarray(c), jnp.float32(1))

    return {
        "classifier_test_accuracy": judge.accuracy,
        **_by_class(judge, lambda c: samples(keys[0], c)),
        "classification_accuracy_score": _accuracy_of_trained_on(
            judge, lambda c: samples(keys[2], c), lambda c: samples(keys[3], c), num_steps
        ),
        **_distances(judge, samples(keys[1], judge.others_c)),
        "judged": "draws of p(x|z,c)" if draws else "means of p(x|z,c)",
    }


def _by_class(judge: Judge, samples: Callable[[np.ndarray], Examples]) -> dict[str, float]:
    """Accuracy and diversity of samples, equally many per class."""
    classes = np.unique(judge.dataset.train.labels)
    balanced = samples(np.repeat(classes, -(-_NUM_IMAGES // len(classes))))
    scores = classifiers.scores(judge.classifier, judge.params, balanced)
    hits = np.asarray(classifiers.correct(scores, balanced.c)).reshape(len(classes), -1)
    spreads = diversity(np.asarray(scores.features), np.asarray(balanced.c), judge.features, judge.c)
    return {
        "conditional_accuracy": float(hits.mean()),
        "lowest_class_accuracy": float(hits.mean(axis=1).min()),
        "diversity": float(spreads.mean()) if len(spreads) else float("nan"),
        "lowest_class_diversity": float(spreads.min()) if len(spreads) else float("nan"),
    }


def _accuracy_of_trained_on(
    judge: Judge,
    train: Callable[[np.ndarray], Examples],
    validation: Callable[[np.ndarray], Examples],
    num_steps: int,
) -> float:
    """Accuracy on real test images of a classifier that is trained on samples with the labels of real images."""
    dataset, classifier = judge.dataset, judge.classifier
    train_c, validation_c = (
        split.labels[_some(len(split), _MOST_TRAINING_IMAGES)]
        for split in (dataset.train, dataset.validation)
    )
    params = classifiers.fit(
        classifier, train(train_c), validation(validation_c), _classifier_key(judge.seed), num_steps=num_steps
    )
    test = on_device(dataset.test, dataset.x_max)
    return _fraction(classifiers.correct(classifiers.scores(classifier, params, test), test.c))


def _distances(judge: Judge, samples: Examples) -> dict[str, float | int]:
    """Distances of samples, and of real validation images with the same labels, to test images."""
    features = np.asarray(classifiers.scores(judge.classifier, judge.params, samples).features)
    generated = compare(judge.compared, features)
    return {
        "classifier_frechet_distance": generated.frechet,
        "real_frechet_distance": judge.real.frechet,
        "classifier_kernel_distance": generated.kernel,
        "real_kernel_distance": judge.real.kernel,
        "precision": generated.precision,
        "real_precision": judge.real.precision,
        "recall": generated.recall,
        "real_recall": judge.real.recall,
        "precision_recall_k": NEIGHBOUR,
        "compared_images": len(judge.compared),
    }


def _classifier_key(seed: int) -> Key[Array, ""]:
    """The key of a judge and of the classifiers trained on samples: they only differ in what they are trained on."""
    return stream(root_key(seed), Stream.CLASSIFIER)


def _some(n: int, most: int) -> Int[np.ndarray, " m"]:
    """All n rows, or a random subset of them of size `most`, the same each time."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _fraction(hits: Bool[Array, " n"]) -> float:
    return float(np.mean(np.asarray(hits)))
