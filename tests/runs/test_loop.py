"""The training loop: what loggers receive, with and without a folder, in any thread."""

import sys
import threading

import jax
import numpy as np
import pytest
from arrays import labels, pixels

from cvae_jax.data.arrays import from_arrays
from cvae_jax.data.reading import prepared
from cvae_jax.errors import UserError, load_package
from cvae_jax.runs import loop
from cvae_jax.runs.logs import Logger, TensorBoard, read_metrics
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import new_session
from cvae_jax.training.config import from_flat, replace

CONFIG = from_flat(hidden=(8,), latent_dim=2, batch_size=12, epochs=2)
STEPS = 3  # of an epoch


class Notes(Logger):
    """Notes every call."""

    def __init__(self):
        self.calls = []

    def start(self, step, total_steps, records):
        self.calls.append(("start", step, total_steps, [record["epoch"] for record in records]))

    def step(self, step):
        self.calls.append(("step", step))

    def epoch(self, records):
        self.calls.append(("epoch", [(record["member"], record["epoch"]) for record in records]))

    def flush(self):
        self.calls.append(("flush",))

    def end(self, step):
        self.calls.append(("end", step))

    def close(self):
        self.calls.append(("close",))

    def without_steps(self):
        """The calls without those of `step`, whose number depends on the speed of the machine."""
        return [call for call in self.calls if call[0] != "step"]


@pytest.fixture(scope="module")
def session_of():
    """A function from configurations to a session on a few images."""

    def session(*members):
        config = members[0]
        data = from_arrays(pixels(), labels())
        data = prepared(data, config.data, config.condition, config.likelihood)
        kind = "train" if len(members) == 1 else "sweep"
        return new_session(Run(kind, members, members_per_program=len(members), checkpoint_every=1), data)

    return session


def test_a_logger_receives_steps_and_epochs(session_of):
    notes, session = Notes(), session_of(replace(CONFIG, seed=0), replace(CONFIG, seed=1))
    population, seconds = loop.train(session, session.parts[0], None, [Logger(), notes])
    assert int(population.step) == 2 * STEPS
    assert seconds > 0
    assert notes.without_steps() == [
        ("start", 0, 2 * STEPS, []),
        ("epoch", [(0, 1), (1, 1)]),
        ("flush",),
        ("epoch", [(0, 2), (1, 2)]),
        ("flush",),
        ("end", 2 * STEPS),
        ("close",),
    ]
    steps = [call[1] for call in notes.calls if call[0] == "step"]
    assert steps == sorted(set(steps))
    assert {STEPS, 2 * STEPS} <= set(steps)


@pytest.mark.slow
def test_a_training_without_a_folder_equals_one_with_a_folder(session_of, tmp_path, monkeypatch):
    session = session_of(CONFIG)
    monkeypatch.chdir(tmp_path)
    population, _ = loop.train(session, session.parts[0])
    assert list(tmp_path.iterdir()) == []
    written, _ = loop.train(session, session.parts[0], tmp_path)
    np.testing.assert_array_equal(population.members.best.loss, written.members.best.loss)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "metrics.jsonl"}


def test_a_resumed_training_passes_on_the_records_of_earlier_epochs(session_of, tmp_path):
    session = session_of(CONFIG)
    loop.train(session, session.parts[0], tmp_path)
    longer, notes = session_of(replace(CONFIG, epochs=3)), Notes()
    loop.train(longer, longer.parts[0], tmp_path, [notes])
    assert notes.calls[0] == ("start", 2 * STEPS, 3 * STEPS, [1, 2])
    assert ("epoch", [(0, 3)]) in notes.calls
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [1, 2, 3]
    # Nothing is left to train.
    again = Notes()
    loop.train(longer, longer.parts[0], tmp_path, [again])
    assert again.calls == [("start", 3 * STEPS, 3 * STEPS, [1, 2, 3]), ("close",)]


def test_loggers_are_closed_when_one_of_them_fails(session_of):
    class Failing(Notes):
        def epoch(self, records):
            raise UserError("the disk is full")

        def close(self):
            super().close()
            raise OSError("the disk is full")

    first, second = Failing(), Failing()
    session = session_of(CONFIG)
    with pytest.raises(OSError, match="the disk is full"):
        loop.train(session, session.parts[0], None, [first, second])
    assert first.calls[-1] == second.calls[-1] == ("close",)


def test_a_training_runs_in_any_thread(session_of, tmp_path):
    session, found = session_of(CONFIG), []
    thread = threading.Thread(target=lambda: found.append(loop.train(session, session.parts[0], tmp_path)))
    thread.start()
    thread.join()
    assert int(found[0][0].step) == 2 * STEPS


def test_a_divergence_ends_a_single_training_with_what_to_try(session_of):
    session = session_of(replace(CONFIG, learning_rate=1e10))
    with pytest.raises(
        UserError, match=r"is not finite at step \d+: training stopped; try a lower learning_rate"
    ):
        loop.train(session, session.parts[0])


def test_a_missing_package_is_named_with_the_extra_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"this needs tensorboardX: pip install 'cvae_jax\[experiments\]'"):
        TensorBoard(tmp_path, [0], sweep=False)
    # A module that is there, but lacks what it imports itself, is another fault.
    (tmp_path / "broken_package.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        load_package("broken_package", extra="experiments")


def test_a_batch_larger_than_the_training_split_is_the_whole_of_it(session_of):
    """And the best epoch of a few validation examples is said to be a matter of chance."""
    whole = session_of(replace(CONFIG, batch_size=44))
    larger = new_session(Run("train", (replace(CONFIG, batch_size=100),), 1, None, 1), whole.dataset)
    assert (larger.batch_size, larger.steps_per_epoch) == (44, 1)
    with pytest.warns(UserWarning, match="validation examples, expected at least 20"):
        expected, _ = loop.train(whole, whole.parts[0])
    with pytest.warns(UserWarning, match="batch_size is lowered from 100 to the 44 training examples"):
        found, _ = loop.train(larger, larger.parts[0])
    for a, b in zip(
        jax.tree.leaves(expected.members.params), jax.tree.leaves(found.members.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)
