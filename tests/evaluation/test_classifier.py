"""The classifier that judges samples: its training and its batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.data.examples import Examples
from cvae_jax.evaluation import classifier as classifiers
from cvae_jax.evaluation.classifier import Classifier, Scores

KEY = jax.random.key(0)


def stripes(n, seed=0):
    """Images of one bright row, class 0, or column, class 1, in noise."""
    rng = np.random.default_rng(seed)
    c = np.arange(n) % 2
    x = rng.integers(0, 60, size=(n, 8, 8, 1))
    for image, label, at in zip(x, c, rng.integers(8, size=n), strict=True):
        image[(at, slice(None)) if label == 0 else (slice(None), at)] += 150
    return Examples(jnp.asarray(x, jnp.uint8), jnp.asarray(c, jnp.int32), jnp.float32(255))


@pytest.fixture(scope="module")
def fitted():
    """A function from the number of steps to the variables."""
    return lambda **kwargs: classifiers.fit(Classifier(2), stripes(200), stripes(60, 1), KEY, **kwargs)


def test_it_learns(fitted):
    test = stripes(101, 2)
    scores = classifiers.scores(Classifier(2), fitted(num_steps=250), test)
    assert np.mean(classifiers.correct(scores, test.c)) > 0.95


def test_training_repeats_bit_for_bit(fitted):
    for one, two in zip(*(jax.tree.leaves(fitted(num_steps=30)) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_scores_do_not_depend_on_the_other_images(fitted):
    classifier, many, params = Classifier(2), stripes(251), fitted(num_steps=30)
    scores = classifiers.scores(classifier, params, many)
    assert scores.features.shape == (251, classifiers.FEATURES)
    few = many.replace(x=many.x[-3:], c=many.c[-3:])
    for some, all_of_them in zip(classifiers.scores(classifier, params, few), scores, strict=True):
        np.testing.assert_allclose(some, all_of_them[-3:], rtol=1e-5, atol=1e-6)


def test_correct_compares_the_likeliest_class_with_the_label():
    scores = Scores(jnp.zeros((2, 1)), jnp.array([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]]))
    assert classifiers.correct(scores, jnp.array([1, 2])).tolist() == [True, False]


@pytest.mark.parametrize(("accuracy_so_far", "keeps"), [(-1.0, "new"), (1.5, "old")])
def test_the_parameters_of_the_best_validation_are_kept(accuracy_so_far, keeps):
    classifier, train, validation = Classifier(2), stripes(200), stripes(60, 1)
    state = classifiers._init(classifier, train, KEY, 30).replace(best_accuracy=jnp.float32(accuracy_so_far))
    old = jax.tree.map(np.asarray, state.params)
    state = classifiers._train_and_validate(classifier, state, train, validation, KEY, 30)
    assert int(state.step) == 30
    kept = {"new": state.params, "old": old}[keeps]
    for one, two in zip(jax.tree.leaves(state.best_params), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(jax.tree.leaves(state.params)[0], jax.tree.leaves(old)[0])
