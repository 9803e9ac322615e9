"""The flags of a training, made from the options of its parts, and the configurations that they describe."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from cvae_jax.conditions import CONDITIONS
from cvae_jax.data.settings import Data
from cvae_jax.errors import UserError
from cvae_jax.options import Option, Part, Table, Values, options_of, values_of
from cvae_jax.runs.run import Run, read_members
from cvae_jax.training import grid as search
from cvae_jax.training.config import TABLES, Config, name_of, replace, traced_options
from cvae_jax.training.grid import Uniform
from cvae_jax.training.hooks import HOOKS, Hook
from experiments import tasks
from experiments.command_line import lists, paths, usage
from experiments.command_line.usage import Entry, Section

FLAGS = flags.FLAGS

_CHOICES: dict[str, Table] = {"condition": CONDITIONS, **TABLES}
_CHOICE_HELP = {
    "condition": "What the model is conditioned on; several with commas between, none for a plain VAE. If not set, "
    "what the dataset has:",
    "network": "The layers of encoder and decoder:",
    "likelihood": "p(x|z,c), the distribution of the data:",
    "prior": "p(z|c), the distribution of the latents:",
    "objective": "The loss that training minimizes:",
    "optimizer": "What updates the parameters:",
    "schedule": "How beta, or the target of capacity, rises: its factor after t of N steps:",
    "learning_rate_schedule": "How the learning rate changes: its factor by epoch:",
}
_SEVERAL = "values with commas between, linspace(first,last,count), logspace(first,last,count), range(first,end), or " \
    "with --num_random also uniform(low,high), loguniform(low,high)"  # fmt: skip


class Found(NamedTuple):
    """An option of a part.

    Attributes:
      owner: the part's class.
      option: what is known of it.
      values: what its values are.
      default: its value in a new part.
    """

    owner: type[Part]
    option: Option
    values: Values
    default: Any


def _owners() -> Iterator[type[Part]]:
    """All parts that have options; in a sweep the last one's, such as the seed, change fastest."""
    for table in (*_CHOICES.values(), HOOKS):
        yield from table.values()
    yield from (Data, Config)


def _options_of(part: type[Part]) -> dict[str, Found]:
    """The options of a part that have flags."""
    defaults = {name: getattr(part(), name) for name in options_of(part)}
    return {
        name: Found(part, option, values_of(part, name), defaults[name])
        for name, option in options_of(part).items()
        if option.flag
    }


def options() -> dict[str, Found]:
    """The options of all parts by flat name; of parts that share a name the first one's."""
    found: dict[str, Found] = {}
    for part in _owners():
        for name, each in _options_of(part).items():
            first = found.setdefault(name, each)
            if (first.values, first.option.traced) != (each.values, each.option.traced):
                raise TypeError(
                    f"{name} is an option of {first.owner.__name__} and of {part.__name__}, expected it to be of the "
                    "same type, static in both or traced in both"
                )
    return found


def define_flags(*, sweep: bool = False) -> None:
    """Flags of the options of all parts, and of how they train.

    None of the options has a default here, so that it is known which of them are set.

    Args:
      sweep: whether traced options take several values.
    """
    tasks.register()
    flags.DEFINE_string(
        "config", None,
        "File of settings in JSON or YAML, such as the config.json of a run. Flags replace what it holds.",
    )  # fmt: skip
    for kind in _CHOICES:
        flags.DEFINE_string(kind, None, _CHOICE_HELP.get(kind, ""))
    for name, found in options().items():
        define = flags.DEFINE_bool if found.values == Values(bool, several=False) else flags.DEFINE_string
        define(name, None, found.option.help)
    folder = "sweeps" if sweep else "runs"
    flags.DEFINE_string(
        "workdir", None, f"Folder of the results; if not set, {folder}/ and a name made of the settings."
    )
    paths.define_data_dir()
    flags.DEFINE_integer("checkpoint_every", 10, "Epochs between checkpoints; the last epoch always has one.")
    if sweep:
        _define_search_flags()


def _define_search_flags() -> None:
    flags.DEFINE_integer(
        "num_random", None, "Train this many members, drawn at random, instead of all combinations."
    )
    flags.DEFINE_integer("search_seed", 0, "Seed of the draws of --num_random.")
    flags.DEFINE_integer(
        "members_per_program", None,
        "Members that train at the same time; the others follow in equal parts, with the same compiled program. If not "
        "set, as many as fit into the devices' free memory, or into 4 GiB where a device does not report it.",
    )  # fmt: skip


# What the flags describe


def config() -> Config:
    """The configuration that the flags describe.

    Raises:
      UserError: naming the flag that cannot be used.
    """
    base, *others = _bases()
    if others:
        raise UserError(
            f"{FLAGS.config} holds a sweep of {1 + len(others)} members, expected one training: experiments.sweep "
            "takes it"
        )
    axes, single = _set_flags(several=False)
    return replace(base, **single, **axes)


def sweep_members() -> tuple[Config, ...]:
    """The members that the flags of a sweep describe.

    Raises:
      UserError: naming the flag that cannot be used.
    """
    axes, single = _set_flags(several=True)
    bases = _bases()
    values = {name: axis for name, axis in axes.items() if not isinstance(axis, Uniform)}
    # Members of a file may differ where a flag sets them alike.
    shared = replace(bases[0], **single, **{name: axis[0] for name, axis in values.items() if len(axis)})
    if FLAGS.num_random is not None:
        if len(bases) > 1:
            raise UserError(f"{FLAGS.config} holds {len(bases)} members, expected one with --num_random")
        return search.members(
            shared, search.random_search(shared, FLAGS.num_random, FLAGS.search_seed, **axes)
        )
    if FLAGS["search_seed"].present:
        raise UserError(f"search_seed is {FLAGS.search_seed}, expected none without --num_random")
    for name, axis in axes.items():
        if isinstance(axis, Uniform):
            raise UserError(f"{name} is {FLAGS[name].value!r}, a distribution: expected --num_random with it")
    combinations = search.grid(**values)
    each = [{**_traced_of(base, bases[0]), **settings} for base in bases for settings in combinations]
    return search.members(shared, each)


def _traced_of(base: Config, first: Config) -> dict[str, Any]:
    """The traced options of a member of a file that differ from those of its first member."""
    before = traced_options(first)
    return {name: value for name, value in traced_options(base).items() if value != before[name]}


def _bases() -> tuple[Config, ...]:
    """The configurations of --config, or the default one."""
    members = read_members(Path(FLAGS.config)) if FLAGS.config is not None else (Config(),)
    return tuple(replace(member, dataset=paths.dataset(member.data.dataset)) for member in members)


def _set_flags(*, several: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The traced options that flags set, and other options and choices.

    Args:
      several: whether traced options have lists of values.
    """
    axes: dict[str, Any] = {}
    single: dict[str, Any] = {kind: FLAGS[kind].value for kind in _CHOICES if FLAGS[kind].value is not None}
    for name, found in options().items():
        text = FLAGS[name].value
        if text is None:
            continue
        if several and found.option.traced:
            axes[name] = lists.parse(name, text, whole=found.values.type is int)
        elif isinstance(text, bool):
            single[name] = text
        else:
            single[name] = lists.single(name, text, found.values)
    if "dataset" in single:
        single["dataset"] = paths.dataset(single["dataset"])
    return axes, single


def single_run() -> tuple[Run, Path]:
    """The run of one member that the flags describe, and its workdir."""
    one = config()
    beta = traced_options(one).get("beta")
    parts = [
        Path(one.data.dataset).stem,
        name_of(one, "network"),
        *([] if beta is None else [f"beta{beta:g}"]),
    ]
    name = "-".join([*parts, f"z{one.latent_dim}", f"seed{one.seed}"])
    run = Run("train", (one,), data_dir=paths.data_dir(), checkpoint_every=FLAGS.checkpoint_every)
    return run, Path(FLAGS.workdir or f"runs/{name}")


def sweep_run(members: tuple[Config, ...], members_per_program: int) -> Run:
    """The run of a sweep's members."""
    return Run(
        "sweep",
        members,
        members_per_program=members_per_program,
        data_dir=paths.data_dir(),
        checkpoint_every=FLAGS.checkpoint_every,
    )


# Help

# Choices, options and flags by group, the most used first. What no group names is listed with its owner: options of
# the data, of hooks with the condition that they need or the optimizer, anything else with the model.
_GROUPS = {
    "Data": ("dataset", "data_dir", "target_feature", "binarize", "augment", "data_seed"),
    "Model": ("latent_dim", "network", "likelihood", "prior", "compute_dtype"),
    "Condition": ("condition", "condition_feature", "conditioning", "share_condition"),
    "Objective": ("objective", "schedule"),
    "Optimizer": ("epochs", "batch_size", "seed", "patience", "optimizer", "learning_rate_schedule"),
    "Sweep": ("num_random", "search_seed", "members_per_program"),
    "Output": ("workdir", "checkpoint_every", "config"),
}
_INTRODUCTION = (
    "--dataset, --condition, --network, --latent_dim, --likelihood, --beta, --epochs, --learning_rate, --workdir. An "
    "option under a name, such as --hidden under mlp, is refused unless that name is chosen. In place of a name, "
    "module:Class selects a class of your own."
)


def sections(*, sweep: bool = False) -> list[Section]:
    """All flags of `define_flags` in groups, for `--help`: the options of a choice under its names."""
    several = f" Options marked [sweep] take several values: {_SEVERAL}." if sweep else ""
    names = {title: list(group) for title, group in _GROUPS.items() if sweep or title != "Sweep"}
    named = {name for group in names.values() for name in group}
    for kind in _CHOICES:
        names["Model"] += [] if kind in named else [kind]
    for part in (Data, Config, *HOOKS.values()):
        names[_group_of(part)] += [name for name in _options_of(part) if name not in named]
    own = {
        name: found for part in (Data, Config, *HOOKS.values()) for name, found in _options_of(part).items()
    }

    def entries(name: str) -> list[Entry]:
        if name in _CHOICES:
            return _choice(name, sweep=sweep)
        return [_option(name, own[name], sweep=sweep) if name in own else usage.of_flag(name)]

    grouped = [
        Section(title, tuple(entry for name in group for entry in entries(name)))
        for title, group in names.items()
    ]
    return [Section("Most used", (), _INTRODUCTION + several), *grouped]


def _group_of(part: type[Part]) -> str:
    """The group of those options of a part that no group names."""
    if issubclass(part, Hook):
        return "Condition" if part.needs_condition else "Optimizer"
    return "Data" if part is Data else "Model"


def _choice(kind: str, *, sweep: bool) -> list[Entry]:
    """A choice, its names, and under each its options; what is as under a name before is not explained again."""
    chosen = "" if kind == "condition" else f"={name_of(Config(), kind)}"
    entries = [Entry(f"--{kind}{chosen}", _CHOICE_HELP.get(kind, ""))]
    seen: dict[Entry, str] = {}
    for choice, part in _CHOICES[kind].items():
        entries.append(Entry(choice, _summary(part), level=1))
        for name, found in _options_of(part).items():
            entry = _option(name, found, sweep=sweep, level=2)
            first = seen.setdefault(entry, choice)
            as_before = entry._replace(text=f"As under {first}.")
            entries.append(entry if first == choice else as_before)
    return entries


def _option(name: str, found: Found, *, sweep: bool, level: int = 0) -> Entry:
    mark = "[sweep]" if sweep and found.option.traced else ""
    return usage.of_option(name, found.option, found.default, mark=mark, level=level)


def _summary(part: type[Part]) -> str:
    """The first line of a part's docstring, empty for the one that dataclasses make."""
    text = (inspect.getdoc(part) or "").partition("\n")[0]
    return "" if text.startswith(f"{part.__name__}(") else text
