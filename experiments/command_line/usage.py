"""The text of `--help`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

from absl import flags

from cvae_jax.options import LARGEST_INT, Option

_HELP_COLUMN = 28


class Entry(NamedTuple):
    """A flag in the text.

    Attributes:
      name: without the dashes.
      default: as it is typed, empty for none.
      text: what it does.
    """

    name: str
    default: str
    text: str


class Section(NamedTuple):
    """Flags under a title.

    Attributes:
      title: one line.
      text: what is to be known of all of them, empty for nothing.
      entries: the flags.
      level: of indentation.
    """

    title: str
    text: str
    entries: tuple[Entry, ...]
    level: int = 0


def of_option(name: str, option: Option, default: Any, *, mark: str = "") -> Entry:
    """The entry of an option.

    Args:
      name: its flat name.
      option: what is known of it.
      default: its value.
      mark: what follows the text.
    """
    allowed = ""
    if option.choices:
        allowed = f"One of {', '.join(choice for choice in option.choices if choice)}."
        if isinstance(default, tuple):
            allowed = f"Any of {', '.join(option.choices)}, with commas between."
    elif option.bounds is not None:
        expected = (option.bounds.fault(None) or "").removesuffix(f" and ≤ {LARGEST_INT}")
        expected = expected.removesuffix(f" and ≤ {LARGEST_INT:g}")
        if isinstance(default, tuple):
            allowed = f"With commas between; each {expected}."
        else:
            allowed = f"{expected[:1].upper()}{expected[1:]}."
    return Entry(name, as_typed(default), " ".join(filter(None, (option.help, allowed, mark))))


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line.

    Example:
      >>> as_typed((512, 256)), as_typed(True), as_typed(1e-3), as_typed(None)
      ('512,256', 'true', '0.001', '')
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple() | list():
            return ",".join(map(as_typed, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def of_script(without: Iterable[str]) -> Section:
    """The flags that the scripts define by hand.

    Args:
      without: names of flags that other sections list.
    """
    left_out = set(without)
    entries = [
        Entry(flag.name, as_typed(flag.default), " ".join((flag.help or "").split()))
        for module, of_module in flags.FLAGS.flags_by_module_dict().items()
        if module == "__main__" or "experiments" in module
        for flag in of_module
        if flag.name not in left_out
    ]
    return Section("Flags of this script", "", tuple(sorted(entries)))


def text_of(summary: str, sections: Iterable[Section]) -> str:
    """The whole text.

    Args:
      summary: of the script.
      sections: its flags.
    """
    width = min(max(shutil.get_terminal_size((110, 24)).columns, 60), 120)
    parts = [summary.strip(), *(_section(section, width) for section in sections)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(section: Section, width: int) -> str:
    indent = "  " * section.level
    lines = textwrap.wrap(section.title, width, initial_indent=indent, subsequent_indent=f"{indent}    ")
    if section.text:
        lines += textwrap.wrap(
            section.text, width, initial_indent=f"{indent}  ", subsequent_indent=f"{indent}  "
        )
    for entry in section.entries:
        lines += _entry(entry, f"{indent}  ", width)
    return "\n".join(lines)


def _entry(entry: Entry, indent: str, width: int) -> list[str]:
    left = f"{indent}--{entry.name}" + (f"={entry.default}" if entry.default else "")
    text = textwrap.wrap(entry.text, width - _HELP_COLUMN) or [""]
    first, rest = ([left], text) if len(left) > _HELP_COLUMN - 2 else ([], text)
    if not first:
        first, rest = [f"{left:<{_HELP_COLUMN}}{text[0]}"], text[1:]
    return [line.rstrip() for line in (*first, *(" " * _HELP_COLUMN + line for line in rest))]
