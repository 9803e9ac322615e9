"""What scripts write in a workdir: results that finish nothing where they are damaged, outputs that replace nothing."""

import pytest

from cvae_jax.errors import UserError
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import write_json
from cvae_jax.training.config import from_flat
from experiments.reports.workdir import best_member, finished_rows, finished_summary, require_writable
from experiments.sweep import ranking

DAMAGED = [
    "",
    "{",
    "{}",
    "[]",
    "[{}]",
    "123",
    "null",
    '"a"',
    '{"epochs": 100}',
    '{"epochs": 100, "test": 3}',
    "\xff",
]


def a_run(**options):
    return Run("train", (from_flat(**options),))


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_results_finish_nothing(tmp_path, text):
    for name in ("summary.json", "results.json"):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert finished_summary(tmp_path, a_run()) is None
    assert finished_rows(tmp_path, a_run()) is None
    with pytest.raises(
        UserError, match="holds no results, or damaged ones, expected a finished sweep for --best"
    ):
        best_member(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"epochs": 99}'])
def test_a_summary_that_is_damaged_or_of_fewer_epochs_finishes_nothing(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert finished_summary(tmp_path, a_run()) is None


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("own.npz", "is the dataset of"),
        ("run/../own.npz", "is the dataset of"),
        ("link.npz", "is the dataset of"),
        ("run/config.json", "is a file of the run in"),
        ("run/samples.png", "is a file of the run in"),
        ("run/checkpoints/10/drawn.npz", "is a file of the run in"),
    ],
)
def test_outputs_that_would_replace_what_a_run_needs_are_refused(tmp_path, output, message):
    (tmp_path / "run").mkdir()
    (tmp_path / "own.npz").touch()
    (tmp_path / "link.npz").symlink_to(tmp_path / "own.npz")
    run = a_run(dataset=str(tmp_path / "own.npz"))
    with pytest.raises(UserError, match=f"{message} .*, expected another file to write"):
        require_writable(tmp_path / output, tmp_path / "run", run)
    for other in ("drawn.npz", "run/drawn.png", "samples.png"):
        require_writable(tmp_path / other, tmp_path / "run", run)


def test_the_best_member_is_that_of_the_bound_of_as_many_draws(tmp_path):
    terms = {"test_elbo": 0.0, "test_rate": 0.0, "test_distortion": 0.0}
    rows = [
        {"member": i, "epochs": 1, "diverged": None, "stopped_epoch": None, "validation_elbo": elbo} | terms
        for i, elbo in enumerate((-3.0, -1.0, -2.0))
    ]
    write_json(tmp_path / "results.json", rows)
    assert best_member(tmp_path) == 1
    name = "validation_importance_weighted_bound"
    rows = [row | {name: bound} for row, bound in zip(rows, (-0.5, -0.4, -0.1), strict=True)]
    write_json(tmp_path / "results.json", rows)
    assert best_member(tmp_path) == 2
    assert [row["member"] for row in sorted(rows, key=ranking)] == [2, 1, 0]
