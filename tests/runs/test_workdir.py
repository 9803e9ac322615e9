"""The files of a run: written whole or not at all, read back as they were, refused by name."""

import numpy as np
import pytest
from scripts import metrics_lines, read_json

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Description, Split
from cvae_jax.errors import UserError
from cvae_jax.runs.description import claim, record_run
from cvae_jax.runs.logs import MetricsLog, read_metrics
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run, write_json
from cvae_jax.training.config import from_flat

DAMAGED = [
    "", "{", "{}", "[]", "[{}]", "123", "null", '"a"', '{"epochs": 100}', '{"epochs": 100, "test": 3}', "\xff"
]  # fmt: skip

DESCRIPTION = Description("own", (2, 2, 1), 1.0, Label(3), ("a", "b", "c"), {}, {})
EXAMPLES = Split(np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32))


def a_run(**options):
    return Run("train", (from_flat(**options),))


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = a_run(beta=0.1, clip_norm=5.0, epochs=3)
    for i, each in enumerate((run, a_run())):
        claim(tmp_path / str(i), each)
        assert read_run(tmp_path / str(i)) == each


@pytest.mark.parametrize(
    ("field", "value"), [("beta", 2.0), ("seed", 1), ("epochs", 99), ("network", "conv"), ("clip_norm", 1.0)]
)
def test_another_setting_in_the_same_workdir_is_refused_by_name(tmp_path, field, value):
    claim(tmp_path, a_run())
    with pytest.raises(UserError, match=rf"other settings: {field} is \S+ there, not {value}; expected"):
        claim(tmp_path, a_run(**{field: value}))
    assert read_run(tmp_path) == a_run()


def test_more_epochs_are_accepted_and_recorded(tmp_path):
    claim(tmp_path, a_run())
    claim(tmp_path, a_run(epochs=101))
    assert read_run(tmp_path).config.epochs == 101


def test_more_epochs_are_refused_where_the_learning_rate_falls_over_them(tmp_path):
    claim(tmp_path, a_run(learning_rate_schedule="cosine"))
    with pytest.raises(UserError, match="other settings: epochs is 100 there, not 101"):
        claim(tmp_path, a_run(learning_rate_schedule="cosine", epochs=101))


@pytest.mark.parametrize("text", [*DAMAGED, '{"config": {"depth": 3}}', '{"kind": "train", "config": 3}'])
def test_a_damaged_config_json_is_named(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json (is no JSON|does not describe a run)"):
        read_run(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no run, expected a config\.json"):
        read_run(tmp_path)


def a_record(step):
    terms = {"elbo": -1.0, "rate": 0.5, "distortion": 0.5}
    return {
        "member": 0, "step": step, "epoch": step // 10, "seconds": 1.0, "train": terms, "validation": terms
    }  # fmt: skip


@pytest.mark.parametrize("text", ["123", "{}", "[]", "\xff", '{"member": 0, "step": "a"}', "", "null"])
def test_lines_of_metrics_that_are_no_records_are_left_out_and_named(tmp_path, text):
    log = MetricsLog(tmp_path, members=range(1), step=0)
    log.epoch([a_record(10)])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(text.encode("latin-1") + b"\n")
    log.epoch([a_record(20)])
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: line 2 is no record of an epoch, left out"):
        assert read_metrics(tmp_path) == [a_record(10), a_record(20)]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.0, "y": float("inf")})
    assert read_json(tmp_path / "a.json") == {"x": 1.0, "y": None}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == {"x": 1.0, "y": None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_resumed_log_drops_what_lies_after_its_step(tmp_path):
    log = MetricsLog(tmp_path, members=range(1), step=0)
    log.epoch([a_record(step) for step in (10, 20, 30)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"member": 0, "st')
    resumed = MetricsLog(tmp_path, members=range(1), step=20)
    resumed.epoch([a_record(30) | {"epoch": 4}])
    assert [(line["step"], line["epoch"]) for line in metrics_lines(tmp_path)] == [(10, 1), (20, 2), (30, 4)]


def test_naming_the_condition_that_the_data_are_made_for_changes_nothing(tmp_path):
    record_run(tmp_path, a_run(), DESCRIPTION, EXAMPLES)
    for condition in ((Label(),), None):
        record_run(tmp_path, a_run(condition=condition), DESCRIPTION, EXAMPLES)
    with pytest.raises(UserError, match="condition is label there, not none"):
        record_run(tmp_path, a_run(condition=()), DESCRIPTION, EXAMPLES)
