"""Errors that a user can correct, and text of users made safe to print."""

from __future__ import annotations

import importlib
import unicodedata
from typing import Any

# Control characters, surrogates, and separators of lines and paragraphs that no one sees.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
# Formats are mostly harmless, and joiners belong to some scripts; these turn the direction of what follows.
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class UserError(Exception):
    """Something that a user can correct; the message is one line."""


class SettingError(UserError, ValueError):
    """An option has a value that cannot be used."""


class DataError(UserError, ValueError):
    """Data cannot be used."""


class AudioError(UserError, ValueError):
    """Sound cannot be used, or librosa is missing."""


class CheckpointError(UserError, RuntimeError):
    """No checkpoint can be read, or one cannot be written."""


class LockedError(Exception):
    """Another process holds a lock; the message is what that process wrote into the file."""


class Interrupted(Exception):
    """A signal asked a training to stop, and its state is saved.

    Attributes:
      number: of the signal.
    """

    def __init__(self, message: str, *, number: int) -> None:
        """Describe what was saved, in one line."""
        super().__init__(message)
        self.number = number


def load_package(name: str, *, extra: str) -> Any:
    """A module of a package that not every user needs.

    Args:
      name: of the module.
      extra: of cvae_jax that installs it.

    Raises:
      UserError: naming the extra, if the module is not there.

    Example:
      >>> load_package("unknown_package", extra="experiments")
      Traceback (most recent call last):
      cvae_jax.errors.UserError: this needs unknown_package: pip install 'cvae_jax[experiments]'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise UserError(f"this needs {name}: pip install 'cvae_jax[{extra}]'") from None


def printable(text: str, *, keep: str = "") -> str:
    r"""Text with its control characters written as escapes.

    Args:
      text: any text.
      keep: control characters to leave.

    Example:
      >>> print(printable("a\x1b[31m red\n“word”"))
      a\x1b[31m red\n“word”
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if (unicodedata.category(char) in _ESCAPED or char in _TURNING) and char not in keep
        else char
        for char in text
    )


def shortened(text: str, most: int) -> str:
    """The text, its end left out where it is longer than so many characters.

    Example:
      >>> shortened("a long text", 7)
      'a long…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"
