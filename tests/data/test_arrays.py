"""Datasets of arrays in memory: what arrives of them, and what is refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from arrays import SPLITS, labels, load, pixels

from cvae_jax.conditions import Audio, Condition, Image, Label, Observed, Several, Text, Vector
from cvae_jax.conditions.text import decode_text
from cvae_jax.data.arrays import from_arrays
from cvae_jax.data.reading import prepared
from cvae_jax.data.settings import Data
from cvae_jax.errors import DataError
from cvae_jax.likelihoods import Bernoulli, Gaussian, LogisticMixture
from cvae_jax.runs.description import read_description, write_description

N = 60
RNG = np.random.default_rng(3)
X = pixels(N)
VECTORS = RNG.normal(3, 2, size=(N, 4))
TEXTS = [f"text {i}" for i in range(N)]
NAMES = np.array(["blue", "red", "green"])[np.arange(N) % 3]


@pytest.mark.parametrize(
    ("c", "condition"),
    [
        (None, None),
        (labels(N), Label(3)),
        (labels(N) > 0, Label(2)),
        (list(labels(N)), Label(3)),
        (jnp.asarray(labels(N)), Label(3)),
        (VECTORS, Vector(4)),
        (VECTORS[:, 0], Vector(1)),
        (RNG.poisson(3.0, size=(N, 5)), Vector(5)),
        (TEXTS, Text(7)),
        (np.array(TEXTS, object), Text(7)),
        (np.zeros((N, 8, 6), np.uint8), Image((8, 6, 1))),
        (np.zeros((N, 8, 6, 3), np.float32), Image((8, 6, 3))),
        ({"text": TEXTS, "colour": labels(N)}, Several((("text", Text(7)), ("colour", Label(3))))),
    ],
)
def test_types_show_what_a_condition_is(c, condition):
    data = from_arrays(X, c)
    assert data.condition == condition
    assert [len(data.splits[name]) for name in SPLITS] == [44, 4, 12]


@pytest.mark.parametrize(
    ("c", "chosen", "condition"),
    [
        (NAMES, Label(), Label(3)),
        (labels(N), Label(10), Label(10)),
        (TEXTS, Text(20), Text(20)),
        (RNG.normal(size=(N, 8, 6)), Audio(), Audio((8, 6, 1))),
        ({"name": NAMES}, {"name": Label()}, Several((("name", Label(3)),))),
        ({"name": NAMES}, Several((("name", Label()),)), Several((("name", Label(3)),))),
        (None, Observed(observed=2), Observed(observed=2)),
    ],
)
def test_a_condition_may_be_chosen(c, chosen, condition):
    assert from_arrays(X, c, condition=chosen).condition == condition


def test_examples_stay_with_their_conditions():
    """Through the splits, the numbering of names and standardization."""
    c = {"text": TEXTS, "name": NAMES, "vector": VECTORS}
    data = from_arrays(X, c, condition={"name": Label()})
    data = prepared(data, Data(), None, Gaussian())
    train = data.train.c["text"]
    rows = [int(decode_text(row).split()[1]) for row in train]
    mean, deviation = VECTORS[rows].mean(axis=0), VECTORS[rows].std(axis=0)
    assert data.names == {"name": ("blue", "green", "red")}
    for split in data.splits.values():
        rows = [int(decode_text(row).split()[1]) for row in split.c["text"]]
        np.testing.assert_array_equal(split.x, X[rows])
        np.testing.assert_array_equal(np.array(data.names["name"])[split.c["name"]], NAMES[rows])
        np.testing.assert_allclose(
            split.c["vector"], (VECTORS[rows] - mean) / deviation, rtol=1e-5, atol=1e-6
        )


def test_new_conditions_are_made_as_those_of_the_data():
    vectors = np.insert(VECTORS, 2, 1.0, axis=1)
    c = {"text": TEXTS, "name": NAMES, "vector": vectors, "audio": RNG.normal(size=(N, 8, 6))}
    chosen = {"name": Label(), "audio": Audio()}
    with pytest.warns(UserWarning, match="column 2 of 5 is constant"):
        data = prepared(from_arrays(X, c, condition=chosen), Data(), None, Gaussian())
    test = data.test.c
    rows = [int(decode_text(row).split()[1]) for row in test["text"]]
    again = data.description.conditions({name: np.asarray(each)[rows] for name, each in c.items()})
    assert again.keys() == test.keys()
    for name in c:
        np.testing.assert_array_equal(again[name], test[name])


@pytest.mark.parametrize(
    ("c", "condition", "new", "message"),
    [
        (NAMES, Label(), ["pink"], "c has the class 'pink', expected one of blue, green, red"),
        (NAMES, Label(), [3], "c: the label runs from 3 to 3, expected whole numbers from 0 to 2"),
        (VECTORS, None, VECTORS[:, :3], "c: the vector has 3 numbers, expected 4"),
        (TEXTS, None, ["a long text"], "c: text 'a long text' has 11 bytes, expected at most 7"),
        ({"text": TEXTS}, None, {"name": ["a"]}, "c is name, expected a dictionary of text"),
        (None, None, [0], "c holds conditions, expected None"),
    ],
)
def test_new_conditions_that_do_not_fit_are_named(c, condition, new, message):
    data = prepared(from_arrays(X, c, condition=condition), Data(), None, Gaussian())
    with pytest.raises(DataError, match=message):
        data.description.conditions(new)


K = np.arange(N) % 3
FIVES = np.arange(N) % 5


@pytest.mark.parametrize(
    ("c", "names", "label"),
    [
        (K + 1, ("1", "2", "3"), K),
        (np.where(K > 0, 7, 3), ("3", "7"), K > 0),
        (100 + 7 * FIVES, ("100", "107", "114", "121", "128"), FIVES),
        (2**40 - K, ("1099511627774", "1099511627775", "1099511627776"), 2 - K),
        (K - 1, ("-1", "0", "1"), K),
        (NAMES, ("blue", "green", "red"), np.array([0, 2, 1])[K]),
        (NAMES[:, None], ("blue", "green", "red"), np.array([0, 2, 1])[K]),
        (K[:, None], ("0", "1", "2"), K),
        (K * 1.0 + 2, ("2", "3", "4"), K),
        (np.eye(3)[K], ("0", "1", "2"), K),
        (np.eye(3, dtype=bool)[K], ("0", "1", "2"), K),
        (np.eye(4, dtype=int)[K], ("0", "1", "2", "3"), K),
        (K > 0, ("False", "True"), K > 0),
        *((K.astype(dtype), ("0", "1", "2"), K) for dtype in ("int8", "uint16", "uint64", "float16")),
        (np.full(N, 5), ("5",), np.zeros(N)),
    ],
)
def test_labels_of_any_kind_are_classes_by_their_sorted_values(c, names, label):
    data = from_arrays(X, c)
    assert (data.condition.name, data.class_names) == ("label", names)
    given = {x.tobytes(): int(each) for x, each in zip(X, label, strict=True)}
    for split in data.splits.values():
        assert split.c.tolist() == [given[x.tobytes()] for x in split.x]
    np.testing.assert_array_equal(data.description.conditions(c), label)
    np.testing.assert_array_equal(data.description.conditions(list(names)), np.arange(len(names)))
    assert from_arrays(X, c, condition=Label()).condition == data.condition


def test_the_values_of_labels_are_recorded(tmp_path):
    data = from_arrays(X, np.where(K > 0, 7, 3)).description
    write_description(tmp_path, data)
    assert read_description(tmp_path) == data
    with pytest.raises(DataError, match="c: the label is 5, expected one of 3, 7"):
        read_description(tmp_path).conditions([5])


def test_names_of_classes_are_in_the_order_of_their_values():
    data = from_arrays(X, K + 1, class_names=("one", "two", "three"))
    assert data.class_names == ("one", "two", "three")
    np.testing.assert_array_equal(data.description.conditions([3, 1]), [2, 0])
    np.testing.assert_array_equal(data.description.conditions(["three", "one"]), [2, 0])


def test_classes_that_training_never_sees_are_known():
    data = from_arrays(X, 2 * K, class_names=tuple("abcde"))
    assert data.num_classes == 5
    np.testing.assert_array_equal(data.seen_classes, [0, 2, 4])


def test_splits_of_ones_own_are_kept():
    own = {name: (pixels(n), labels(n)) for name, n in zip(SPLITS, (30, 9, 12), strict=True)}
    data = from_arrays(*own["train"], validation=own["validation"], test=own["test"])
    for name, (x, c) in own.items():
        np.testing.assert_array_equal(data.splits[name].x, x)
        np.testing.assert_array_equal(data.splits[name].c, c)


@pytest.mark.parametrize("file", ["labels", "several"])
def test_arrays_and_a_file_of_them_are_the_same_dataset(npz, file):
    arrays = {"labels": {"c": labels(N)}, "several": {"text": np.array(TEXTS), "vector": VECTORS}}[file]
    path = npz(x_train=X, **({"c_train": None} | {f"{name}_train": c for name, c in arrays.items()}))
    condition = None if file == "labels" else "text,vector"
    of_file = load(path, condition=condition, likelihood="gaussian")
    c = arrays["c"] if file == "labels" else arrays
    of_arrays = prepared(from_arrays(X, c, name="own"), Data(), None, Gaussian())
    assert of_file.condition == of_arrays.condition
    assert of_file.checksums == of_arrays.checksums
    assert of_file.names == of_arrays.names


def test_names_of_classes_may_be_given():
    data = from_arrays(X, labels(N), class_names=("zero", "one", "two", "three"))
    assert (data.condition, data.class_names) == (Label(4), ("zero", "one", "two", "three"))
    both = from_arrays(X, {"a": labels(N), "b": labels(N)}, class_names={"b": ("x", "y", "z")})
    assert both.names == {"a": ("0", "1", "2"), "b": ("x", "y", "z")}


@pytest.mark.parametrize("given", [labels(N), None])
def test_what_is_made_of_x_takes_the_place_of_c(given):
    data = from_arrays(X, given)
    chosen = prepared(data, Data(), (Observed(observed=3),), Bernoulli())
    assert chosen.condition == Observed((6, 5, 1), 3)
    np.testing.assert_array_equal(chosen.test.c, (chosen.test.x > 0.5) & chosen.condition.mask)
    unbound = from_arrays(X, given, condition=Observed(observed=3))
    again = prepared(unbound, Data(), None, Bernoulli())
    np.testing.assert_array_equal(again.test.c, chosen.test.c)


def test_labels_stay_without_a_condition():
    data = prepared(from_arrays(X, labels(N)), Data(), (), Gaussian())
    assert data.labelled
    np.testing.assert_array_equal(np.unique(data.test.c), [0, 1, 2])


@dataclasses.dataclass(frozen=True)
class Age(Condition):
    """Years, in decades: a condition from outside the library, with an option and a field of the data."""

    oldest: int = 0
    width: int = 10

    def of_data(self, raw):
        if raw.min() < 0:
            raise DataError(f"the age is {raw.min()}, expected years ≥ 0")
        return dataclasses.replace(self, oldest=int(raw.max())), raw.astype(np.float32)[:, None] / self.width

    def blank(self, n):
        return np.zeros((n, 1), np.float32)


def test_a_condition_from_outside_the_library(npz):
    years = RNG.integers(1, 90, N)
    data = from_arrays(X, years, condition=Age())
    assert data.condition == Age(int(years.max()))
    both = from_arrays(X, {"age": years, "text": TEXTS}, condition={"age": Age()})
    assert both.condition == Several((("age", data.condition), ("text", Text(7))))
    np.testing.assert_array_equal(prepared(data, Data(), (Age(),), Gaussian()).train.c, data.train.c)
    with pytest.raises(DataError, match="own data: c: the age is -1, expected years ≥ 0"):
        from_arrays(X, -np.ones(N, int), condition=Age())


WITH_NAN = X.copy()
WITH_NAN[7, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("x", "c", "more", "message"),
    [
        (X, labels(N - 1), {}, r"x_train has 60 examples and c_train has shape \(59,\)"),
        (X, labels(N), {"test": (X[:4], labels(3))}, r"x_test has 4 examples and c_test has shape \(3,\)"),
        (X, labels(N), {"test": (X[:4], labels(4) + 3)}, "c_test has label 3, which the training split never has"),
        (X, labels(N), {"test": (X[:4, :5], labels(4))}, r"x_test has shape \(n, 5, 5, 1\), expected \(n, 6, 5, 1\)"),
        (X, labels(N), {"validation": (X[:0], labels(0))}, "the validation split is empty"),
        (X, labels(N), {"test": (X[:4], None)}, "c_test has no conditions, expected c as c_train"),
        (X, None, {"test": (X[:4], labels(4))}, "c_test has c, expected no conditions as c_train"),
        (X, {"a": labels(N)}, {"test": (X[:4], {"b": labels(4)})}, "c_test has b, expected a as c_train"),
        (X[:0], None, {}, "the train split is empty"),
        (WITH_NAN, None, {}, "has NaN or infinite values"),
        (X[:, 0, 0, 0], None, {}, r"x_train has shape \(60,\), expected \(n, d\) of vectors"),
        (X.astype(complex), None, {}, "x_train is complex128, expected booleans, whole numbers or floats"),
        (X, np.full((N, 2), np.nan), {}, "c: the vector has NaN or infinite values"),
        (X, np.arange(N), {}, "c has 60 classes among 60 examples, expected .* --condition=vector"),
        (X, np.array([None] * N), {}, "c_train has Python objects, expected numbers or strings"),
        (X, np.float32(1), {}, r"c_train is float32 of shape \(\)"),
        (X, VECTORS, {"condition": Label()}, "c: the label is float64 of shape"),
        (X, labels(N), {"condition": Label(2)}, "the label runs from 0 to 2, expected whole numbers from 0 to 1"),
        (X, TEXTS, {"condition": Text(3)}, "text 'text 0' has 6 bytes, expected at most 3"),
        (X, VECTORS, {"condition": Vector(3)}, "the vector has 4 numbers, expected 3"),
        (X, np.zeros((N, 8, 6)), {"condition": Image((8, 8, 1))}, r"the image has shape \(8, 6, 1\), expected"),
        (X, None, {"condition": Label()}, "c_train has no conditions, expected c"),
        (X, {"a": labels(N)}, {"condition": Label()}, "condition is a Label, expected a dictionary"),
        (X, {"a": labels(N)}, {"condition": {"b": Label()}}, "c_train has a, expected b"),
        (X, labels(N), {"class_names": ("a", "b")}, "the label runs from 0 to 2, expected whole numbers from 0 to 1"),
        (X, TEXTS, {"test": (X[:4], [b"a"] * 4)}, "c is text in one split and bytes in another"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(x, c, more, message):
    with pytest.raises(DataError, match=message) as caught:
        from_arrays(x, c, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "condition", "likelihood", "message"),
    [
        (3 * X, None, Bernoulli(), r"expected 0 to 1 under the bernoulli likelihood: divide by 2\.9"),
        (
            X,
            None,
            LogisticMixture(),
            "expected whole numbers from 0 to 255, such as uint8, under the logistic_mixture",
        ),
        (X, (Text(),), Gaussian(), "condition is 'text', expected label or none with the dataset own data"),
        (X, (Label(), Text()), Gaussian(), "condition is 'label,text', expected label or none"),
        (X, (Label(7),), Gaussian(), r"condition is Label\(num_classes=7\), expected Label\(num_classes=3\)"),
    ],
)
def test_what_cannot_be_trained_is_named(x, condition, likelihood, message):
    with pytest.raises(DataError, match=message):
        prepared(from_arrays(x, labels(N)), Data(), condition, likelihood)
