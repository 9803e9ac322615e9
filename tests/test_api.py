"""The library from Python: `fit`, `sweep`, `load`, and what a trained model does."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae_jax as cj

SMALL = {"network": cj.MLP(hidden=(16,)), "batch_size": 16, "epochs": 2, "latent_dim": 3}


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return rng.uniform(size=(120, 8, 8)).astype(np.float32), rng.permutation(np.arange(120) % 4)


@pytest.fixture(scope="module")
def data(arrays):
    return cj.from_arrays(*arrays, class_names=("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return cj.fit(cj.Config(**SMALL), data, workdir=tmp_path_factory.mktemp("api") / "run")


def test_all_names_can_be_imported():
    for name in cj.__all__:
        assert getattr(cj, name) is not None
    assert set(cj.__all__) <= set(dir(cj))


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cj.nothing  # noqa: B018


def test_the_names_for_type_checkers_are_those_imported():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(cj.__file__).read_text(encoding="utf-8"))
    declared = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared - {"annotations", "TYPE_CHECKING", "Any"} == set(cj.__all__)


def test_the_import_alone_loads_no_flax():
    program = "import sys, cvae_jax; print('flax' in sys.modules, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_encode_decode_reconstruct_and_sample(run, arrays):
    x, c = arrays
    q = run.encode(x[:5], c[:5])
    assert q.mean.shape == q.logvar.shape == (5, 3)
    np.testing.assert_array_equal(run.decode(q.mean, c[:5]), run.reconstruct(x[:5], c[:5]))
    images = run.sample([0, 3, 3])
    assert images.shape == (3, 8, 8, 1)
    assert ((images >= 0) & (images <= 1)).all()
    np.testing.assert_array_equal(images, run.sample([0, 3, 3], key=0))
    assert np.abs(images - run.sample([0, 3, 3], key=1)).max() > 0


def test_names_of_classes_are_classes(run):
    np.testing.assert_array_equal(run.sample(["a", "d", "d"]), run.sample([0, 3, 3]))


def test_fit_without_a_workdir_is_the_same_and_writes_nothing(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = cj.fit(cj.Config(**SMALL), data)
    jax.tree.map(np.testing.assert_array_equal, again.params, run.params)
    assert [record["epoch"] for record in again.history] == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_load_gives_the_model_without_its_data(data, tmp_path):
    run = cj.fit(cj.Config(**SMALL), data, workdir=tmp_path / "run")
    again = cj.load(tmp_path / "run")
    assert (again.config, again.best_epoch) == (run.config, run.best_epoch)
    np.testing.assert_array_equal(again.sample(["b"]), run.sample(["b"]))
    assert again.evaluate(data) == run.evaluate(data)


def test_fit_continues_a_run(data, tmp_path):
    config = cj.Config(**SMALL)
    whole = cj.fit(config, data)
    cj.fit(cj.replace(config, epochs=1), data, workdir=tmp_path / "run")
    continued = cj.fit(config, data, workdir=tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, continued.params, whole.params)
    assert [record["epoch"] for record in continued.history] == [1, 2]


@pytest.mark.slow
def test_a_member_of_a_sweep_is_its_solo_run(data, tmp_path):
    many = cj.sweep(
        cj.Config(**SMALL), cj.grid(beta=[0.5, 2.0], latent_dim=[2, 3]), data, workdir=tmp_path / "s"
    )
    assert [(m.config.objective.beta, m.config.latent_dim) for m in many] == [
        (0.5, 2),
        (0.5, 3),
        (2.0, 2),
        (2.0, 3),
    ]
    alone = cj.fit(cj.replace(cj.Config(**SMALL), beta=2.0, latent_dim=2), data)
    np.testing.assert_allclose(many[2].sample([1, 2]), alone.sample([1, 2]), rtol=1e-4, atol=1e-4)
    assert [row["beta"] for row in many.evaluate(data)] == [0.5, 0.5, 2.0, 2.0]
    loaded = cj.load(tmp_path / "s")
    np.testing.assert_array_equal(loaded[3].sample([1]), many[3].sample([1]))
    assert loaded.validation == many.validation


def test_a_vector_is_taken_as_it_is_in_the_data(arrays):
    x, _ = arrays
    c = np.random.default_rng(1).normal(5.0, 3.0, size=(120, 2))
    data = cj.from_arrays(x, c)
    run = cj.fit(cj.Config(**SMALL), data)
    split = data.train
    standardized = (split.c - split.c.mean(axis=0)) / split.c.std(axis=0)
    x, c = jnp.asarray(split.x[:4]), jnp.asarray(standardized[:4], jnp.float32)
    direct = run.model.encode(run.params, x, c)
    np.testing.assert_allclose(run.encode(split.x[:4], split.c[:4]).mean, direct.mean, atol=1e-5)


def test_a_logger_of_ones_own_learns_of_each_epoch(data):
    class Count(cj.Logger):
        epochs = ()

        def epoch(self, records):
            self.epochs += tuple(record["epoch"] for record in records)

    count = Count()
    cj.fit(cj.Config(**SMALL), data, loggers=(count,))
    assert count.epochs == (1, 2)


def test_the_likelihood_is_an_option_of_evaluate(run, data):
    metrics = run.evaluate(data, nll_samples=20)
    assert metrics["nll"] <= -metrics["elbo"] + 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run, x, c: run.encode(x[:, :7], c), r"x has shape \(2, 7, 8\), expected \(n, 8, 8, 1\)"),
        (lambda run, x, c: run.encode(x, c[:1]), "c has 1 conditions, expected 2"),
        (lambda run, x, c: run.encode(x), "c is None, expected 2 conditions: label"),
        (
            lambda run, x, c: run.encode(x, [0, 4]),
            "the label runs from 0 to 4, expected whole numbers from 0 to 3",
        ),
        (lambda run, x, c: run.encode(x, ["a", "e"]), "c has the class 'e', expected one of a, b, c, d"),
        (lambda run, x, c: run.decode(np.zeros((2, 4)), c), r"z has shape \(2, 4\), expected \(n, 3\)"),
        (lambda run, x, c: run.sample(), "c is None, expected conditions: label"),
        (lambda run, x, c: run.sample([0], num=2), "num is 2, expected None"),
    ],
)
def test_what_the_model_cannot_take_is_refused(run, arrays, call, message):
    x, c = arrays
    with pytest.raises(cj.UserError, match=message):
        call(run, x[:2], c[:2])


def test_a_plain_vae_takes_no_condition(arrays):
    run = cj.fit(cj.Config(**SMALL), cj.from_arrays(arrays[0]))
    assert run.sample(num=2).shape == (2, 8, 8, 1)
    with pytest.raises(cj.UserError, match="c holds conditions, expected None"):
        run.sample([1, 2])


def test_other_data_are_refused_by_evaluate(run, arrays):
    x, c = arrays
    with pytest.raises(cj.UserError, match=r"x of shape \(6, 8, 1\)"):
        run.evaluate(cj.from_arrays(x[:, :6], c))


def test_load_logs_nothing(data, tmp_path, caplog):
    cj.fit(cj.Config(**SMALL), data, workdir=tmp_path / "run")
    caplog.clear()
    cj.load(tmp_path / "run")
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []


def test_load_of_something_else_is_refused(tmp_path):
    with pytest.raises(cj.UserError, match="holds no run"):
        cj.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(cj.UserError, match="does not describe a run"):
        cj.load(tmp_path)


def test_a_workdir_of_another_run_is_refused(data, tmp_path):
    cj.fit(cj.Config(**SMALL), data, workdir=tmp_path / "run")
    with pytest.raises(cj.UserError, match=r"beta is 1.0 there, not 2.0"):
        cj.fit(cj.replace(cj.Config(**SMALL), beta=2.0), data, workdir=tmp_path / "run")


def test_an_option_that_shapes_the_program_is_no_axis(data):
    with pytest.raises(cj.UserError, match=r"epochs has several values, expected one"):
        cj.sweep(cj.Config(**SMALL), cj.grid(epochs=[1, 2]), data)
    with pytest.raises(cj.UserError, match=r"tc_weight is 1.0, expected none with the objective elbo"):
        cj.sweep(cj.Config(**SMALL), cj.grid(tc_weight=[1.0, 2.0]), data)
