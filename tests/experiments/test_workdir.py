"""The files of a run: written whole or not at all, read back as they were, refused by name."""

import pytest
from cvae_jax.config import Config, Member
from scripts import metrics_lines, read_json

from cvae_jax.errors import SettingError, UserError
from cvae_jax.training import memory
from cvae_jax.training.logs import MetricsLog, read_metrics
from cvae_jax.training.run import Run
from cvae_jax.training.workdir import claim, read_run, write_json
from experiments.sweep import ranking
from experiments.workdir import best_member, finished_rows, finished_summary, require_writable

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


def a_run(**fields):
    config = {k: fields.pop(k) for k in list(fields) if k in Config.__dataclass_fields__}
    return Run(
        kind="train",
        config=Config(**config),
        members=(Member(**fields),),
        members_per_program=1,
        data_dir=None,
        checkpoint_every=10,
    )


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


@pytest.mark.parametrize("text", ["123", "{}", "[]", "\xff", '{"member": 0, "step": "a"}', "", "null"])
def test_lines_of_metrics_that_are_no_records_are_left_out_and_named(tmp_path, capsys, text):
    log = MetricsLog(tmp_path, members=range(1), step=0)
    log.extend([a_record(10)])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(text.encode("latin-1") + b"\n")
    log.extend([a_record(20)])
    assert read_metrics(tmp_path) == [a_record(10), a_record(20)]
    warning = f"warning: {tmp_path / 'metrics.jsonl'}: line 2 is no record of an epoch, left out\n"
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize("text", ["", "{", '{"epochs": 99}'])
def test_a_summary_that_is_damaged_or_of_fewer_epochs_finishes_nothing(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert finished_summary(tmp_path, a_run()) is None


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.0, "y": float("inf")})
    assert read_json(tmp_path / "a.json") == {"x": 1.0, "y": None}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == {"x": 1.0, "y": None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_resumed_log_drops_what_lies_after_its_step(tmp_path):
    log = MetricsLog(tmp_path, members=range(1), step=0)
    log.extend([a_record(step) for step in (10, 20, 30)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"member": 0, "st')
    resumed = MetricsLog(tmp_path, members=range(1), step=20)
    resumed.extend([a_record(30) | {"epoch": 4}])
    assert [(line["step"], line["epoch"]) for line in metrics_lines(tmp_path)] == [(10, 1), (20, 2), (30, 4)]


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


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden": (2**31 - 1, 2**31 - 1)}, "hidden is 2147483647,2147483647, latent_dim is 16"),
        ({"latent_dim": 2**31 - 1}, "latent_dim is 2147483647"),
        ({"objective": "iwae", "num_samples": 2**31 - 1}, "num_samples is 2147483647"),
        ({"prior": "vamp", "pseudo_inputs": 2**31 - 1}, "pseudo_inputs is 2147483647"),
        ({"objective": "factorvae", "discriminator_width": 2**31 - 1}, "discriminator_width is 2147483647"),
        ({"prior": "mixture", "mixture_parts": 2**31 - 1}, "mixture_parts is 2147483647"),
    ],
)
def test_models_that_no_memory_holds_are_refused_before_anything_is_made(tmp_path, settings, named):
    with pytest.raises(SettingError) as error:
        open_session(a_run(**settings), tmp_path)
    assert named in str(error.value)
    assert "this takes at least " in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_is_free_may_be_taken():
    memory.require_free("num is 1", 1)
    with pytest.raises(
        SettingError, match=r"num is 1: this takes at least \S+ GiB .* expected at most the \S+ GiB"
    ):
        memory.require_free("num is 1", 2**60)


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
