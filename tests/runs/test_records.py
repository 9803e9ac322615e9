"""Configurations and runs as JSON: read as they were written, and refused by the name of file and key."""

import dataclasses
import json
import math
import re
import sys
import types

import pytest

from cvae_jax.conditions import CONDITIONS, Label, Observed
from cvae_jax.errors import SettingError, UserError
from cvae_jax.objectives import Elbo, FreeBits
from cvae_jax.options import static, traced, with_values
from cvae_jax.runs.records import config_from_record, read_file, to_record
from cvae_jax.runs.run import Run, differences, read_members, run_from_record, run_to_record
from cvae_jax.training.config import TABLES, Config, Scheduled, from_flat, replace
from cvae_jax.training.hooks import HOOKS
from cvae_jax.training.schedules import CosineDecay, CosineWarmup

OWN = types.ModuleType("own_parts")
sys.modules["own_parts"] = OWN


@dataclasses.dataclass(frozen=True)
class Scaled(Elbo):
    """A user's own objective, which wraps another one."""

    scale: float = traced(2.0, help="Of the loss.")
    names: tuple[str, ...] = static(("a",), help="Some texts.")
    inner: Elbo = FreeBits()


Scaled.__module__, OWN.Scaled = "own_parts", Scaled

CONFIGS = {
    "default": Config(),
    "flat": from_flat(
        objective="tcvae", beta=4.0, stratified=False, network="conv", condition="text,label", latent_dim=3,
        ema_decay=0.9, dropout=0.1, likelihood="gaussian", sigma=0.5, optimizer="adamw", clip_norm=1.0,
    ),
    "plain VAE": Config(condition=()),
    "fields that are no options": Config(condition=(Label(num_classes=7),)),
    "observed": Config(condition=(Observed(observed=2),)),
    "hidden": from_flat(hidden=(3, 4, 5), activation="tanh", augment=("shift", "flip"), patience=3.0),
    "schedules": Config(
        objective=FreeBits(),
        schedules=(Scheduled("free_bits", CosineWarmup(2.0)), Scheduled("weight_decay", CosineDecay())),
    ),
    "own": Config(objective=Scaled(scale=3.0, inner=FreeBits(free_bits=0.25), names=("x", "y"))),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_read_as_it_was_written(name):
    config = CONFIGS[name]
    text = json.dumps(to_record(config), allow_nan=False)
    again = config_from_record(json.loads(text), "here")
    assert again == config
    assert type(again.optimizer.learning_rate) is float
    assert json.dumps(to_record(again)) == text


@pytest.mark.parametrize("kind", [*TABLES, "condition", "hooks"])
def test_every_part_is_read_as_it_was_written(kind):
    table = {**TABLES, "condition": CONDITIONS, "hooks": HOOKS}[kind]
    for part in table.values():
        several = kind in ("condition", "hooks")
        # Nothing is checked: not every combination is a configuration.
        record = to_record(with_values(Config(), **{kind: (part(),) if several else part()}))[kind]
        found = record[0] if several else record
        options = dataclasses.asdict(part())
        assert {k: v for k, v in found.items() if k != "name"}.keys() <= options.keys()
        assert table.find(found["name"]) is part


def test_the_record_names_parts_and_their_options():
    record = to_record(CONFIGS["flat"])
    assert record["version"] == 2
    assert record["condition"] == [{"name": "text"}, {"name": "label"}]
    assert record["likelihood"] == {"name": "gaussian", "sigma": 0.5}
    assert record["hooks"] == [
        {"name": "dropout", "dropout": 0.1}, {"name": "ema_decay", "ema_decay": 0.9}
    ]  # fmt: skip
    assert record["patience"] == "inf"
    assert to_record(CONFIGS["own"])["objective"] == {
        "name": "own_parts:Scaled", "beta": 1.0, "scale": 3.0, "names": ["x", "y"],
        "inner": {"kind": "objective", "name": "free_bits", "beta": 1.0, "free_bits": 0.25},
    }  # fmt: skip
    assert to_record(CONFIGS["schedules"])["schedules"][0] == {
        "option": "free_bits", "schedule": {"kind": "schedule", "name": "cosine", "warmup_epochs": 2.0}
    }  # fmt: skip


def test_what_json_cannot_hold_is_refused():
    @dataclasses.dataclass(frozen=True)
    class WithFunction(Elbo):
        function: object = len

    assert "function" not in to_record(Config(objective=WithFunction()))["objective"]
    with pytest.raises(SettingError, match="function is a type, expected numbers, texts, parts"):
        to_record(Config(objective=WithFunction(function=int)))


def test_what_is_left_out_has_its_default():
    assert config_from_record({"version": 2}, "here") == Config()
    assert (
        config_from_record({"version": 2, "objective": {"name": "free_bits"}}, "here").objective == FreeBits()
    )


REFUSED = {
    "no object": ([], "here holds a list, expected a configuration"),
    "no version": ({}, "here: version is missing, expected 2"),
    "other version": ({"version": 1}, "here: version is 1, expected 2"),
    "unknown key": ({"version": 2, "depth": 3}, "here: unknown key depth, expected some of version, data,"),
    "unknown key of a part": (
        {"version": 2, "network": {"name": "mlp", "depth": 3}},
        "here: unknown key network.depth, expected some of hidden, activation",
    ),
    "unknown name": ({"version": 2, "prior": {"name": "cauchy"}}, "here: prior.name: prior is 'cauchy', exp"),
    "no name": ({"version": 2, "prior": {}}, "here: prior.name is missing, expected one of standard"),
    "a name alone": ({"version": 2, "prior": "flow"}, "here: prior is 'flow', expected options by name"),
    "own class that does not exist": (
        {"version": 2, "prior": {"name": "own_parts:Nothing"}}, "here: prior.name: .*cannot be imported"
    ),
    "own class of another kind": (
        {"version": 2, "prior": {"name": "own_parts:Scaled"}}, "here: prior.name: .*expected a class that extends Prior"
    ),
    "out of bounds": ({"version": 2, "objective": {"name": "elbo", "beta": -1}}, "here: objective: beta is -1.0, exp"),
    "text for a number": ({"version": 2, "epochs": "3"}, "here: epochs is 3, expected a whole number"),
    "number for a text": ({"version": 2, "data": {"dataset": 3}}, "here: data: dataset is 3, expected a text"),
    "number for true": ({"version": 2, "share_condition": 1}, "here: share_condition is 1, expected true or false"),
    "one for several": (
        {"version": 2, "network": {"name": "mlp", "hidden": 3}}, "hidden is 3, expected a list of whole numbers"
    ),
    "hooks": ({"version": 2, "hooks": {"ema_decay": 0.9}}, "here: hooks is an object, expected a list"),
    "hook": ({"version": 2, "hooks": [{"name": "emadecay"}]}, r"here: hooks\[0\].name: hook is 'emadecay', expected"),
    "schedule": (
        {"version": 2, "schedules": [{"option": "beta", "schedule": {"name": "linear"}}]},
        r"here: schedules\[0\].schedule.kind is missing, expected one of network",
    ),
    "schedule of nothing": ({"version": 2, "schedules": [{"option": "beta"}]}, r"here: schedules\[0\]: .*schedule"),
    "combination": (
        {"version": 2, "objective": {"name": "tcvae"}, "prior": {"name": "flow"}}, "here: prior is 'flow', exp"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_by_place_and_key(name):
    record, message = REFUSED[name]
    with pytest.raises(SettingError, match=message) as error:
        config_from_record(record, "here")
    assert "\n" not in str(error.value)


# Runs

MEMBERS = tuple(
    from_flat(objective="free_bits", beta=beta, latent_dim=latent_dim, clip_norm=clip_norm)
    for beta, latent_dim, clip_norm in ((1.0, 2, math.inf), (0.1, 3, 1.0))
)
RUNS = {
    "train": Run("train", (Config(),)),
    "sweep": Run("sweep", MEMBERS, members_per_program=2, data_dir="data", checkpoint_every=3),
    "without latents": Run("train", (from_flat(objective="nn", condition="observed"),)),
    "a hook of one member": Run("sweep", (Config(), from_flat(ema_decay=0.9))),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read_as_it_was_written(name):
    record = json.loads(json.dumps(run_to_record(RUNS[name]), allow_nan=False))
    assert run_from_record(record, "here") == RUNS[name]
    assert {"beta", "learning_rate"} & record["members"][0].keys()
    assert "hidden" not in record["members"][0]


def test_members_share_their_hooks():
    first, second = RUNS["a hook of one member"].members
    assert [hook.ema_decay for hook in (*first.hooks, *second.hooks)] == [0.0, 0.9]
    assert Run("train", (from_flat(dropout=0.0),)) == RUNS["train"]


def test_members_that_differ_in_what_shapes_the_program_are_refused():
    with pytest.raises(
        SettingError, match="member 1 differs from member 0 in an option that shapes the program"
    ):
        Run("sweep", (Config(), from_flat(hidden=(3,))))


def test_a_run_of_no_program_is_refused():
    with pytest.raises(SettingError, match="members_per_program is 2, expected 1 to 1"):
        Run("train", (Config(),), members_per_program=2)
    with pytest.raises(SettingError, match="checkpoint_every is 0, expected a whole number ≥ 1"):
        Run("train", (Config(),), checkpoint_every=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "play"}, "here has kind 'play', expected train or sweep"),
        ({"random_generator": "rbg"}, "here has random_generator 'rbg', expected 'threefry2x32"),
        ({"members": []}, "here: members is empty"),
        ({"members": [{"depth": 3}]}, r"here: unknown key members\[0\].depth, expected some of latent_dim"),
        ({"members": [{"beta": "a"}]}, r"here: members\[0\]: beta is a, expected a finite number ≥ 0"),
        ({"config": {"version": 1}}, "here: config: version is 1, expected 2"),
        ({"more": 1}, "here: unknown key more"),
    ],
)
def test_a_damaged_record_of_a_run_is_refused_by_key(changes, message):
    with pytest.raises(SettingError, match=message):
        run_from_record(run_to_record(RUNS["train"]) | changes, "here")
    with pytest.raises(SettingError, match="here does not describe a run of this version"):
        run_from_record({"kind": "train"}, "here")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"beta": 2.0}, ["beta is 1.0 there, not 2.0"]),
        ({"epochs": 99}, ["epochs is 100 there, not 99"]),
        ({"epochs": 101}, []),
        ({"network": "conv"}, ["network is mlp there, not conv"]),
        ({"ema_decay": 0.9}, ["ema_decay is unset there, not 0.9"]),
        ({"condition": (Label(num_classes=3),)}, ["condition is data there, not label"]),
        ({"learning_rate_schedule": "cosine", "epochs": 101},
         ["learning_rate_schedule is constant there, not cosine", "epochs is 100 there, not 101"]),
        ({"schedules": (Scheduled("beta", CosineWarmup(3.0)),)},
         ["a part has another field there, or its schedules are others"]),
    ],
)  # fmt: skip
def test_differences_of_runs_are_named(options, expected):
    new = Run("train", (replace(Config(), **options),))
    assert sorted(differences(RUNS["train"], new)) == sorted(expected)


def test_differences_of_sweeps_name_the_member():
    changed = (MEMBERS[0], replace(MEMBERS[1], beta=0.2))
    found = differences(RUNS["sweep"], dataclasses.replace(RUNS["sweep"], members=changed))
    assert found == ["beta of member 1 is 0.1 there, not 0.2"]
    wider = tuple(replace(member, hidden=(3,)) for member in MEMBERS)
    found = differences(RUNS["sweep"], dataclasses.replace(RUNS["sweep"], members=wider))
    assert found == ["hidden is (512, 512) there, not (3,)"]
    assert differences(RUNS["train"], Run("sweep", (Config(),))) == [
        "it is a single training there, not a sweep"
    ]


# Files


def test_a_file_holds_a_configuration_or_a_run(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_record(MEMBERS[1])))
    assert read_members(path) == MEMBERS[1:]
    path.write_text(json.dumps(run_to_record(RUNS["sweep"])))
    assert read_members(path) == MEMBERS


def test_yaml_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "version: 2\n"
        "objective: {name: tcvae, beta: 4}\n"
        "optimizer: {name: adamw, learning_rate: 1e-3, adam_epsilon: 5E-6, clip_norm: .inf}\n"
        "data: {binarize: none}\n"
        "likelihood: {name: gaussian}\n"
        "condition: null\n"
        "network:\n  name: mlp\n  hidden: [200, 200]\n"
        "hooks:\n  - {name: ema_decay, ema_decay: 0.999}\n"
        "patience: inf\n"
    )
    assert read_members(path) == (
        from_flat(
            objective="tcvae", beta=4.0, learning_rate=1e-3, adam_epsilon=5e-6, binarize="none",
            likelihood="gaussian", hidden=(200, 200), ema_decay=0.999,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "a.json is not JSON"),
        ("a.yaml", b"a: [", "a.yaml is not YAML"),
        ("a.json", b"\xff", "a.json is not UTF-8"),
        ("a.yaml", b"version: 2\ndepth: 3", "a.yaml: unknown key depth"),
        ("a.json", b"3", "a.json holds 3, expected a configuration"),
        ("a.json", None, "a.json does not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}.*{message}") as error:
        read_members(tmp_path / name)
    assert "\n" not in str(error.value)


def test_yaml_loads_nothing_but_data(tmp_path):
    (tmp_path / "a.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(SettingError, match="is not YAML"):
        read_file(tmp_path / "a.yaml")
