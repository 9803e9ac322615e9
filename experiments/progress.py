"""Progress: a bar on a terminal, plain lines elsewhere; both with ELBO, rate, distortion, speed, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 5.0

Report = Callable[[int, str], None]


@contextmanager
def progress(*, total: int, done: int, epochs: int, title: str = "") -> Iterator[Report]:
    """Show the progress of a run counted in examples.

    Args:
      total: examples of the whole run.
      done: examples before this start.
      epochs: of the whole run, to name the current one.
      title: of what is counted, empty for none.

    Yields:
      A function to call with the examples done so far and the metrics as text.
    """
    if sys.stderr.isatty():
        with tqdm(
            total=total, initial=done, unit="ex", unit_scale=True, dynamic_ncols=True, desc=title or None
        ) as bar:

            def update(examples: int, metrics: str) -> None:
                bar.set_postfix_str(metrics, refresh=False)
                bar.update(examples - bar.n)

            yield update
    else:
        yield _lines(total=total, done=done, epochs=epochs, title=f"{title}: " if title else "")


def _lines(*, total: int, done: int, epochs: int, title: str) -> Report:
    start, counted_from = None, done
    last = -float("inf")

    def update(examples: int, metrics: str) -> None:
        nonlocal start, counted_from, last
        now = time.perf_counter()
        if start is None:  # The first call compiled the program: it says nothing about speed.
            start, counted_from = now, examples
            print(f"{title}compiled; {metrics}", flush=True)
            return
        if now - last < _SECONDS_BETWEEN_LINES and examples < total:
            return
        last = now
        rate = (examples - counted_from) / max(now - start, 1e-9)
        left = (total - examples) / max(rate, 1e-9)
        epoch = examples * epochs / total
        print(
            f"{title}epoch {epoch:.1f}/{epochs}  {metrics}  {rate:,.0f} examples/s  {_clock(left)} left",
            flush=True,
        )

    return update


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
