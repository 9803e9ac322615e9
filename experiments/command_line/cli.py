"""What all scripts share: the parsing of flags, and one-line errors instead of tracebacks."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any, TextIO, cast

from absl import app, flags, logging

from cvae_jax.errors import Interrupted, UserError, printable
from cvae_jax.options import COUNT, NUMBER, SEED, WEIGHT, Real, Whole, require_within
from experiments import tasks
from experiments.command_line import interrupts, usage

_DAMAGED_PROGRAM = re.compile(r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'")
# Of flags that scripts define by hand; options of a training have theirs where they are defined.
BOUNDS: dict[str, Whole | Real] = {
    "beta": WEIGHT,
    "checkpoint_every": COUNT,
    "guidance": NUMBER,
    "judges": COUNT,
    "members_per_program": COUNT,
    "nll_samples": COUNT,
    "num": COUNT,
    "num_random": COUNT,
    "search_seed": SEED,
    "seed": SEED,
    "temperature": WEIGHT,
}
_HELP = ("--help", "-help", "-h", "-?", "--helpshort")
_FULL_HELP = ("--helpfull", "-helpfull")


class Literal:
    """A stream that shows control characters as escapes, for text that comes from users and their files."""

    def __init__(self, stream: TextIO) -> None:
        """Pass all on to a stream."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, line ends and tabs as they are."""
        return self._stream.write(printable(text, keep="\n\t"))

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stream has."""
        return getattr(self._stream, name)


def explain(error: Exception) -> str | None:
    """One line for an error that a user can correct, None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = f" {error.filename}" if error.filename else ""
        return f"cannot read or write{where}: {error.strerror or errno.errorcode[error.errno]}"
    text = str(error)
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return "cannot write: no space left on the device that holds the workdir"
    if "RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError):
        return "out of memory: lower --members_per_program of a sweep, or --batch_size"
    return None


def _report_unraisable(what: Any) -> None:
    if what.exc_type is KeyboardInterrupt:  # It came where nothing can be raised, and would be lost.
        interrupts.leave()
    # When one array of a checkpoint fails, orbax closes the loop that its other reads and writes report to.
    if str(what.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(what)


def say(kind: str, message: str) -> None:
    """One line on standard error."""
    print(f"{kind}: {printable(' '.join(message.split()))}", file=sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A warning as a line, without its place in the code."""
    if damaged := _DAMAGED_PROGRAM.match(str(message)):
        _forget_programs(damaged[1])
    say("warning", str(message))


def _forget_programs(name: str) -> None:
    """Remove compiled programs from the cache: JAX may leave half of one, and never replaces a damaged one."""
    import jax

    folder: Any = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    for path in Path(folder).glob(f"{glob.escape(name)}*"):
        path.unlink(missing_ok=True)


def require_flags_within_bounds() -> None:
    """Refuse numbers that a program would not hold, of the flags of `BOUNDS`.

    Raises:
      SettingError: naming the flag.
    """
    for name, bounds in BOUNDS.items():
        if name in flags.FLAGS and isinstance(value := flags.FLAGS[name].value, (int, float)):
            require_within(name, value, bounds)


def _parse(argv: list[str], sections: Sequence[usage.Section]) -> list[str]:
    """Set the flags, or print what is wrong with them in one line, or the help text, and end the script."""
    if any(argument in (*_HELP, *_FULL_HELP) for argument in argv[1:]):
        full = any(argument in _FULL_HELP for argument in argv[1:])
        main = sys.modules["__main__"].__doc__ or ""
        _print_help(usage.text_of(main, [*sections, *([usage.of_absl()] if full else [])]))
        sys.exit(0)
    try:
        for argument in argv:
            argument.encode()
        return flags.FLAGS(argv)
    except UnicodeEncodeError as error:
        say("error", f"the argument {error.object!r} is not UTF-8, expected UTF-8: files record it")
    except flags.Error as error:
        say("error", str(error))
    sys.exit(1)


def _print_help(text: str) -> None:
    """Print a text whose reader, such as `head`, may close the pipe before its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _set_up_streams() -> None:
    logging.set_verbosity(logging.WARNING)
    # What fails in orbax's threads is raised here as well; its log of them is pages of tracebacks.
    for name in ("absl", "asyncio"):
        getLogger(name).setLevel("CRITICAL")
    sys.unraisablehook = _report_unraisable
    warnings.showwarning = _show_warning
    # What the terminal's encoding lacks is shown as an escape.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def run(main: Callable[[], int | None], sections: Sequence[usage.Section]) -> None:
    """Parse the flags, run `main`, and turn errors that a user can correct into one line and exit status 1.

    Args:
      main: the script, which returns its exit status.
      sections: the flags, for `--help`.
    """

    def guarded(argv: list[str]) -> Any:
        _set_up_streams()
        with (
            contextlib.redirect_stdout(cast("TextIO", Literal(sys.stdout))),
            interrupts.raised() as interrupt,
        ):
            if len(argv) > 1:
                say("error", f"unexpected argument {argv[1]!r}, expected flags only")
                return 1
            try:
                # Parts of the user's own, `module:Class`, may lie in the folder that the script is called from.
                sys.path.append("")
                tasks.register()
                require_flags_within_bounds()
                return main()
            except Interrupted as interrupted:
                print(interrupted)
                return 128 + interrupted.number
            except KeyboardInterrupt:
                print(interrupts.LINE, file=sys.stderr)
                return interrupts.STATUS
            except Exception as error:
                if interrupt:  # A library made another error of it.
                    print(interrupts.LINE, file=sys.stderr)
                    return interrupts.STATUS
                message = explain(error)
                if message is None:
                    raise
                say("error", message)
                return 1
            finally:
                sys.stdout.flush()

    app.run(guarded, flags_parser=partial(_parse, sections=sections))
