"""Datasets: splits, files of one's own and what is refused of them, binarization, TFDS."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from cvae_jax import data, sources
from cvae_jax.config import Config
from cvae_jax.dataset import DataError, stratified_split

SPLITS = ("train", "validation", "test")
GREY = {"likelihood": "gaussian", "binarize": "none"}
rng = np.random.default_rng(0)


def load(dataset, **fields):
    return data.load(
        Config(**({"dataset": str(dataset), "batch_size": 8} | fields)), data_dir=None, cache_dir=None
    )


def pixels(n=60, dtype=np.float32):
    grey = rng.uniform(size=(n, 6, 5, 1))
    return (255 * grey).astype(np.uint8) if dtype == np.uint8 else grey.astype(dtype)


def labels(n=60):
    return np.arange(n) % 3


@pytest.fixture
def npz(tmp_path):
    """A function that writes arrays, good ones unless others are given, and returns the file."""

    def write(**arrays):
        arrays = {"x_train": pixels(), "c_train": labels()} | arrays
        np.savez(tmp_path / "own.npz", **{name: a for name, a in arrays.items() if a is not None})
        return tmp_path / "own.npz"

    return write


def rows_of(split):
    return {x.tobytes() + c.tobytes() for x, c in zip(split.x, split.c, strict=True)}


# Digits


def test_digits_has_the_stated_sizes(digits):
    assert [len(getattr(digits, name)) for name in SPLITS] == [1318, 120, 359]
    assert digits.shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")


def test_digits_splits_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    dataset = load("digits", **GREY)
    parts = [rows_of(getattr(dataset, name)) for name in SPLITS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1797
    assert sum(getattr(dataset, name).x.sum(dtype=int) for name in SPLITS) == load_digits().images.sum()


def test_digits_splits_are_stratified(digits):
    shares = [np.bincount(getattr(digits, name).c, minlength=10) for name in SPLITS]
    total = sum(shares)
    for share, fraction in zip(shares, (1318 / 1797, 120 / 1797, 359 / 1797), strict=True):
        np.testing.assert_allclose(share, total * fraction, atol=1.5)


def test_digits_splits_do_not_depend_on_the_data_seed():
    first, second = (load("digits", data_seed=seed, **GREY) for seed in (0, 1))
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(first, name).x, getattr(second, name).x)
        np.testing.assert_array_equal(getattr(first, name).c, getattr(second, name).c)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("counts", [(50, 50), (1, 99), (7, 11, 13), (1, 1, 1, 1)])
def test_stratified_split_holds_out_every_class_in_proportion(counts, fraction):
    c = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    kept, held_out = stratified_split(c, fraction)
    assert sorted([*kept, *held_out]) == list(range(len(c)))
    quotas, most = np.bincount(c[held_out], minlength=len(counts)), np.array(counts) - 1
    assert (np.abs(quotas - np.minimum(fraction * np.array(counts), most)) < 1).all()
    if (quotas < most).all():
        assert len(held_out) == round(fraction * len(c))
    again = stratified_split(c, fraction)
    np.testing.assert_array_equal(held_out, again[1])


def test_stratified_split_leaves_every_class_an_example():
    c = np.array([0] * 10 + [1] + [2] * 2)
    kept, _ = stratified_split(c, 0.9)
    assert set(c[kept]) == {0, 1, 2}


def test_stratified_split_draws_within_a_class():
    _, held_out = stratified_split(np.zeros(1000, int), 0.5)
    assert 0.4 < np.mean(held_out < 500) < 0.6


# Files of one's own


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_npz_pixels_arrive(npz, dtype):
    x = pixels(dtype=dtype)
    dataset = load(npz(x_train=x), **GREY)
    assert [len(getattr(dataset, name)) for name in SPLITS] == [44, 4, 12]
    assert dataset.x_max == (255.0 if dtype == np.uint8 else 1.0)
    assert dataset.train.x.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    given = {image.tobytes() for image in x.astype(dataset.train.x.dtype)}
    assert {image.tobytes() for name in SPLITS for image in getattr(dataset, name).x} == given
    assert dataset.class_names == ("0", "1", "2")


def test_npz_keeps_its_own_validation_and_test(npz):
    own = {name: pixels(n) for name, n in zip(SPLITS, (30, 9, 12), strict=True)}
    arrays = {f"x_{name}": x for name, x in own.items()} | {f"c_{n}": labels(len(x)) for n, x in own.items()}
    dataset = load(npz(**arrays), **GREY)
    for name, x in own.items():
        np.testing.assert_array_equal(getattr(dataset, name).x, x)
        np.testing.assert_array_equal(getattr(dataset, name).c, labels(len(x)))


def test_npz_holds_validation_out_of_train_alone_beside_its_own_test(npz):
    test = pixels(9)
    dataset = load(npz(x_test=test, c_test=labels(9)), **GREY)
    assert [len(getattr(dataset, name)) for name in SPLITS] == [55, 5, 9]
    np.testing.assert_array_equal(dataset.test.x, test)


def test_npz_images_without_channels_get_one(npz):
    x = pixels()
    with_channel, without = load(npz(x_train=x)), load(npz(x_train=x[..., 0]))
    assert without.shape == (6, 5, 1)
    np.testing.assert_array_equal(with_channel.test.x, without.test.x)


def test_labels_may_be_absent_without_a_condition(npz):
    assert len(load(npz(c_train=None), condition="none").train) == 44


def factors_of(split):
    """The factors that `test_npz_factors_stay_with_their_images` gave each image: what its pixels say."""
    return np.stack([split.c, np.round(100 * split.x[:, 0, 0, 0]).astype(int)], axis=1)


@pytest.mark.parametrize("names", [None, ("kind", "corner")])
def test_npz_factors_stay_with_their_images(npz, names):
    x, test = pixels(), pixels(9)
    given = {"x_test": test, "c_test": labels(9)}
    for name, images in (("train", x), ("test", test)):
        given[f"factors_{name}"] = np.stack(
            [labels(len(images)), np.round(100 * images[:, 0, 0, 0]).astype(int)], axis=1
        )
    dataset = load(npz(x_train=x, **given, **({"factor_names": np.array(names)} if names else {})), **GREY)
    assert dataset.factor_names == (names or ("0", "1"))
    for name in SPLITS:
        split = getattr(dataset, name)
        np.testing.assert_array_equal(split.factors, factors_of(split))


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_binarization_keeps_factors(npz, binarize):
    dataset = load(npz(factors_train=np.stack([labels(), np.arange(60)], axis=1)), binarize=binarize)
    for name in SPLITS:
        split = getattr(dataset, name)
        np.testing.assert_array_equal(split.factors[:, 0], split.c)


def test_data_without_factors_has_no_names_of_them(npz):
    dataset = load(npz())
    assert dataset.factor_names == ()
    assert dataset.train.factors is None


def test_grey_values_outside_the_unit_interval_are_for_the_gaussian_alone(npz):
    path = npz(x_train=3.0 * pixels() - 1.0)
    load(path, **GREY)
    with pytest.raises(DataError, match=r"x_train lies in \[-\S+, \S+\], expected \[0, 1\].*bernoulli"):
        load(path)


BAD = {
    "no x_train": ({"x_train": None}, "has no x_train.* holds c_train"),
    "no c_train": ({"c_train": None}, "has no c_train"),
    "c_test alone": ({"c_test": labels()}, "c_test but no x_test"),
    "lengths": ({"c_train": labels(59)}, r"60 examples and c_train has shape \(59,\), expected \(60,\)"),
    "one-hot labels": ({"c_train": np.eye(60, dtype=int)}, r"c_train has shape \(60, 60\), expected \(60,\)"),
    "float labels": ({"c_train": labels() / 2}, "c_train is float64, expected whole numbers"),
    "negative labels": ({"c_train": labels() - 1}, "has label -1, expected labels ≥ 0"),
    "unseen": ({"x_test": pixels(4), "c_test": np.array([0, 1, 2, 7])}, "c_test has label 7, which c_train"),
    "int64 pixels": ({"x_train": pixels().astype(np.int64)}, "x_train is int64, expected uint8"),
    "vectors": ({"x_train": pixels().reshape(60, -1)}, r"x_train has shape \(60, 30\), expected \(n, H, W"),
    "test type": ({"x_test": pixels(4, np.uint8), "c_test": labels(4)}, "x_test is uint8, expected float32"),
    "test shape": ({"x_test": pixels(4)[:, :5], "c_test": labels(4)}, r"x_test has images .*\(5, 5, 1\)"),
    "tiny images": ({"x_train": pixels()[:, :3]}, r"images of \(3, 5\) pixels, expected at least 4"),
    "empty": ({"x_train": pixels(0), "c_train": labels(0)}, "train split is empty"),
    "too few to split": ({"x_train": pixels(3), "c_train": labels(3)}, "validation split is empty"),
    "factors of one split": (
        {"factors_train": np.zeros((60, 2), int), "x_test": pixels(9), "c_test": labels(9)},
        "has no factors_test",
    ),
    "too few factors": (
        {"factors_train": np.zeros((59, 2), int)},
        r"factors_train has shape \(59, 2\), expected \(60, f\)",
    ),
    "a single factor": ({"factors_train": labels()}, r"factors_train has shape \(60,\), expected \(60, f\)"),
    "float factors": (
        {"factors_train": np.zeros((60, 2))},
        "factors_train is float64, expected whole numbers",
    ),
    "factor names": (
        {"factors_train": np.zeros((60, 2), int), "factor_names": np.array(["x"])},
        "factor_names has 1 names",
    ),
    "objects": ({"x_train": np.array([None] * 60)}, "cannot be read as .npz with plain arrays"),
    "text": ({"x_train": np.array(["a"] * 60).reshape(60, 1, 1)}, "x_train is <U1, expected uint8"),
    "scalar": ({"x_train": np.float32(1)}, "x_train has shape"),
    "huge labels": ({"c_train": labels() + 2**40}, "c_train has labels from 1099511627776 to 1099511627778"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_named(npz, case):
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message):
        load(npz(**arrays))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fields", [{}, GREY], ids=["bernoulli", "gaussian"])
def test_the_example_that_is_not_finite_is_named(npz, value, fields):
    x = pixels(12)
    x[[5, 9], 2, 2] = value
    path = npz(x_test=x, c_test=labels(12))
    with pytest.raises(DataError, match=re.escape("x_test[5] has NaN or infinite pixels")):
        load(path, **fields)


def test_a_batch_larger_than_the_training_split_is_refused(npz):
    path = npz()
    assert len(load(path, batch_size=44).train) == 44
    with pytest.raises(DataError, match="batch_size is 45, expected at most the 44 examples"):
        load(path, batch_size=45)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz does not exist"):
        load(tmp_path / "none.npz")


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(npz, kept):
    path = npz()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load(path)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("start", [60, 120, 400])
def test_a_file_with_damaged_bytes_is_refused(tmp_path, start, value):
    path = tmp_path / "own.npz"
    np.savez_compressed(path, x_train=pixels(), c_train=labels())
    whole = bytearray(path.read_bytes())
    whole[start : start + 200] = bytes([value] * 200)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load(path)


@pytest.mark.parametrize("write", [lambda p: p.write_text("x_train"), lambda p: p.mkdir()])
def test_what_is_no_npz_is_refused(tmp_path, write):
    write(tmp_path / "own.npz")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load(tmp_path / "own.npz")


def test_a_single_array_is_refused(tmp_path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, pixels())
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load(tmp_path / "own.npz")


# Binarization


def binary(split):
    return set(np.unique(split.x)) <= {0, 16}


@pytest.mark.parametrize(
    ("binarize", "expected"),
    [("dynamic", (False, True, True)), ("static", (True, True, True)), ("none", (False, False, False))],
)
def test_which_splits_are_binary(binarize, expected):
    dataset = load("digits", binarize=binarize)
    assert tuple(binary(getattr(dataset, name)) for name in SPLITS) == expected


def test_pixels_follow_the_data_seed():
    first, again, other = (load("digits", binarize="static", data_seed=seed) for seed in (3, 3, 4))
    for name in SPLITS:
        a, b, c = (getattr(dataset, name).x for dataset in (first, again, other))
        np.testing.assert_array_equal(a, b)
        assert 0.05 < np.mean(a != c) < 0.5


def test_splits_are_binarized_with_noise_of_their_own(npz):
    grey = np.full((50, 6, 5), 0.5)
    path = npz(**{f"x_{n}": grey for n in SPLITS}, **{f"c_{n}": labels(50) for n in SPLITS})
    dataset = load(path, binarize="static")
    assert (dataset.train.x != dataset.validation.x).any()
    assert (dataset.test.x != dataset.validation.x).any()


def test_ones_are_as_frequent_as_the_grey_value_says():
    grey, drawn = load("digits", binarize="none").train.x, load("digits", binarize="static").train.x
    for level in range(17):
        ones = drawn[grey == level] / 16
        p = level / 16
        assert abs(ones.mean() - p) <= 4.5 * np.sqrt(p * (1 - p) / ones.size), level


# TFDS


def test_an_unknown_name_suggests_close_ones(tmp_path):
    with pytest.raises(DataError, match=r"unknown dataset 'fashion_mnits': did you mean fashion_mnist"):
        load("fashion_mnits")


@pytest.mark.parametrize("name", ["../mnist", "", "MNIST"])
def test_a_name_tfds_could_not_have_is_unknown(name):
    with pytest.raises(DataError, match="unknown dataset"):
        load(name)


def test_an_unprepared_dataset_names_the_command(tmp_path):
    with pytest.raises(DataError, match=rf"experiments.prepare --dataset=kmnist --data_dir={tmp_path}$"):
        sources.from_tfds("kmnist", tmp_path, tmp_path)


@pytest.fixture(scope="module")
def mnist(tfds_dir, cache_dir):
    return data.load(Config(dataset="mnist", **GREY), data_dir=tfds_dir, cache_dir=cache_dir)


def assert_same(dataset, other):
    for name in SPLITS:
        a, b = getattr(dataset, name), getattr(other, name)
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.c, b.c)


def test_mnist_has_the_stated_sizes(mnist):
    assert [len(getattr(mnist, name)) for name in SPLITS] == [55_000, 5_000, 10_000]
    assert mnist.shape == (28, 28, 1)
    assert mnist.train.x.dtype == np.uint8
    assert mnist.x_max == mnist.train.x.max() == 255
    assert np.bincount(mnist.test.c).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_allclose(mnist.train.x.mean() / 255, 0.1307, atol=2e-4)


def test_mnist_is_decoded_once(mnist, tfds_dir, cache_dir, monkeypatch):
    monkeypatch.delattr(sources, "_decode_tfds")
    assert_same(mnist, sources.from_tfds("mnist", tfds_dir, cache_dir))


@pytest.mark.parametrize("kept", [0, 1000, -1000])
def test_a_truncated_cache_is_rebuilt(mnist, tfds_dir, cache_dir, tmp_path, monkeypatch, kept):
    (whole,) = cache_dir.glob("mnist*.npz")
    with np.load(whole) as file:
        arrays = {name: file[name] for name in file.files if name != "source"}
    (tmp_path / whole.name).write_bytes(whole.read_bytes()[:kept])
    monkeypatch.setattr(sources, "_decode_tfds", lambda *args: arrays)
    assert_same(mnist, sources.from_tfds("mnist", tfds_dir, tmp_path))
    monkeypatch.delattr(sources, "_decode_tfds")
    assert_same(mnist, sources.from_tfds("mnist", tfds_dir, tmp_path))


class Builder:
    """What TFDS offers of a prepared dataset, without one: images that repeat the labels of their features."""

    def __init__(self, name, side, channels, splits, path):
        import tensorflow_datasets as tfds

        # The features are those of TFDS itself.
        self.name, self.data_path = name, path
        features = tfds.builder(name, data_dir=path).info.features
        self.info = SimpleNamespace(features=features, full_name=f"{name}/2.0.0", splits=splits)
        self._splits, self._shape = splits, (side, side, channels)
        self.labels = [f for f in features if f.startswith("label_")]

    def as_data_source(self, split):
        rng = np.random.default_rng(0)
        features = self.info.features
        return [
            {
                "image": np.full(self._shape, i % 2, np.uint8),
                **{f: rng.integers(features[f].num_classes) for f in self.labels},
                **{f: 0.0 for f in features if f not in (*self.labels, "image")},
                self.labels[0]: i % features[self.labels[0]].num_classes,
            }
            for i in range(self._splits[split])
        ]


FACTORED = {
    "dsprites": (
        64, 1, {"train": 60}, 1.0, "shape",
        {"shape": 3, "scale": 6, "orientation": 40, "x_position": 32, "y_position": 32},
    ),
    "shapes3d": (
        64, 3, {"train": 60}, 255.0, "shape",
        {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4, "orientation": 15},
    ),
    "smallnorb": (
        96, 1, {"train": 60, "test": 40}, 255.0, "category",
        {"category": 5, "elevation": 9, "azimuth": 18, "lighting": 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTORED)
def test_tfds_datasets_of_known_factors_bring_them(name, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    side, channels, splits, x_max, label, counts = FACTORED[name]
    builder = Builder(name, side, channels, splits, tmp_path)
    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: builder)
    dataset = sources.from_tfds(name, tmp_path, tmp_path)
    assert dataset.shape == (side, side, channels)
    assert dataset.x_max == x_max
    assert sum(len(getattr(dataset, split)) for split in SPLITS) == sum(splits.values())
    assert {f: builder.info.features[f"label_{f}"].num_classes for f in dataset.factor_names} == counts
    assert dataset.num_classes == counts[label]
    for split in SPLITS:
        examples = getattr(dataset, split)
        np.testing.assert_array_equal(examples.c, examples.factors[:, dataset.factor_names.index(label)])
        if split in splits and len(splits) > 1 and split != "train":
            given = builder.as_data_source(split)
            expected = [[example[f"label_{f}"] for f in dataset.factor_names] for example in given]
            np.testing.assert_array_equal(examples.factors, expected)
    monkeypatch.delattr(sources, "_decode_tfds")
    again = sources.from_tfds(name, tmp_path, tmp_path)
    assert_same(dataset, again)
    np.testing.assert_array_equal(dataset.test.factors, again.test.factors)
