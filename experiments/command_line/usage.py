"""The text of `--help`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from absl import flags

from cvae_jax.options import LARGEST_INT, LARGEST_SEED, Option

_HELP_COLUMN = 30


class Entry(NamedTuple):
    """A flag in the text, or a name that a flag can have.

    Attributes:
      left: what is typed: `--beta=1` with its default, or a name alone.
      text: what it does.
      level: of indentation.
    """

    left: str
    text: str
    level: int = 0


class Section(NamedTuple):
    """Flags under a title.

    Attributes:
      title: one line.
      entries: the flags.
      text: what is to be known of all of them, empty for nothing.
    """

    title: str
    entries: tuple[Entry, ...]
    text: str = ""


# What absl defines is rarely needed.
_ABSL = Section("Flags of absl", (), "--flagfile=FILE reads flags from a file; --helpfull lists all others.")


def section(title: str, *define: Callable[[], None]) -> Section:
    """Define flags, and list them under a title.

    Args:
      title: one line.
      *define: functions that define flags.
    """
    before = set(flags.FLAGS)
    for each in define:
        each()
    return Section(title, tuple(of_flag(name) for name in flags.FLAGS if name not in before))


def of_flag(name: str, *, level: int = 0) -> Entry:
    """The entry of a flag that is defined by hand."""
    flag = flags.FLAGS[name]
    text, values = " ".join((flag.help or "").split()), getattr(flag.parser, "enum_values", None)
    if values:
        text = text.removeprefix(f"<{'|'.join(values)}>: ") + f" One of {', '.join(values)}."
    return Entry(_left(name, flag.default), text, level)


def _left(name: str, default: Any) -> str:
    """A flag as it is typed, with its default."""
    typed = "" if default is False else as_typed(default)
    return f"--{name}" + (f"={typed}" if typed else "")


def of_absl() -> Section:
    """All flags that scripts do not define: those of absl, and of libraries."""
    found = {
        flag.name
        for module, of_module in flags.FLAGS.flags_by_module_dict().items()
        if module != "__main__" and not module.startswith("experiments")
        for flag in of_module
    }
    return Section("Flags of absl and of libraries", tuple(of_flag(name) for name in sorted(found)))


def of_option(name: str, option: Option, default: Any, *, mark: str = "", level: int = 0) -> Entry:
    """The entry of an option.

    Args:
      name: its flat name.
      option: what is known of it.
      default: its value.
      mark: what follows the text.
      level: of indentation.
    """
    allowed = ""
    if option.choices:
        allowed = f"One of {', '.join(choice for choice in option.choices if choice)}."
        if isinstance(default, tuple):
            allowed = f"Any of {', '.join(option.choices)}, with commas between."
    elif option.bounds is not None:
        expected = option.bounds.fault(None) or ""
        for largest in (f"{LARGEST_INT}", f"{LARGEST_INT:g}", f"{LARGEST_SEED}"):
            expected = expected.removesuffix(f" and ≤ {largest}")
        if isinstance(default, tuple):
            allowed = f"With commas between; each {expected}."
        else:
            allowed = f"{expected[:1].upper()}{expected[1:]}."
    return Entry(_left(name, default), " ".join(filter(None, (option.help, allowed, mark))), level)


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


def text_of(summary: str, sections: Iterable[Section]) -> str:
    """The whole text: absl's own flags come last.

    Args:
      summary: of the script.
      sections: its flags.
    """
    width = min(max(shutil.get_terminal_size((110, 24)).columns, 60), 120)
    parts = [summary.strip(), *(_section(section, width) for section in (*sections, _ABSL))]
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(section: Section, width: int) -> str:
    lines = [section.title]
    lines += textwrap.wrap(section.text, width, initial_indent="  ", subsequent_indent="  ")
    for entry in section.entries:
        lines += _entry(entry, width)
    return "\n".join(lines)


def _entry(entry: Entry, width: int) -> list[str]:
    left = "  " * (entry.level + 1) + entry.left
    text = textwrap.wrap(entry.text, width - _HELP_COLUMN) or [""]
    first, rest = ([left], text) if len(left) > _HELP_COLUMN - 2 else ([], text)
    if not first:
        first, rest = [f"{left:<{_HELP_COLUMN}}{text[0]}"], text[1:]
    return [line.rstrip() for line in (*first, *(" " * _HELP_COLUMN + line for line in rest))]
