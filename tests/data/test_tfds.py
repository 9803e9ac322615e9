"""Datasets that TFDS prepared: found by name, packed once, and with their factors."""

from types import SimpleNamespace

import numpy as np
import pytest
from arrays import GREY, SPLITS, Source, load

from cvae_jax.data.sources import tfds as sources
from cvae_jax.errors import DataError
from experiments.tasks.captions import arrangements


def test_an_unknown_name_suggests_close_ones(tmp_path):
    with pytest.raises(DataError, match=r"unknown dataset 'fashion_mnits': did you mean fashion_mnist"):
        load("fashion_mnits")


@pytest.mark.parametrize("name", ["../mnist", "", "MNIST"])
def test_a_name_tfds_could_not_have_is_unknown(name):
    with pytest.raises(DataError, match="unknown dataset"):
        load(name)


def test_an_unprepared_dataset_names_the_command(tmp_path):
    folder = tmp_path / "my data"
    with pytest.raises(DataError, match=rf"run ./launch.sh prepare --dataset=kmnist '--data_dir={folder}'$"):
        sources.from_tfds("kmnist", folder, tmp_path)


@pytest.mark.parametrize(
    "name", ["mnist:3", "mnist/foo", "mnist:9.9.9", "mnist:", "mnist/", "mnist:a/b", "emnist/nope"]
)
def test_configs_and_versions_that_tfds_has_not_are_one_line(name, tmp_path):
    with pytest.raises(
        DataError, match=f"dataset '{name}' cannot be opened: .* expected a prepared NAME"
    ) as error:
        sources.from_tfds(name, tmp_path, tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture
def prepared(tfds_dir, tmp_path):
    """A prepared MNIST to damage, and its folder."""
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    for path in (tfds_dir / "mnist" / "3.0.1").iterdir():
        (folder / path.name).symlink_to(path)
    return tmp_path / "data", folder


TRAIN, INFO = "mnist-train.array_record-00000-of-00001", "dataset_info.json"
DAMAGES = {
    "truncated": (TRAIN, lambda content: content[: len(content) // 2]),
    "empty": (TRAIN, lambda content: b""),
    "zeroed": (TRAIN, lambda content: bytes(len(content))),
    "missing": (TRAIN, None),
    "half a description": (INFO, lambda content: content[:500]),
    "no description": (INFO, None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_of_tfds_are_named(prepared, tmp_path, damage):
    data_dir, folder = prepared
    name, change = DAMAGES[damage]
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    with pytest.raises(DataError) as error:
        sources.from_tfds("mnist", data_dir, tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert name in text
    if damage != "no description":
        assert text.endswith(
            f"run ./launch.sh prepare --dataset=mnist --data_dir={data_dir}-array_record and give that --data_dir"
        )


def test_another_format_than_array_record_is_named(tmp_path, monkeypatch):
    builder = Builder("mnist", 28, 1, {"train": 5}, tmp_path)
    monkeypatch.setattr(builder, "as_data_source", lambda split: (_ for _ in ()).throw(NotImplementedError))
    monkeypatch.setattr(sources, "tfds_builder", lambda *args, **kwargs: builder)
    with pytest.raises(
        DataError, match=rf"in {tmp_path} is prepared in another format.*: run ./launch.sh prepare"
    ):
        sources.from_tfds("mnist", tmp_path, tmp_path)


@pytest.fixture(scope="module")
def mnist(tfds_dir, cache_dir):
    return load("mnist", data_dir=tfds_dir, cache_dir=cache_dir, **GREY)


def assert_same(dataset, other):
    for name in SPLITS:
        a, b = getattr(dataset, name), getattr(other, name)
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.c, b.c)


@pytest.mark.slow
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


@pytest.mark.slow
def test_captions_are_scenes_of_mnist(mnist, tfds_dir, cache_dir):
    dataset = load("captions", condition="none", data_dir=tfds_dir, cache_dir=cache_dir, **GREY)
    assert [len(getattr(dataset, name)) for name in SPLITS] == [240_000, 2_500, 5_000]
    assert (dataset.shape, dataset.x_max) == ((32, 32, 1), 255)
    assert not arrangements.held_out_rows(dataset.train.factors).any()
    assert arrangements.held_out_rows(dataset.test.factors).sum() == 2_500
    counts = (dataset.train.factors[:, :9] > 0).sum(axis=1)
    assert np.bincount(counts).tolist() == [0, 108_000, 84_000, 48_000]
    assert len(np.unique(dataset.train.c, axis=0)) > 120_000


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
        return Source(
            {
                "image": np.full(self._shape, i % 2, np.uint8),
                **{f: rng.integers(features[f].num_classes) for f in self.labels},
                **{f: 0.0 for f in features if f not in (*self.labels, "image")},
                self.labels[0]: i % features[self.labels[0]].num_classes,
            }
            for i in range(self._splits[split])
        )


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
