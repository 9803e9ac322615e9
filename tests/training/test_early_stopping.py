"""A run whose members stop early: where it ends, what it records, and that it resumes."""

import jax
import numpy as np
import pytest

from cvae_jax.runs import loop
from cvae_jax.runs.description import claim
from cvae_jax.runs.logs import read_metrics
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import open_session
from cvae_jax.runs.workdir import write_json
from cvae_jax.training.config import from_flat
from experiments.command_line.progress import Progress
from experiments.reports.workdir import finished_rows

# Alike in all else, so that the second stops later.
PATIENCES = (1.0, 3.0)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def a_run(**options):
    members = tuple(
        from_flat(latent_dim=4, learning_rate=0.01, dropout=0.1, ema_decay=0.5, patience=patience, **options)
        for patience in PATIENCES
    )
    return Run("sweep", members, members_per_program=2, checkpoint_every=1000)


@pytest.fixture
def train(cache_dir):
    def train(run, workdir):
        claim(workdir, run)
        session = open_session(run, cache_dir)
        (part,) = session.parts
        return loop.train(session, part, workdir, [Progress(session, part)])[0]

    return train


@pytest.mark.slow
def test_a_run_ends_when_no_member_trains_on(train, tmp_path, capsys):
    population = train(a_run(epochs=200), tmp_path / "a")
    stopped = population.members.stopped_epoch.tolist()
    epochs = int(population.step) // 10
    assert 0 < min(stopped) < max(stopped) == epochs < 200
    assert f"no member trains on: ended after epoch {epochs} of 200" in capsys.readouterr().out
    records = read_metrics(tmp_path / "a")
    for i in (0, 1):
        losses = [record["validation"]["loss"] for record in records if record["member"] == i]
        assert len(losses) == stopped[i]
        assert int(population.members.best.epoch[i]) == np.argmin(losses) + 1
        assert stopped[i] == np.argmin(losses) + 1 + PATIENCES[i]
        assert population.members.best.loss[i] == np.float32(min(losses))

    # Interrupted after an epoch in which one had stopped, it goes on to the same bits.
    train(a_run(epochs=min(stopped)), tmp_path / "b")
    continued = train(a_run(epochs=200), tmp_path / "b")
    assert_same_bits(continued, population)
    seconds_aside = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in read_metrics(tmp_path / name)]
        for name in "ab"
    ]
    assert seconds_aside[0] == seconds_aside[1]
    # Once ended, nothing is left to do.
    assert_same_bits(train(a_run(epochs=200), tmp_path / "a"), population)


def test_a_sweep_whose_members_all_ended_is_finished(tmp_path):
    figures = dict.fromkeys(("validation_elbo", "test_elbo", "test_rate", "test_distortion"), 1.0)
    rows = [
        {"member": 0, "epochs": 7, "stopped_epoch": 5, "diverged": None} | figures,
        {"member": 1, "epochs": 7, "stopped_epoch": None, "diverged": 60} | figures,
    ]
    write_json(tmp_path / "results.json", rows)
    assert finished_rows(tmp_path, a_run(epochs=200)) is not None
    rows[1]["diverged"] = None
    write_json(tmp_path / "results.json", rows)
    assert finished_rows(tmp_path, a_run(epochs=200)) is None
