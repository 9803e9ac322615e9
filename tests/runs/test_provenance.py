"""What a checkpoint records of its run and data, against what it is to go on with."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from arrays import labels, pixels

from cvae_jax.errors import UserError
from cvae_jax.runs import checkpoints, provenance, session
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import abstract_population, load_population, origin_of
from cvae_jax.training.config import from_flat

X, C = pixels(dtype=np.uint8), labels()


@pytest.fixture
def open_session(npz, tmp_path):
    """A function from settings to a session on an `.npz` of a few images, other ones where some are given."""

    def make(*, arrays=None, workdir_data_dir=None, kind="train", **settings):
        npz(**({"x_train": X, "c_train": C} | (arrays or {})))
        shared = {"dataset": str(tmp_path / "own.npz"), "batch_size": 4, "epochs": settings.pop("epochs", 3)}
        members = tuple(from_flat(latent_dim=2, beta=beta, **shared) for beta in settings.pop("beta", (1.0,)))
        assert not settings
        run = Run(kind, members, len(members), workdir_data_dir, checkpoint_every=1)
        return session.open_session(run, tmp_path / "cache")

    return make


def require_same(workdir, session):
    """Whether there are checkpoints, all of this run."""
    return provenance.require_same(workdir, session.run, session.dataset)


def save(session, workdir):
    """A checkpoint of a population of zeros."""
    (part,) = session.parts
    population = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract_population(session, part))
    with checkpoints.open_manager(workdir / "checkpoints") as manager:
        checkpoints.save(manager, population, origin_of(session))


def test_a_workdir_without_checkpoints_says_nothing(open_session, tmp_path):
    assert not require_same(tmp_path / "run", open_session())


def test_the_same_run_goes_on_also_for_more_epochs(open_session, tmp_path):
    save(open_session(), tmp_path / "run")
    assert require_same(tmp_path / "run", open_session())
    assert require_same(tmp_path / "run", open_session(epochs=4))
    # The folder may be another one, if the data are the same.
    assert require_same(tmp_path / "run", open_session(workdir_data_dir="elsewhere"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"beta": (2.0,)}, "beta is 1.0 there, not 2.0"),
        ({"epochs": 2}, "epochs is 3 there, not 2"),
        ({"kind": "sweep", "beta": (1.0, 2.0)}, "it is a single training there"),
    ],
)
def test_another_run_is_refused_by_the_checkpoint_alone(open_session, tmp_path, settings, named):
    save(open_session(), tmp_path / "run")
    with pytest.raises(
        UserError, match=rf"checkpoint 0 in .* of a run with other settings: {re.escape(named)}"
    ):
        require_same(tmp_path / "run", open_session(**settings))


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"x_train": 255 - X}, "the train, validation, test splits"),
        ({"c_train": C[::-1].copy()}, "the train, validation, test splits"),
        ({"x_test": X[:5], "c_test": C[:5]}, "the train, validation, test splits"),
    ],
)
def test_changed_data_are_named(open_session, tmp_path, arrays, named):
    session = open_session()
    save(session, tmp_path / "run")
    changed = open_session(arrays=arrays)
    with pytest.raises(
        UserError, match=rf"run was trained on other data: {named} of .*own\.npz changed since"
    ):
        require_same(tmp_path / "run", changed)
    with pytest.warns(UserWarning, match=f"trained on other data: {named} of"):
        load_population(changed, changed.parts[0], tmp_path / "run")
    load_population(open_session(), session.parts[0], tmp_path / "run")


def test_a_single_pixel_of_the_test_split_is_noticed(open_session, tmp_path):
    own = {"x_test": X[:6], "c_test": C[:6]}
    save(open_session(arrays=own), tmp_path / "run")
    other = own["x_test"].copy()
    other[3, 2, 2] ^= 1
    with pytest.raises(UserError, match="other data: the test split of"):
        require_same(tmp_path / "run", open_session(arrays=own | {"x_test": other}))


def test_another_data_dir_with_other_data_is_named(open_session, tmp_path):
    save(open_session(), tmp_path / "run")
    with pytest.raises(UserError, match=r"own\.npz in elsewhere changed since"):
        require_same(
            tmp_path / "run", open_session(workdir_data_dir="elsewhere", arrays={"x_train": 255 - X})
        )


def test_members_that_were_divided_otherwise_are_noticed(open_session, tmp_path):
    """Their checkpoints lie elsewhere in the workdir."""
    session = open_session(kind="sweep", beta=(1.0, 2.0))
    save(session, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    folder.rename(tmp_path / "part-1")
    folder.mkdir()
    (tmp_path / "part-1").rename(folder / "part-1")
    with pytest.raises(UserError, match="it has 2 members there, not 1"):
        require_same(tmp_path / "run", open_session(kind="sweep"))


def test_another_version_is_named(open_session, tmp_path, monkeypatch):
    session = open_session()
    with monkeypatch.context() as patch:
        patch.setattr(provenance.cvae_jax, "__version__", "0.0.9")
        save(session, tmp_path / "run")
    with pytest.warns(UserWarning, match=r"was trained by cvae_jax 0\.0\.9, jax \S+, this is cvae_jax"):
        assert require_same(tmp_path / "run", session)


def test_a_checkpoint_of_other_settings_than_config_json_is_not_read(open_session, tmp_path):
    save(open_session(), tmp_path / "run")
    other = open_session(beta=(2.0,))
    with pytest.raises(UserError, match=r"beta is 1\.0 there, not 2\.0"):
        load_population(other, other.parts[0], tmp_path / "run")


def test_the_record_is_plain_json(open_session):
    record = origin_of(open_session())
    assert json.loads(json.dumps(record, allow_nan=False))["run"]["members"][0]["clip_norm"] == "inf"
    assert set(record["data"]) == {"train", "validation", "test"}


def test_conditions_are_compared_as_they_were_read(open_session):
    """Standardized ones may differ in their last bits between processors."""
    session = open_session()
    standardized = dataclasses.replace(session.dataset, train=session.dataset.train.take(np.arange(4)))
    assert standardized.checksums == session.dataset.checksums
