"""Files of one's own: what arrives of them, and what is refused."""

import contextlib
import os
import re
import zipfile

import numpy as np
import pytest
from arrays import GREY, SPLITS, labels, load, pixels

from cvae_jax.conditions import Several, Text, Vector
from cvae_jax.conditions.text import decode_text
from cvae_jax.errors import DataError


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
    with pytest.raises(DataError, match=r"x_train lies in -\S+ to \S+, expected 0 to 1 under the bernoulli"):
        load(path)


BAD = {
    "no x_train": ({"x_train": None}, "has no x_train.* holds c_train"),
    "no c_train": ({"c_train": None}, "has no c_train"),
    "c_test alone": ({"c_test": labels()}, "c_test but no x_test"),
    "lengths": ({"c_train": labels(59)}, r"60 examples and c_train has shape \(59,\)"),
    "a class per example": (
        {"c_train": np.eye(60, dtype=int)},
        "c has 60 classes among 60 examples, expected at least 2 .* --condition=vector; for texts, --condition=text",
    ),
    "several ones in a row": (
        {"c_train": np.ones((60, 2), int)},
        r"the label is int64 of shape \(60, 2\), expected .* one-hot rows \(or --condition=vector\)",
    ),
    "float labels": ({"c_train": labels() / 2}, "c: the label is float64 of shape .* expected whole numbers"),
    "unseen": (
        {"x_test": pixels(4), "c_test": np.array([0, 1, 2, 7])},
        "c_test has label 7, which the training split never has",
    ),
    "complex": (
        {"x_train": pixels().astype(complex)},
        "x_train is complex128, expected booleans, whole numbers or",
    ),
    "no axes": (
        {"x_train": pixels()[:, 0, 0, 0]},
        r"x_train has shape \(60,\), expected \(n, d\) of vectors",
    ),
    "test type": ({"x_test": pixels(4, np.uint8), "c_test": labels(4)}, "x_test is uint8, expected float32"),
    "test shape": (
        {"x_test": pixels(4)[:, :5], "c_test": labels(4)},
        r"x_test has shape \(n, 5, 5, 1\), expected",
    ),
    "no channels": ({"x_train": np.zeros((60, 6, 5, 0))}, r"x_train has shape \(60, 6, 5, 0\), expected"),
    "no width": ({"x_train": np.zeros((60, 6, 0))}, r"x_train has shape \(60, 6, 0\), expected"),
    "too large": ({"x_train": np.full((60, 6, 5), 1e300)}, r"x_train\[0\] has NaN or infinite values"),
    "huge factors": (
        {"factors_train": np.full((60, 2), 2**31)},
        "factors_train has values from 2147483648 to 2147483648, expected those of int32",
    ),
    "nameless factors": (
        {"factors_train": np.zeros((60, 2), int), "factor_names": np.array(["x", "\ud800"])},
        r"factor_names has the text '\\ud800', expected one in UTF-8",
    ),
    "empty": ({"x_train": pixels(0), "c_train": labels(0)}, "train split is empty"),
    "too few to split": ({"x_train": pixels(4), "c_train": labels(4) // 2}, "validation split is empty"),
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
    "text": ({"x_train": np.array(["a"] * 60).reshape(60, 1, 1)}, "x_train is <U1, expected booleans"),
    "scalar": ({"x_train": np.float32(1)}, "x_train has shape"),
    "class names": (
        {"class_names": np.array(["a", "b"])},
        "the label runs from 0 to 2, expected .* from 0 to 1",
    ),
    "numbers as class names": (
        {"class_names": np.ones(3)},
        "class_names is float64 .*, expected names of shape",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_named(npz, case):
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message):
        load(npz(**arrays), condition="label")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fields", [{}, GREY], ids=["bernoulli", "gaussian"])
def test_the_example_that_is_not_finite_is_named(npz, value, fields):
    x = pixels(12)
    x[[5, 9], 2, 2] = value
    path = npz(x_test=x, c_test=labels(12))
    with pytest.raises(DataError, match=re.escape("x_test[5] has NaN or infinite values")):
        load(path, **fields)


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


def test_a_member_that_is_no_array_is_refused(npz):
    path = npz()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("x_test", "no array")
    with pytest.raises(DataError, match=r"cannot be read as \.npz with plain arrays: its x_test is no array"):
        load(path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "own.npz")
    with pytest.raises(DataError, match=r"cannot be read as \.npz with plain arrays: it is no ordinary file"):
        load(tmp_path / "own.npz")


def test_damaged_files_are_refused_or_read_as_they_were(npz):
    """Bytes of the whole file, headers among them, changed at random."""
    path = npz(factors_train=np.zeros((60, 2), int), factor_names=np.array(["a", "b"]))
    whole, draws = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in draws.integers(len(whole), size=draws.integers(1, 20)):
            damaged[place] = draws.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            load(path)


def test_a_single_array_is_refused(tmp_path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, pixels())
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load(tmp_path / "own.npz")


# Conditions of other kinds

N_OWN = 60


def own_condition(kind):
    rng = np.random.default_rng(1)
    return {
        "vector": rng.normal(3, 2, size=(N_OWN, 4)),
        "image": rng.integers(0, 256, (N_OWN, 6, 5)).astype(np.uint8),
        "text": np.array([f"text {i}" for i in range(N_OWN)]),
        "audio": rng.normal(size=(N_OWN, 8, 6)),
    }[kind]


@pytest.mark.parametrize("kind", ["vector", "image", "text", "audio"])
def test_conditions_of_one_kind_stay_with_their_images(npz, kind):
    x, c = pixels(), own_condition(kind)
    dataset = load(npz(x_train=x, c_train=c), condition=kind, **GREY)
    place = {image.tobytes(): i for i, image in enumerate(x.astype(np.float32))}
    of_train = c[[place[image.tobytes()] for image in dataset.train.x]]
    for name in SPLITS:
        split = getattr(dataset, name)
        rows = [place[image.tobytes()] for image in split.x]
        match kind:
            case "text":
                assert [bytes(row).rstrip(b"\0").decode() for row in split.c] == list(c[rows])
            case "image":
                np.testing.assert_array_equal(split.c[..., 0], c[rows])
            case "vector":
                np.testing.assert_allclose(
                    split.c, ((c - of_train.mean(0)) / of_train.std(0))[rows], rtol=1e-4, atol=1e-5
                )
            case "audio":
                np.testing.assert_allclose(
                    split.c[..., 0], ((c - of_train.mean()) / of_train.std())[rows], rtol=1e-4, atol=1e-5
                )


def test_several_conditions_have_names(npz):
    names = np.array(["blue", "red", "green"])[np.arange(N_OWN) % 3]
    file = npz(c_train=None, text_train=own_condition("text"), colour_train=names)
    dataset = load(file, condition="text,label", condition_feature=("text", "colour"), **GREY)
    assert [name for name, _ in dataset.condition.parts] == ["text", "colour"]
    texts = [bytes(row).rstrip(b"\0").decode() for row in dataset.test.c["text"]]
    numbers = [int(text.split()[1]) for text in texts]
    np.testing.assert_array_equal(
        np.array(["blue", "green", "red"])[dataset.test.c["colour"]], names[numbers]
    )


def test_a_label_of_another_name_is_a_label(npz):
    names = np.array(["blue", "red", "green"])[np.arange(N_OWN) % 3]
    dataset = load(npz(colour_train=names), condition="label", condition_feature=("colour",), **GREY)
    assert dataset.labelled
    assert dataset.class_names == ("blue", "green", "red")


@pytest.mark.parametrize(
    ("arrays", "condition", "message"),
    [
        ({"c_train": np.zeros((60, 2, 2, 2))}, "vector", "expected numbers of shape"),
        (
            {"c_train": np.array(["a"] * 60)},
            "vector",
            "strings are taken by --condition=label or --condition=text",
        ),
        ({"c_train": labels()}, "text", "numbers are taken by --condition=label or --condition=vector"),
        ({"c_train": np.full((60, 2), np.nan)}, "vector", "has NaN or infinite values"),
        ({"c_train": np.full((60, 2), 1e39)}, "vector", "or some too large for float32"),
        ({"c_train": np.zeros((60, 0))}, "vector", r"expected numbers of shape \(n, k\)"),
        ({"c_train": np.ones((60, 2))}, "vector", "has no column that varies in the training split"),
        ({"c_train": np.ones((60, 8, 6))}, "audio", "is constant in the training split"),
        (
            {"c_train": np.ones((60, 6, 5), np.uint16)},
            "image",
            "is uint16 of shape .* expected uint8 or floating",
        ),
        ({"c_train": np.ones((60, 6, 5, 0))}, "image", "expected uint8 or floating images of shape"),
        ({"c_train": np.array([b"a\xff"] * 60)}, "text", r"has the text .*a\\xff.*, expected one in UTF-8"),
        ({"c_train": np.array(["a\ud800"] * 60)}, "text", r"has the text 'a\\ud800', expected one in UTF-8"),
        (
            {"c_train": None, "k_train": np.array([b"\xff"] * 60)},
            "label",
            r"has the text .*xff.*, expected one in UTF-8",
        ),
        ({"c_train": np.arange(60)}, "text", "expected texts of shape"),
        ({"c_train": np.array([""] * 60)}, "text", "the longest text has 0 bytes"),
        ({"c_train": np.zeros((60, 3, 3))}, "image", "at least 4 pixels a side"),
        ({"c_train": np.zeros((60, 30))}, "audio", "expected floating spectrograms"),
        ({"c_train": np.array("a")}, "text", "60 examples and c_train has shape"),
        ({"c_train": np.array(["a"] * 59)}, "text", "60 examples and c_train has shape"),
        ({}, "text,label", "has no text_train, expected the text that is its condition"),
    ],
)
def test_conditions_that_cannot_be_used_are_refused(npz, arrays, condition, message):
    feature = ("k",) if "k_train" in arrays else ()
    with pytest.raises(DataError, match=message) as caught:
        load(npz(**arrays), condition=condition, condition_feature=feature, **GREY)
    assert "\n" not in str(caught.value)


TEST = {"x_test": pixels(9)}


@pytest.mark.parametrize(
    ("given", "of_test", "condition", "message"),
    [
        (np.eye(60), np.eye(9), "vector", "has shapes .* expected one"),
        (
            own_condition("image"),
            np.ones((9, 6, 5)),
            "image",
            "is uint8 in one split and floating in another",
        ),
    ],
)
def test_conditions_are_alike_in_all_splits(npz, given, of_test, condition, message):
    with pytest.raises(DataError, match=message):
        load(npz(c_train=given, c_test=of_test, **TEST), condition=condition, **GREY)


def nearly(value, spread):
    return value + spread * np.random.default_rng(2).normal(size=N_OWN)


@pytest.mark.parametrize(
    ("column", "of_test"),
    [
        (np.zeros(N_OWN), 1.0),
        (np.full(N_OWN, 5e6 + 0.1), 5e6),
        (nearly(3, 1e-8), 3.1),
        (nearly(0, 1e-9), 1.0),
    ],
    ids=["zero", "constant", "nearly constant", "noise beside the test split"],
)
def test_columns_that_do_not_vary_are_left_out_and_named(npz, column, of_test):
    """They used to be divided by 1e-6, and another value in the test split made the bound infinite."""
    vectors = own_condition("vector")
    file = npz(c_train=vectors, c_test=vectors[:9], **TEST)
    without = load(file, condition="vector", **GREY)
    vectors = np.insert(vectors, 2, column, axis=1)
    others = vectors[:9].copy()
    others[:, 2] = of_test
    with pytest.warns(
        UserWarning, match="column 2 of 5 is constant in the training split, or nearly: left out"
    ):
        dataset = load(npz(c_train=vectors, c_test=others, **TEST), condition="vector", **GREY)
    assert dataset.condition == without.condition == Vector(4)
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(dataset, name).c, getattr(without, name).c)


def test_columns_are_left_out_of_one_of_several_conditions_and_of_its_alternative(npz):
    vectors = np.insert(own_condition("vector"), 0, 1.0, axis=1)
    file = npz(
        c_train=None, vector_train=vectors, vector_alternative_train=vectors, text_train=own_condition("text")
    )
    with pytest.warns(UserWarning, match="the condition vector: column 0 of 5"):
        dataset = load(file, condition="vector,text", **GREY)
    assert dataset.condition == Several((("vector", Vector(4)), ("text", Text(7))))
    for c in (dataset.train.c, dataset.train.alternative):
        np.testing.assert_allclose(c["vector"].std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e30])
@pytest.mark.parametrize("shift", [0, 1e5])
def test_columns_of_any_scale_are_standardized_alike(npz, scale, shift):
    vectors = own_condition("vector")
    expected = load(npz(c_train=vectors), condition="vector", **GREY)
    dataset = load(npz(c_train=scale * (vectors + shift)), condition="vector", **GREY)
    for name in SPLITS:
        np.testing.assert_allclose(getattr(dataset, name).c, getattr(expected, name).c, atol=1e-6)


@pytest.mark.parametrize("key", ["class_names", "label_names", "c_names"])
@pytest.mark.parametrize("condition", ["label", "none"])
def test_names_of_classes_are_read(npz, key, condition):
    file = npz(**{key: np.array(["cat", "dog", "cow"])}, c_train=labels() + 1)
    assert load(file, condition=condition).class_names == ("cat", "dog", "cow")


def test_names_of_classes_may_be_bytes(npz):
    names = np.array([b"blue", "zwölf".encode()])[np.arange(N_OWN) % 2]
    dataset = load(npz(c_train=None, k_train=names), condition="label", condition_feature=("k",), **GREY)
    assert dataset.class_names == ("blue", "zwölf")


def test_another_condition_than_the_datasets_is_refused():
    with pytest.raises(
        DataError, match="condition is 'text', expected label or none with the dataset digits"
    ):
        load("digits", condition="text")


@pytest.mark.parametrize("fields", [{"target_feature": "picture"}, {"condition_feature": ("digit",)}])
def test_features_of_a_dataset_that_has_none_are_refused(fields):
    with pytest.raises(DataError, match="expected none with the dataset digits"):
        load("digits", **fields)


def test_alternative_conditions_stay_with_their_images(npz):
    """A condition without an alternative is its own."""
    texts, names = own_condition("text"), np.array(["red", "blue"])[np.arange(N_OWN) % 2]
    others = np.array([f"the text of the number {i}" for i in range(N_OWN)])
    one = load(npz(c_train=texts, c_alternative_train=others), condition="text", **GREY)
    assert one.condition.length == len("the text of the number 10")
    for split in (one.train, one.validation, one.test):
        pairs = [tuple(map(decode_text, pair)) for pair in zip(split.c, split.alternative, strict=True)]
        assert [pair[1] for pair in pairs] == [
            f"the text of the number {pair[0].split()[1]}" for pair in pairs
        ]
    file = npz(c_train=None, text_train=texts, text_alternative_train=others, label_train=names)
    both = load(file, condition="text,label", **GREY).train
    np.testing.assert_array_equal(both.alternative["text"], one.train.alternative)
    np.testing.assert_array_equal(both.alternative["label"], both.c["label"])
    assert load(npz(c_train=texts), condition="text", **GREY).train.alternative is None


def test_alternative_numbers_are_standardized_as_the_others(npz):
    vectors = own_condition("vector")
    train = load(npz(c_train=vectors, c_alternative_train=vectors), condition="vector", **GREY).train
    np.testing.assert_array_equal(train.alternative, train.c)
    assert not np.isin(train.c, vectors.astype(np.float32)).any()


def test_too_few_alternatives_are_refused(npz):
    texts = own_condition("text")
    with pytest.raises(
        DataError, match=rf"x_train has {N_OWN} examples and c_alternative_train has shape \(3,\)"
    ):
        load(npz(c_train=texts, c_alternative_train=texts[:3]), condition="text", **GREY)
