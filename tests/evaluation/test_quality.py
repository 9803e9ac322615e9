"""Distances in feature space against references, and models whose sample quality is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import unchecked
from scipy.linalg import sqrtm

from cvae_jax.conditions import Label
from cvae_jax.data import reading
from cvae_jax.data.dataset import Split, unit
from cvae_jax.data.settings import Data
from cvae_jax.errors import DataError, UserError
from cvae_jax.evaluation import distances, quality
from cvae_jax.likelihoods import Bernoulli, Gaussian
from cvae_jax.model import Model
from cvae_jax.runs.run import Run
from cvae_jax.training.config import Config, from_flat
from experiments.reports import quality as judging

RNG = np.random.default_rng(0)
STEPS = 1000  # of the classifiers here


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
    np.testing.assert_allclose(distances.frechet_distance(x, y), expected, rtol=1e-12)


def test_frechet_distance_agrees_with_a_matrix_root():
    x, y = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)), RNG.normal(size=(90, 6)) + 1.0
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b).real)
    np.testing.assert_allclose(distances.frechet_distance(x, y), expected, rtol=1e-10)


@pytest.mark.parametrize("n", [5, 500])  # fewer than dimensions: singular covariances
def test_frechet_distance_of_a_set_and_itself_is_0(n):
    x = 10 * RNG.normal(size=(n, 20)).astype(np.float32)
    assert distances.frechet_distance(x, x) <= 1e-9
    assert distances.frechet_distance(x, x[::-1]) <= 1e-9


def test_frechet_distance_knows_no_axes_order_or_origin():
    x, y = RNG.normal(size=(40, 7)), 2 * RNG.normal(size=(15, 7))
    distance = distances.frechet_distance(x, y)
    rotation = np.linalg.qr(RNG.normal(size=(7, 7)))[0]
    np.testing.assert_allclose(distances.frechet_distance(y, x), distance, rtol=1e-9)
    np.testing.assert_allclose(
        distances.frechet_distance(x @ rotation + 3, y @ rotation + 3), distance, rtol=1e-9
    )
    np.testing.assert_allclose(distances.frechet_distance(3 * x, 3 * y), 9 * distance, rtol=1e-9)


def test_frechet_distance_of_what_is_not_finite_is_nan():
    x = np.ones((4, 2))
    assert np.isnan(distances.frechet_distance(x, np.full((4, 2), np.inf)))


# Kernel distance


def test_kernel_distance_agrees_with_a_loop_over_pairs(monkeypatch):
    monkeypatch.setattr(distances, "_ROWS_AT_ONCE", 4)
    x, y = RNG.normal(size=(9, 3)), RNG.normal(size=(6, 3)) + 0.5

    def k(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    expected = (
        np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    np.testing.assert_allclose(distances.kernel_distance(x, y), expected, rtol=1e-12)


def test_kernel_distance_has_no_bias():
    x = RNG.normal(size=(300, 2, 10, 4))
    same = [distances.kernel_distance(a, b) for a, b in x]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(len(same))
    # k(x, y) = (xᵀy/d + 1)³ of points at 0 and at 1: 1 + 8 − 2.
    np.testing.assert_allclose(distances.kernel_distance(np.zeros((5, 4)), np.ones((3, 4))), 7.0)


# Precision and recall


def test_precision_and_recall_agree_with_their_definition(monkeypatch):
    monkeypatch.setattr(distances, "_ROWS_AT_ONCE", 4)
    real, generated = RNG.normal(size=(9, 2)), 0.7 * RNG.normal(size=(9, 2)) + 0.4

    def among(point, others):
        radii = [sorted(np.linalg.norm(other - others, axis=1))[2] for other in others]
        return any(np.linalg.norm(point - o) <= r for o, r in zip(others, radii, strict=True))

    expected = (
        np.mean([among(point, real) for point in generated]),
        np.mean([among(point, generated) for point in real]),
    )
    assert 0 < min(expected) < max(expected) < 1
    np.testing.assert_allclose(distances.precision_recall(real, generated, k=2), expected, rtol=1e-12)


def test_what_is_dropped_costs_recall_and_what_is_invented_precision():
    modes = np.repeat([[0.0, 0.0], [50.0, 0.0]], 100, axis=0)
    real = modes + RNG.normal(size=(200, 2))
    dropped = distances.precision_recall(real, RNG.normal(size=(200, 2)))
    assert dropped.precision > 0.9
    assert dropped.recall <= 0.5
    invented = modes + RNG.normal(size=(200, 2))
    invented[100:] += 50.0
    assert distances.precision_recall(real, invented).precision <= 0.5
    assert distances.precision_recall(real, real) == (1.0, 1.0)
    assert distances.precision_recall(real, np.repeat(real[:1], 200, axis=0)) == (1.0, 1 / 200)


def test_sets_of_different_size_are_not_compared():
    for n, m in ((10, 9), (3, 3)):
        with (
            unchecked(),
            pytest.raises(ValueError, match=f"as many real as generated images, > 3, got {n} and {m}"),
        ):
            distances.compare(np.zeros((n, 2)), np.zeros((m, 2)))


# Diversity


def test_diversity_of_real_images_is_1_and_of_one_image_0():
    real, c = RNG.normal(size=(60, 5)) * np.arange(1, 61)[:, None], np.arange(60) % 3
    np.testing.assert_allclose(distances.diversity(real, c, real, c), 1.0)
    np.testing.assert_allclose(distances.diversity(real[c], c, real, c), 0.0)
    np.testing.assert_allclose(distances.diversity(-2 * real, c, real, c), 2.0)


def test_diversity_leaves_out_classes_without_two_real_images_that_differ():
    c = np.array([0, 0, 1, 1, 2, 2])
    real, real_c = np.array([[0.0], [4.0], [1.0], [5.0], [5.0]]), np.array([0, 0, 1, 2, 2])
    np.testing.assert_allclose(distances.diversity(np.arange(6.0)[:, None], c, real, real_c), [0.25])


# Models whose decoder is known


@dataclasses.dataclass(frozen=True)
class Memory(Model):
    """Decodes z to a remembered image of class c, picked by the first latent. Its parameters are the images."""

    likelihood = Gaussian()
    condition = Label(10)
    shape, capacity = (8, 8, 1), 2
    flat_latents = True

    def generate(self, params, c, keys, temperature=1.0):
        return temperature * jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)

    def decode(self, params, z, c):
        which = jnp.floor(jax.scipy.stats.norm.cdf(z[:, 0]) * params.shape[1]).astype(jnp.int32)
        return params[c, jnp.minimum(which, params.shape[1] - 1)]

    def mean(self, outputs):
        return jax.vmap(self.likelihood.mean)(outputs)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """Digits with floating pixels: real and generated images then share one compiled program."""
    dataset = reading.load(
        Data(binarize="none"),
        None,
        Bernoulli(),
        data_dir=None,
        cache_dir=tmp_path_factory.mktemp("cache"),
    )

    def floating(split):
        return Split(unit(split.x, dataset.x_max), split.c)

    splits = {name: floating(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(dataset, **splits, x_max=1.0)


@pytest.fixture(scope="module")
def judge(grey):
    return quality.make_judge(grey, quality.train_classifier(grey, num_steps=STEPS))


@pytest.fixture(scope="module")
def judged(judge, grey):
    """What the judge says of a decoder of real images, of one image per class, and of one that ignores c."""
    images = np.stack([grey.train.x[grey.train.c == label][:100] for label in range(10)])
    decoders = {
        "real": images,
        "collapsed": np.broadcast_to(images[:, :1], images.shape),
        "wrong": np.roll(images, 1, axis=0),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "_NUM_IMAGES", 1000)
        return {name: quality_of(judge, images, STEPS) for name, images in decoders.items()}


def quality_of(judge, images, num_steps):
    with jax.numpy_dtype_promotion("standard"):
        return quality.sample_quality(judge, Memory(), jnp.asarray(images), num_steps=num_steps)


@pytest.mark.slow
def test_a_perfect_model_scores_what_real_images_score(grey, monkeypatch):
    """Of a judge that has learned nothing: distances of equally many images are alike, whatever the features."""
    monkeypatch.setattr(quality, "_NUM_IMAGES", 1000)
    classifier = quality.Classifier(grey.num_classes)
    params = classifier.init(jax.random.key(0), jnp.zeros((1, *grey.shape)))
    judge = quality.make_judge(grey, params)
    n = min(len(grey.validation), len(grey.test))
    assert len(grey.validation) != len(grey.test)
    assert len(judge.compared) == len(judge.others_c) == n
    scores = quality_of(judge, np.stack([grey.train.x[grey.train.c == k][:100] for k in range(10)]), 1)
    assert scores["compared_images"] == n
    assert scores["precision_recall_k"] == 3
    assert scores["classifier_frechet_distance"] == pytest.approx(scores["real_frechet_distance"], rel=0.5)
    for name in ("precision", "recall"):
        assert scores[name] == pytest.approx(scores[f"real_{name}"], abs=0.1)


@pytest.mark.slow
def test_the_judge_is_good(judge):
    assert judge.accuracy >= 0.95


@pytest.mark.slow
def test_real_images_score_as_real(judged, judge):
    real = judged["real"]
    assert real["classifier_test_accuracy"] == judge.accuracy
    assert real["conditional_accuracy"] >= 0.95
    assert real["classification_accuracy_score"] >= 0.93
    assert 0.85 < real["lowest_class_diversity"] <= real["diversity"] < 1.15
    assert real["classifier_frechet_distance"] == pytest.approx(real["real_frechet_distance"], rel=0.5)
    assert real["precision"] > 0.7
    assert real["recall"] > 0.7
    assert real["judged"] == "means of p(x|z,c)"


@pytest.mark.slow
def test_a_collapsed_decoder_does_not_score_well(judged):
    real, collapsed = judged["real"], judged["collapsed"]
    assert collapsed["conditional_accuracy"] >= 0.8
    assert collapsed["diversity"] < 1e-6
    assert collapsed["classification_accuracy_score"] < real["classification_accuracy_score"] - 0.1
    for name in ("classifier_frechet_distance", "classifier_kernel_distance"):
        assert collapsed[name] > 3 * abs(real[name])
    assert collapsed["recall"] < 0.2


@pytest.mark.slow
def test_a_decoder_that_takes_the_wrong_class_is_found_out(judged):
    wrong = judged["wrong"]
    assert wrong["conditional_accuracy"] <= 0.05
    assert wrong["lowest_class_accuracy"] <= wrong["conditional_accuracy"]
    assert wrong["classification_accuracy_score"] <= 0.05


def test_the_judge_sees_draws_where_the_data_are_binary(grey):
    def sees_draws(x, likelihood):
        split = Split(x, grey.train.c)
        return quality.uses_draws(dataclasses.replace(grey, train=split), likelihood)

    assert sees_draws(np.round(grey.train.x), Bernoulli())
    assert not sees_draws(grey.train.x, Bernoulli())
    assert not sees_draws(np.round(grey.train.x), Gaussian())


def test_one_class_cannot_be_judged(grey):
    one = dataclasses.replace(grey, train=Split(grey.train.x, np.zeros_like(grey.train.c)))
    with pytest.raises(DataError, match="one label only, expected at least 2"):
        quality.require_classes(one)


# Files


@pytest.fixture
def trained_classifiers(monkeypatch):
    """The datasets that a classifier has been trained for; the classifiers themselves have learned nothing."""
    datasets = []

    def init(dataset, *, seed):
        datasets.append(dataset)
        key = jax.random.key(len(datasets))
        return jax.tree.map(lambda a: jax.random.normal(key, a.shape), quality.abstract_classifier(dataset))

    monkeypatch.setattr(quality, "train_classifier", init)
    monkeypatch.setattr(quality, "make_judge", lambda dataset, params, *, seed: (dataset, params))
    return datasets


def run_of(config):
    return Run("train", (config,))


def test_a_classifier_is_trained_once_per_dataset(trained_classifiers, tmp_path):
    dataset, first = judging.label_judge(run_of(Config()), tmp_path)
    _, again = judging.label_judge(
        run_of(from_flat(network="conv", likelihood="gaussian", binarize="none")), tmp_path
    )
    assert len(trained_classifiers) == 1
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not set(np.unique(dataset.test.x)) <= {0, 16}  # as stored, though the run binarizes

    rng = np.random.default_rng(0)
    file = tmp_path / "digits.npz"  # another dataset of that name
    np.savez(file, x_train=rng.uniform(size=(300, 8, 8)), c_train=np.arange(300) % 2)
    other, _ = judging.label_judge(run_of(from_flat(dataset=str(file))), tmp_path)
    assert len(trained_classifiers) == 2
    assert trained_classifiers[1] is other


def test_judges_of_several_seeds_are_kept_side_by_side(trained_classifiers, tmp_path):
    judges = [judging.label_judge(run_of(Config()), tmp_path, seed)[1] for seed in (0, 1, 0)]
    assert len(trained_classifiers) == 2
    first, second, again = (jax.tree.leaves(judge)[0] for judge in judges)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


def test_several_judges_are_reported_by_mean_and_spread():
    records = [{"recall": recall, "compared_images": 5, "judged": "means"} for recall in (0.1, 0.4, 0.5)]
    record = judging.over_judges(records)
    assert record == {
        "recall": pytest.approx(1 / 3), "recall_judge_sd": pytest.approx(np.std([0.1, 0.4, 0.5], ddof=1)),
        "compared_images": 5, "judged": "means",
    }  # fmt: skip
    assert judging.over_judges(records[:1]) == records[0]


def test_judges_of_different_seeds_differ(grey):
    first, again, second = (
        quality.train_classifier(grey, seed=seed, num_steps=1)["params"]["Dense_0"]["kernel"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != second).mean() > 0.9


@pytest.mark.parametrize("damage", ["missing", "cut", "another shape"])
def test_a_damaged_classifier_is_trained_again(trained_classifiers, tmp_path, damage):
    judging.label_judge(run_of(Config()), tmp_path)
    (file,) = (tmp_path / "classifiers").iterdir()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        arrays = dict(np.load(file))
        np.savez(file, **{name: a[:1] for name, a in arrays.items()})
    judging.label_judge(run_of(Config()), tmp_path)
    judging.label_judge(run_of(Config()), tmp_path)
    assert len(trained_classifiers) == 2


def test_inception_features_are_read(tmp_path):
    real, generated = RNG.normal(size=(4, 2048)), RNG.normal(size=(3, 2048)).astype(np.float32)
    np.savez(tmp_path / "features.npz", real=real, generated=generated)
    for read, written in zip(
        judging.read_inception_features(tmp_path / "features.npz"), (real, generated), strict=True
    ):
        np.testing.assert_array_equal(read, written)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has no array real; it holds nothing"),
        ({"real": np.ones((3, 2048))}, "has no array generated; it holds real"),
        ({"real": np.ones((3, 64))}, r"real has shape \(3, 64\), expected \(n, 2048\)"),
        ({"real": np.ones(2048)}, r"real has shape \(2048,\), expected"),
        ({"real": np.ones((1, 2048))}, r"real has shape \(1, 2048\), expected .* n ≥ 2"),
        ({"real": np.full((2, 2048), np.nan)}, "expected finite floating numbers"),
        ({"real": np.ones((2, 2048), int)}, "real is int64, expected finite floating numbers"),
    ],
)
def test_features_of_another_kind_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "features.npz", **arrays)
    with pytest.raises(UserError, match=message):
        judging.read_inception_features(tmp_path / "features.npz")


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "features.npz").write_bytes(content)
    with pytest.raises(UserError, match="expected an .npz" if content is None else "cannot be read as .npz"):
        judging.read_inception_features(tmp_path / "features.npz")
