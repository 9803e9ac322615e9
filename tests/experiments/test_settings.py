"""Flags of all options: each sets its option, or is refused by name where its owner is not chosen."""

import json
import math
import re
from pathlib import Path

import pytest
from flag_values import parse

from cvae_jax.conditions import CONDITIONS, Text
from cvae_jax.data.settings import Data
from cvae_jax.errors import UserError
from cvae_jax.options import options_of, values_of
from cvae_jax.runs.description import claim
from cvae_jax.runs.records import to_record
from cvae_jax.runs.run import Run
from cvae_jax.training.config import TABLES, Config, flat, from_flat
from cvae_jax.training.hooks import HOOKS
from experiments.command_line import caching, settings, usage
from experiments.reports import measures

ROOT = Path(__file__).parents[2]
CHOICES = {**TABLES, "condition": CONDITIONS}


@pytest.fixture
def config_of(monkeypatch):
    """A function from the flags of `train` to the configuration."""

    def config(*arguments):
        parse(monkeypatch, [settings], settings.define_flags, *arguments)
        return settings.config()

    return config


@pytest.fixture
def members_of(monkeypatch):
    """A function from the flags of `sweep` to its members."""

    def members(*arguments):
        parse(monkeypatch, [settings], lambda: settings.define_flags(sweep=True), *arguments)
        return settings.sweep_members()

    return members


def typed(name, value):
    """A flag as it is typed."""
    if isinstance(value, bool):
        return f"--{'' if value else 'no'}{name}"
    return f"--{name}={usage.as_typed(value)}"


def refused(call, *arguments):
    """The one line that says why."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# What flags set


def test_no_flags_are_the_default(config_of, members_of):
    assert config_of() == Config()
    assert members_of() == (Config(),)


# Where 0.5 and 3 are out of bounds.
VALUES = {"patience": 2.0, "beta_max": 20.0}


def another(part, name, option):
    """A value that is not the default."""
    if name in VALUES:
        return VALUES[name]
    values, default = values_of(part, name), getattr(part(), name)
    if option.choices:
        value = next(each for each in option.choices if each != default)
    elif values.type is bool:
        value = not default
    else:
        value = {int: 3, float: 0.5, str: "a"}[values.type]
    return (value, option.choices[1] if option.choices else value) if values.several else value


EVERY_OPTION = [
    pytest.param(kind, choice, name, another(part, name, option), id=f"{kind}-{choice}-{name}")
    for kind, table in (("", {"config": Config, "data": Data}), *CHOICES.items())
    for choice, part in table.items()
    for name, option in options_of(part).items()
    if option.flag
]
# What some choices need beside them.
NEEDS = {
    "gsnn": ("--prior=conditional",), "hybrid": ("--prior=conditional",), "nn": (),
    "observed": ("--likelihood=bernoulli",),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "choice", "name", "value"), EVERY_OPTION)
def test_every_option_is_set_by_its_flag(config_of, kind, choice, name, value):
    chosen = (f"--{kind}={choice}",) if kind else ()
    config = config_of(*chosen, *NEEDS.get(choice, ()), typed(name, value))
    assert flat(config)[name] == value
    assert type(flat(config)[name]) is type(value)


@pytest.mark.parametrize("name", HOOKS)
def test_the_option_of_a_hook_switches_it_on(config_of, members_of, name):
    needs = {"paraphrase_weight": ("--prior=conditional", "--condition=text", "--dataset=captions")}
    (hook,) = config_of(f"--{name}=0.5", *needs.get(name, ())).hooks
    assert isinstance(hook, HOOKS[name])
    members = members_of(f"--{name}=0,0.5", *needs.get(name, ()))
    assert [flat(member)[name] for member in members] == [0.0, 0.5]


# What is refused


def test_every_option_without_its_owner_is_refused_by_name(config_of, members_of, capsys):
    """On both scripts; options that every choice of a kind has cannot be without their owner."""
    gone_through, always = [], []
    for kind, table in CHOICES.items():
        for choice, part in table.items():
            for name, option in options_of(part).items():
                if not option.flag:
                    continue
                without = [other for other in table if name not in options_of(table[other])]
                if not without:
                    always.append(name)
                for other in without:
                    message = (
                        rf"^{name} is .*, expected none with the {kind} {other}: it is an option of the {kind} .*"
                        rf"\b{choice}\b"
                    )
                    value = typed(name, getattr(part(), name))
                    needed = NEEDS.get(other, ())
                    for script in (config_of, members_of):
                        assert re.search(message, refused(script, f"--{kind}={other}", *needed, value)), name
                        gone_through.append((kind, choice, name, other))
    for switch, hook in HOOKS.items():
        for name in [name for name in options_of(hook) if name != switch]:
            value = typed(name, getattr(hook(), name))
            for script in (config_of, members_of):
                message = refused(script, value)
                assert re.match(rf"{name} is .*, expected none without {switch}", message)
                gone_through.append(("hook", switch, name, ""))
    with capsys.disabled():
        found = {(kind, choice, name) for kind, choice, name, _ in gone_through}
        print(f"\n{len(found)} options without their owner, refused {len(gone_through)} times; ", end="")
        print(f"of every choice: {', '.join(sorted(set(always)))}")
    assert len(found) > 30
    assert set(always) == {
        "adam_epsilon", "clip_norm", "learning_rate", "warmup_epochs", "weight_decay"
    }  # fmt: skip


def test_an_option_of_no_latents_is_refused(config_of):
    assert "latent_dim is 3, expected none with the objective nn" in refused(
        config_of, "--objective=nn", "--latent_dim=3"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--network=mpl",), "network is 'mpl', expected one of mlp, conv"),
        (
            ("--network=json:JSONDecoder",),
            "network is 'json:JSONDecoder', expected a class that extends Network",
        ),
        (("--beta=a",), "beta is 'a', expected a number"),
        (("--beta=1,2",), "beta is '1,2', expected a number"),
        (("--beta=-1",), "beta is -1.0, expected a finite number ≥ 0"),
        (("--epochs=1.5",), "epochs is '1.5', expected a whole number"),
        (("--hidden=512,x",), "hidden is '512,x', expected a list of whole numbers, with commas between"),
        (("--hidden=",), "hidden is"),
        (("--augment=blur",), "augment is 'blur', expected one of shift"),
        (("--conditioning=none",), "conditioning is 'none', expected one of concat, film"),
        (("--condition=label,none",), "condition is 'label,none', expected none alone"),
        (
            ("--prior=conditional", "--condition=none"),
            "prior is 'conditional', expected standard, vamp, flow",
        ),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name(config_of, arguments, message):
    assert message in refused(config_of, *arguments)


def test_static_options_of_a_sweep_have_one_value(members_of):
    assert "batch_size is '16,32', expected a whole number" in refused(members_of, "--batch_size=16,32")


# The flags of a sweep


def test_flags_make_a_grid(members_of):
    members = members_of("--seed=range(0,2)", "--beta=logspace(0.5,2,3)")
    # The seed changes fastest, whatever the order of the flags.
    assert [(m.objective.beta, m.seed) for m in members] == [(b, s) for b in (0.5, 1.0, 2.0) for s in (0, 1)]
    assert members == members_of("--beta=logspace(0.5,2,3)", "--seed=range(0,2)")


def test_flags_make_a_random_search(members_of):
    arguments = ("--num_random=3", "--beta=loguniform(0.1,10)", "--seed=0,1", "--objective=free_bits")
    members = members_of(*arguments)
    assert len(set(members)) == 3
    assert members == members_of(*arguments)
    assert members != members_of(*arguments, "--search_seed=1")
    assert "beta is 'uniform(0,1)', a distribution: expected --num_random with it" in refused(
        members_of, "--beta=uniform(0,1)"
    )
    assert "search_seed is 0, expected none without --num_random" in refused(members_of, "--search_seed=0")


# Configuration files


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return f"--config={tmp_path / name}"

    return write


FILED = from_flat(objective="tcvae", beta=4.0, mi_weight=2.0, network="conv", dropout=0.1, latent_dim=3)


def test_a_configuration_is_read_and_flags_change_it(config_of, members_of, write):
    file = write("a.json", to_record(FILED))
    assert config_of(file) == FILED
    assert members_of(file) == (FILED,)
    changed = config_of(file, "--beta=2", "--nostratified", "--ema_decay=0.9", "--seed=7")
    assert flat(changed) | {"beta": 4.0, "stratified": True, "seed": 0} == flat(FILED) | {"ema_decay": 0.9}
    members = members_of(file, "--beta=1,2")
    assert [(m.objective.beta, m.objective.mi_weight) for m in members] == [(1.0, 2.0), (2.0, 2.0)]


def test_another_choice_keeps_what_it_has_in_common_with_that_of_the_file(config_of, write):
    file = write("a.json", to_record(FILED))
    other = config_of(file, "--objective=free_bits", "--free_bits=0.5")
    assert (other.objective.beta, other.objective.free_bits) == (4.0, 0.5)
    assert "mi_weight is 1.0, expected none with the objective elbo" in refused(
        config_of, file, "--objective=elbo", "--mi_weight=1"
    )


def test_a_run_of_its_own_config_json_is_repeated(config_of, members_of, tmp_path):
    claim(tmp_path / "run", Run("train", (FILED,)))
    file = f"--config={tmp_path / 'run' / 'config.json'}"
    assert config_of(file) == FILED
    assert config_of(file, "--latent_dim=5").latent_dim == 5


def test_a_sweep_of_its_own_config_json_is_repeated(config_of, members_of, tmp_path):
    members = tuple(from_flat(beta=beta, ema_decay=decay) for beta, decay in ((1.0, 0.0), (4.0, 0.9)))
    run = Run("sweep", members, members_per_program=2)
    claim(tmp_path / "sweep", run)
    file = f"--config={tmp_path / 'sweep' / 'config.json'}"
    assert members_of(file) == run.members
    found = members_of(file, "--seed=0,1")
    settings = [(m.objective.beta, m.hooks[0].ema_decay, m.seed) for m in found]
    assert settings == [(1.0, 0.0, 0), (1.0, 0.0, 1), (4.0, 0.9, 0), (4.0, 0.9, 1)]
    assert "holds a sweep of 2 members, expected one training" in refused(config_of, file)
    assert "holds 2 members, expected one with --num_random" in refused(members_of, file, "--num_random=3")
    assert "member 1 is member 0 again" in refused(members_of, file, "--beta=2", "--ema_decay=0.5")


def test_yaml_is_read(config_of, write):
    file = write(
        "a.yaml", "version: 2\nobjective: {name: free_bits, free_bits: 5e-1}\ncondition: [{name: text}]\n"
    )
    config = config_of(file)
    assert (config.objective.free_bits, config.condition) == (0.5, (Text(),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 2, "depth": 3}, "a.json: unknown key depth, expected some of version"),
        ({"version": 2, "network": {"name": "mlp", "depth": 3}}, "a.json: unknown key network.depth"),
        ({"version": 1}, "a.json: version is 1, expected 2"),
        ({"hidden": [512]}, "a.json: version is missing, expected 2"),
        ("{", "a.json is not JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(config_of, write, content, message):
    assert message in refused(config_of, write("a.json", content))


# Help


@pytest.mark.parametrize("sweep", [False, True])
def test_help_lists_every_option_under_its_owner(monkeypatch, sweep):
    monkeypatch.setenv("COLUMNS", "110")
    values = parse(monkeypatch, [settings], lambda: settings.define_flags(sweep=sweep))
    sections = settings.sections(sweep=sweep)
    text = usage.text_of("Summary.", sections)
    assert max(map(len, text.splitlines())) <= 120
    owner = None
    listed = {}
    for line in text.splitlines():
        if match := re.match(r"    (\w+) {2,}\S", line):
            owner = match[1]
        elif match := re.match(r" +--(\w+)", line):
            listed.setdefault(match[1], []).append(owner)
    for table in TABLES.values():
        for choice, part in table.items():
            for name, option in options_of(part).items():
                assert (choice in listed.get(name, [])) == option.flag, (choice, name)
    assert "      --beta=1                Weight of the KL, in a loss summed over pixels and latents." in text
    assert "      --beta=1                As under elbo." in text
    assert "A whole number ≥ 1." in text
    assert "One of float32, bfloat16." in " ".join(text.split())
    assert ("[sweep]" in text) == sweep
    # Every flag of an option is listed, and none has a default of its own.
    for name in settings.options():
        assert name in listed
        assert values[name].default is None


def test_paths_are_recorded_as_they_are_from_any_folder(monkeypatch, tmp_path, config_of):
    monkeypatch.chdir(tmp_path)
    assert config_of("--dataset=my.npz").data.dataset == str(tmp_path / "my.npz")
    assert config_of("--dataset=mnist").data.dataset == "mnist"
    (tmp_path / "my.json").write_text(json.dumps(to_record(from_flat(dataset="my.npz"))))
    assert config_of("--config=my.json").data.dataset == str(tmp_path / "my.npz")
    config_of("--data_dir=tfds")
    run, workdir = settings.single_run()
    assert run.data_dir == str(tmp_path / "tfds")
    assert workdir == Path("runs/digits-mlp-beta1-z16-seed0")


# Flags of scripts

# Flags that are defined by hand: what they belong to, or None for those that always do something.
OWNERS = {
    "best": "a sweep", "member": "a sweep", "beta": "a multirate model", "guidance": "condition dropout",
    "label": "the condition", "text": "the condition", "example": "the condition", "condition_file": "the condition",
    "judges": "sample_quality", "temperature": "sample_quality", "split": "a measure", "nll_output": "nll_samples",
    "search_seed": "num_random",
    **dict.fromkeys((
        "cache_dir", "checkpoint_every", "compare", "compilation_cache", "config", "data_dir", "dataset",
        "disentanglement", "epochs", "experiment", "inception_features", "latent_dim", "learning_rate",
        "members_per_program", "network", "nll_samples", "num", "num_random", "observed", "only", "output",
        "sample_quality", "seed", "stages", "workdir",
    )),
}  # fmt: skip


def test_every_flag_that_is_defined_by_hand_has_an_owner_or_needs_none():
    source = "".join(path.read_text() for path in sorted((ROOT / "experiments").rglob("*.py")))
    defined = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source))
    assert defined == set(OWNERS)


MEASURES = ("--judges=1", "--temperature=1", "--split=test")


@pytest.mark.parametrize("argument", MEASURES)
def test_measures_that_do_nothing_are_refused_by_name(monkeypatch, argument):
    parse(monkeypatch, [], measures.define_flags, argument)
    name = argument[2:].partition("=")[0]
    assert refused(measures.wanted, Run("train", (Config(),))).startswith(f"{name} is ")
    parse(monkeypatch, [], measures.define_flags, argument, "--sample_quality")
    assert measures.wanted(Run("train", (Config(),))) == measures.Wanted(sample_quality=True)


def test_no_script_defines_a_flag_twice(monkeypatch):
    """An option of a part must not have the name of a flag of the scripts that have all options."""

    def define():
        settings.define_flags(sweep=True)
        measures.define_flags()
        caching.define_flags()

    parse(monkeypatch, [settings], define, "--beta=1,2")
    assert math.isinf(Config().patience)
