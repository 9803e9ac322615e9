"""What a workdir records of the data: read again, it makes the same conditions."""

import json

import jax
import numpy as np
import pytest

from cvae_jax.conditions import Audio, Label
from cvae_jax.data.arrays import from_arrays
from cvae_jax.data.reading import prepared
from cvae_jax.data.settings import Data
from cvae_jax.errors import UserError
from cvae_jax.likelihoods import Gaussian
from cvae_jax.runs.description import (
    few_examples,
    read_description,
    read_examples,
    record_run,
    write_description,
)
from cvae_jax.runs.run import Run
from cvae_jax.training.config import Config

N = 40
RNG = np.random.default_rng(0)
SEVERAL = {
    "text": [f"text {i}" for i in range(N)],
    "name": np.array(["blue", "zwölf"])[np.arange(N) % 2],
    "vector": RNG.normal(2, 3, size=(N, 3)),
    "audio": RNG.normal(1, 2, size=(N, 8, 6)),
}


def dataset_of(c, condition):
    data = from_arrays(RNG.uniform(size=(N, 8, 6)), c, condition=condition)
    return prepared(data, Data(), None, Gaussian())


def described(c, condition):
    return dataset_of(c, condition).description


@pytest.mark.parametrize(
    ("c", "condition"),
    [
        (None, None),
        (np.arange(N) % 4, None),
        (SEVERAL["vector"], None),
        (SEVERAL, {"name": Label(), "audio": Audio()}),
    ],
    ids=["none", "label", "vector", "several"],
)
def test_a_description_is_read_as_it_was_written(tmp_path, c, condition):
    data = described(c, condition)
    write_description(tmp_path, data)
    again = read_description(tmp_path)
    assert (again.shape, again.x_max, again.checksums) == (data.shape, data.x_max, data.checksums)
    assert (again.condition, again.names) == (data.condition, data.names)
    if c is None:
        return
    some = {name: each[:5] for name, each in c.items()} if isinstance(c, dict) else c[:5]
    made, expected = again.conditions(some), data.conditions(some)
    if not isinstance(c, dict):
        made, expected = {"c": made}, {"c": expected}
    assert made.keys() == expected.keys()
    for name, each in expected.items():
        np.testing.assert_array_equal(made[name], each)


@pytest.mark.parametrize("damage", [None, "{", "[]", "{}"])
def test_a_description_that_cannot_be_used_is_named(tmp_path, damage):
    if damage is not None:
        (tmp_path / "data.json").write_text(damage)
    with pytest.raises(UserError, match=r"data\.json"):
        read_description(tmp_path)


def test_a_condition_of_another_version_is_named(tmp_path):
    write_description(tmp_path, described(SEVERAL["vector"], None))
    path = tmp_path / "data.json"
    record = json.loads(path.read_text())
    record["condition"]["name"] = "smell"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="condition is 'smell', expected one of label, vector"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    ("c", "condition"),
    [(None, None), (np.arange(N) % 4, None), (SEVERAL, {"name": Label(), "audio": Audio()})],
    ids=["none", "label", "several"],
)
def test_examples_are_read_as_they_were_written(tmp_path, c, condition):
    dataset = dataset_of(c, condition)
    few = few_examples(dataset)
    record_run(tmp_path, Run("train", (Config(),)), dataset.description, few)
    again = read_examples(tmp_path)
    assert len(again) == len(few) == len(dataset.test)
    assert jax.tree.structure(again.c) == jax.tree.structure(few.c)
    jax.tree.map(np.testing.assert_array_equal, (again.x, again.c), (few.x, few.c))


def test_examples_are_of_each_class_in_turn(digits):
    few = few_examples(digits)
    assert len(few) == len(digits.test)
    np.testing.assert_array_equal(few.labels[:100], np.tile(np.arange(10), 10))
    places = [np.flatnonzero((digits.test.x == x).all(axis=(1, 2, 3)))[0] for x in few.x[:100]]
    for k in range(10):
        np.testing.assert_array_equal(places[k::10], np.flatnonzero(digits.test.labels == k)[:10])


@pytest.mark.parametrize(("side", "count"), [(8, 1000), (50, 419), (128, 100)])
def test_no_more_examples_are_kept_than_a_megabyte_holds(side, count):
    x = np.zeros((1500, side, side), np.uint8)
    data = from_arrays(x[:100], np.arange(100) % 20, test=(x, np.arange(1500) % 20))
    few = few_examples(data)
    assert len(few) == count
    assert set(np.bincount(few.labels)) <= {count // 20, count // 20 + 1}


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_examples_that_cannot_be_used_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "examples.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"examples\.npz"):
        read_examples(tmp_path)
