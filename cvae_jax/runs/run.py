"""A run: the members that train together, and what `config.json` records of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cvae_jax.conditions import Condition
from cvae_jax.conditions.several import parts_of
from cvae_jax.errors import SettingError
from cvae_jax.options import COUNT, require_within
from cvae_jax.rng import GENERATOR
from cvae_jax.runs.records import (
    config_from_record,
    items_of,
    mapping_of,
    plain,
    read_file,
    require_known,
    to_record,
)
from cvae_jax.training.config import Config, flat, name_of, replace, traced_options
from cvae_jax.training.hooks import HOOKS
from cvae_jax.training.hparams import alike


@dataclasses.dataclass(frozen=True)
class Run:
    """A training of one or several members, as `config.json` records it.

    Attributes:
      kind: `train` for one member alone, or `sweep`.
      members: the configuration of each; they differ in traced options alone.
      members_per_program: how many train at once.
      data_dir: where TFDS keeps prepared datasets, None for its default.
      checkpoint_every: epochs between checkpoints.
    """

    kind: Literal["train", "sweep"]
    members: tuple[Config, ...]
    members_per_program: int = 1
    data_dir: str | None = None
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot be trained as one run."""
        object.__setattr__(self, "members", alike(self.members))
        require_within("checkpoint_every", self.checkpoint_every, COUNT)
        if not 1 <= self.members_per_program <= len(self.members):
            raise SettingError(
                f"members_per_program is {self.members_per_program}, expected 1 to {len(self.members)}, "
                "the number of members"
            )
        for i, member in enumerate(self.members):
            if replace(self.config, **_differences(self.config, member)) != member:
                raise SettingError(
                    f"member {i} differs from member 0 in an option of a part that has no name of its own, expected "
                    "it to differ in options by flat name alone"
                )

    @property
    def config(self) -> Config:
        """The configuration of the first member. All members have the same static options."""
        return self.members[0]

    def with_condition(self, made_for: Condition | None) -> Run:
        """This run. If it names no condition, it gets the condition that belongs to its data."""
        if self.config.condition is not None:
            return self
        condition = tuple(part.unbound() for part in parts_of(made_for))
        return dataclasses.replace(
            self, members=tuple(dataclasses.replace(member, condition=condition) for member in self.members)
        )

    def with_dataset(self, name: str) -> Run:
        """This run, with its data under another name or in another file."""
        members = (
            dataclasses.replace(member, data=dataclasses.replace(member.data, dataset=name))
            for member in self.members
        )
        return dataclasses.replace(self, members=tuple(members))


def _differences(one: Config, other: Config) -> dict[str, Any]:
    """The traced options in which a member differs from another, with its values."""
    before = traced_options(one)
    return {name: value for name, value in traced_options(other).items() if value != before[name]}


def run_to_record(run: Run) -> dict[str, Any]:
    """A run in JSON form; infinity is "inf"."""
    members = [
        {name: plain(value, name) for name, value in traced_options(member).items()} for member in run.members
    ]
    return {
        "kind": run.kind,
        "config": to_record(run.config),
        "members": members,
        "members_per_program": run.members_per_program,
        "data_dir": run.data_dir,
        "checkpoint_every": run.checkpoint_every,
        "random_generator": GENERATOR,
    }


def run_from_record(record: Any, where: str) -> Run:
    """The run of a record.

    Args:
      record: as `run_to_record` makes it.
      where: it was read, for errors.

    Raises:
      SettingError: naming the place and the key.
    """
    keys = (
        "kind", "config", "members", "members_per_program", "data_dir", "checkpoint_every", "random_generator"
    )  # fmt: skip
    if not isinstance(record, Mapping) or not set(keys) <= set(record):
        raise SettingError(f"{where} does not describe a run of this version")
    require_known(record, keys, where, "")
    if record["kind"] not in ("train", "sweep"):
        raise SettingError(f"{where} has kind {record['kind']!r}, expected train or sweep")
    if record["random_generator"] != GENERATOR:
        raise SettingError(
            f"{where} has random_generator {record['random_generator']!r}, expected {GENERATOR!r}"
        )
    config = config_from_record(record["config"], f"{where}: config")
    members = []
    for key, each in items_of(record, "members", where):
        options = mapping_of(each, where, key)
        known = traced_options(config)
        require_known(options, tuple(known), where, f"{key}.")
        values = {name: float(v) if v in ("inf", "-inf") else v for name, v in options.items()}
        try:
            members.append(replace(config, **{k: v for k, v in values.items() if v != known[k]}))
        except SettingError as error:
            raise SettingError(f"{where}: {key}: {error}") from None
    if not members:
        raise SettingError(f"{where}: members is empty, expected at least one")
    try:
        return Run(
            kind=record["kind"],
            members=tuple(members),
            members_per_program=record["members_per_program"],
            data_dir=record["data_dir"],
            checkpoint_every=record["checkpoint_every"],
        )
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from None


def read_members(path: Path) -> tuple[Config, ...]:
    """Read the configurations in a file: one, or one per member if the file describes a run.

    Args:
      path: JSON or YAML as `to_record` makes it, or a run's `config.json`.

    Raises:
      SettingError: naming the file and the key.
    """
    record = read_file(path)
    if isinstance(record, Mapping) and "config" in record:
        return run_from_record(record, str(path)).members
    return (config_from_record(record, str(path)),)


_KINDS = {"train": "a single training", "sweep": "a sweep"}
_MOST_NAMED = 6


def differences(old: Run, new: Run) -> list[str]:
    """What differs between a recorded run and the run that is to continue it, in words.

    More epochs are no difference, unless a schedule depends on their number.
    """
    if old.kind != new.kind:
        return [f"it is {_KINDS[old.kind]} there, not {_KINDS[new.kind]}"]
    if len(old.members) != len(new.members):
        return [f"it has {len(old.members)} members there, not {len(new.members)}"]
    if old.members_per_program != new.members_per_program:
        return [f"members_per_program is {old.members_per_program} there, not {new.members_per_program}"]
    found: list[str] = []
    for i, (before, after) in enumerate(zip(old.members, new.members, strict=True)):
        whose = "" if new.kind == "train" else f" of member {i}"
        traced = traced_options(after)
        # Static options are those of all members.
        found += [
            f"{name}{whose if name in traced else ''} is {a} there, not {b}"
            for name, a, b in _differing(_named(before), _named(after))
            if (i == 0 or name in traced) and not (name == "epochs" and _may_go_on(before, after))
        ]
        if not found and dataclasses.replace(before, epochs=after.epochs) != after:
            found.append(f"a part{whose} has another field there, or its schedules are others")
    return found[:_MOST_NAMED]


def _named(config: Config) -> dict[str, Any]:
    return {**flat(config), "condition": name_of(config, "condition")}


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names and values of options that differ; of those that one of the two lacks, the ones that switch on a hook."""
    names = [name for name in {**after, **before} if (name in before and name in after) or name in HOOKS]
    values = [(name, before.get(name, "unset"), after.get(name, "unset")) for name in names]
    return [(name, a, b) for name, a, b in values if a != b]


def _may_go_on(before: Config, after: Config) -> bool:
    """Whether a training of more epochs begins as one of fewer."""
    schedules = (after.schedule, after.learning_rate_schedule, *(each.schedule for each in after.schedules))
    return after.epochs > before.epochs and not any(
        part.over_all_epochs for part in (*schedules, *after.hooks)
    )
