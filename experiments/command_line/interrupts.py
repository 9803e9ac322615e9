"""Ctrl-C, answered in one line from a script's first import to the end of its process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGINT
LINE = "interrupted"


def leave_at_once() -> None:
    """On Ctrl-C end the process: for the time of imports and after the work, when nothing needs to be put in order.

    KeyboardInterrupt would be a traceback there, or be lost in a library that catches it.
    """
    # Who starts a script in the background may have had SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


def leave() -> None:
    """End the process as one that was interrupted."""
    os.write(2, f"{LINE}\n".encode())
    os._exit(STATUS)


def _leave(number: int, frame: FrameType | None) -> None:
    leave()


@contextmanager
def raised() -> Iterator[list[int]]:
    """Within the block Ctrl-C raises KeyboardInterrupt, so that open files are closed and half files removed.

    A second one ends the process, whatever it does.

    Yields:
      A list that is no longer empty once there was one.
    """
    received: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    try:
        yield received
    finally:
        leave_at_once()
