"""Convert configurations to and from JSON, and read files."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cvae_jax.conditions import CONDITIONS
from cvae_jax.data.settings import Data
from cvae_jax.errors import SettingError
from cvae_jax.options import Part, Table, options_of, values_of
from cvae_jax.training.config import TABLES, Config, Scheduled
from cvae_jax.training.hooks import HOOKS

VERSION = 2
_TABLES: dict[str, Table] = {**TABLES, "condition": CONDITIONS, "hook": HOOKS}
# The keys of a configuration that hold no option of its own.
_PARTS = ("data", "condition", *TABLES, "schedules", "hooks")


def to_record(config: Config) -> dict[str, Any]:
    """A configuration in JSON form: each part is its name and its options; infinity is "inf".

    Example:
      >>> from cvae_jax.training.config import from_flat
      >>> record = to_record(from_flat(objective="free_bits", free_bits=0.5))
      >>> record["objective"], record["patience"]
      ({'name': 'free_bits', 'beta': 1.0, 'free_bits': 0.5}, 'inf')
    """
    record: dict[str, Any] = {"version": VERSION, "data": _fields(config.data)}
    if config.condition is None:
        record["condition"] = None
    else:
        record["condition"] = [part_to_record(CONDITIONS, condition) for condition in config.condition]
    record |= {kind: part_to_record(table, getattr(config, kind)) for kind, table in TABLES.items()}
    record["schedules"] = [_fields(scheduled) for scheduled in config.schedules]
    record["hooks"] = [part_to_record(HOOKS, hook) for hook in config.hooks]
    return record | {name: plain(getattr(config, name), name) for name in options_of(Config)}


def part_to_record(table: Table, part: Part) -> dict[str, Any]:
    """A part in JSON form: its name and its options."""
    return {"name": table.name_of(part), **_fields(part)}


def _fields(part: Any) -> dict[str, Any]:
    """The options of a part, and its other fields where they are not the default."""
    options, fields = options_of(type(part)), {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name in options or field.default is dataclasses.MISSING or value != field.default:
            fields[field.name] = plain(value, field.name)
    return fields


def plain(value: Any, name: str) -> Any:
    """A value in JSON form.

    Raises:
      SettingError: if JSON cannot hold a value of its type.
    """
    if isinstance(value, tuple):
        return [plain(each, name) for each in value]
    if isinstance(value, Part):
        return {"kind": value.kind, **part_to_record(_TABLES[value.kind], value)}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    raise SettingError(
        f"{name} is a {type(value).__name__}, expected numbers, texts, parts or tuples of them: JSON records no other"
    )


def config_from_record(record: Any, where: str) -> Config:
    """The configuration of a record. Options that are missing get their defaults.

    Args:
      record: as `to_record` makes it.
      where: it was read, for errors.

    Raises:
      SettingError: naming the place and the key, for a record of another version, an unknown key or name, or a value
        that cannot be used.
    """
    if not isinstance(record, Mapping):
        raise SettingError(f"{where} holds {_shown(record)}, expected a configuration")
    if "version" not in record or record["version"] != VERSION:
        found = record.get("version", "missing")
        raise SettingError(f"{where}: version is {found}, expected {VERSION}")
    own = options_of(Config)
    require_known(record, ("version", *_PARTS, *own), where, "")
    fields: dict[str, Any] = {}
    for kind, table in TABLES.items():
        if kind in record:
            fields[kind] = _part_of(table, record[kind], where, kind)
    if "data" in record:
        fields["data"] = _filled(Data, mapping_of(record["data"], where, "data"), where, "data")
    if record.get("condition") is not None:
        fields["condition"] = tuple(
            _part_of(CONDITIONS, each, where, key) for key, each in items_of(record, "condition", where)
        )
    fields["hooks"] = tuple(
        _part_of(HOOKS, each, where, key) for key, each in items_of(record, "hooks", where)
    )
    fields["schedules"] = tuple(
        _filled(Scheduled, mapping_of(each, where, key), where, key)
        for key, each in items_of(record, "schedules", where)
    )
    fields |= {name: _value(Config, name, record[name], where, name) for name in own if name in record}
    try:
        return Config(**fields)
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from None


def part_from_record(table: Table, found: Any, where: str) -> Any:
    """The part that `part_to_record` wrote to a record.

    Raises:
      SettingError: naming the place and the key.
    """
    return _part_of(table, found, where, table.kind)


def items_of(record: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    """The elements of the list under a key, each with a name such as "hooks[0]"."""
    found = record.get(key, [])
    if not isinstance(found, list):
        raise SettingError(f"{where}: {key} is {_shown(found)}, expected a list")
    return [(f"{key}[{i}]", each) for i, each in enumerate(found)]


def mapping_of(found: Any, where: str, key: str) -> Mapping[str, Any]:
    """The value, if it is a mapping of option names to values; otherwise an error."""
    if not isinstance(found, Mapping):
        raise SettingError(f"{where}: {key} is {_shown(found)}, expected options by name")
    return found


def _part_of(table: Table, found: Any, where: str, key: str) -> Any:
    """A part from its record: its name and its options."""
    found = dict(mapping_of(found, where, key))
    name = found.pop("name", None)
    if not isinstance(name, str):
        raise SettingError(f"{where}: {key}.name is {_shown(name)}, expected one of {', '.join(table)}")
    try:
        part = table.find(name)
    except SettingError as error:
        raise SettingError(f"{where}: {key}.name: {error}") from None
    return _filled(part, found, where, key)


def _filled(part: type[Part], found: Mapping[str, Any], where: str, key: str) -> Any:
    """An instance of a part with some of its fields."""
    names = [field.name for field in dataclasses.fields(cast("Any", part))]
    require_known(found, names, where, f"{key}.")
    values = {name: _value(part, name, value, where, f"{key}.{name}") for name, value in found.items()}
    try:
        return part(**values)
    except SettingError as error:
        raise SettingError(f"{where}: {key}: {error}") from None
    except TypeError as error:  # A field without a default is missing.
        raise SettingError(f"{where}: {key}: {error}") from None


def require_known(found: Mapping[str, Any], known: Sequence[str], where: str, prefix: str) -> None:
    """Refuse unknown keys."""
    for name in found:
        if name not in known:
            raise SettingError(
                f"{where}: unknown key {prefix}{name}, expected some of {', '.join(known) or 'none'}"
            )


def _value(part: type[Part], name: str, value: Any, where: str, key: str) -> Any:
    """The value of a field, as the part has it."""
    values = values_of(part, name)
    if isinstance(value, Mapping):
        value = dict(value)
        kind = value.pop("kind", None)
        if kind not in _TABLES:
            raise SettingError(f"{where}: {key}.kind is {_shown(kind)}, expected one of {', '.join(_TABLES)}")
        return _part_of(_TABLES[kind], value, where, key)
    if isinstance(value, list):
        return tuple(_value(part, name, each, where, f"{key}[{i}]") for i, each in enumerate(value))
    if values.type is float:
        if value in ("inf", "-inf"):
            return float(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    return value


def _shown(value: Any) -> str:
    """A value of a file, in few words."""
    match value:
        case None:
            return "missing"
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case _:
            return repr(value)


def read_file(path: Path) -> Any:
    """The contents of a JSON or YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingError(f"{path} does not exist, expected a configuration file") from None
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not UTF-8: {error}") from None
    if path.suffix in (".yaml", ".yml"):
        return _parse_yaml(text, path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingError(f"{path} is not JSON: {error}") from None


def _parse_yaml(text: str, path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which 1e-3 is a number, as in YAML 1.2: in 1.1 it is a text."""

    number = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise SettingError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
