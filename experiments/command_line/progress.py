"""Progress: a bar on a terminal, plain lines elsewhere; both with ELBO, rate, distortion, speed, time left."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from cvae_jax.errors import load_package
from cvae_jax.runs.logs import Logger, Record
from cvae_jax.runs.session import Part, Session

_SECONDS_BETWEEN_LINES = 5.0


class Progress(Logger):
    """Shows the progress of a part, counted in examples."""

    def __init__(self, session: Session, part: Part) -> None:
        """Show nothing yet."""
        self._per_step = session.batch_size * len(part.members)
        self._per_epoch = session.steps_per_epoch
        self._epochs = session.run.config.epochs
        several = len(session.parts) > 1
        self._title = f"part {part.index + 1} of {len(session.parts)}" if several else ""
        self._last: dict[int, Record] = {}
        self._show: Callable[[int, str], None] = lambda examples, metrics: None
        self._bar: Any = None

    def start(self, step: int, total_steps: int, records: Sequence[Record]) -> None:
        """Show where the training goes on."""
        self._total_steps = total_steps
        self._last = {record["member"]: record for record in records}
        if step < total_steps:
            if step:
                print(f"resuming at step {step} of {total_steps}", flush=True)
            self._show = self._open(step * self._per_step)

    def step(self, step: int) -> None:
        """Show the steps made so far."""
        self._show(step * self._per_step, describe(list(self._last.values())))

    def epoch(self, records: Sequence[Record]) -> None:
        """Remember the latest validation."""
        self._last |= {record["member"]: record for record in records}

    def end(self, step: int) -> None:
        """Show why a training ended before its last epoch."""
        if step < self._total_steps:
            self.close()
            print(
                f"no member trains on: ended after epoch {step // self._per_epoch} of {self._epochs}",
                flush=True,
            )

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, done: int) -> Callable[[int, str], None]:
        total = self._total_steps * self._per_step
        if not sys.stderr.isatty():
            title = f"{self._title}: " if self._title else ""
            return _lines(total=total, done=done, epochs=self._epochs, title=title)
        self._bar = bar = load_package("tqdm", extra="experiments").tqdm(
            total=total, initial=done, unit="ex", unit_scale=True, dynamic_ncols=True, desc=self._title or None
        )  # fmt: skip

        def update(examples: int, metrics: str) -> None:
            bar.set_postfix_str(metrics, refresh=False)
            bar.update(examples - bar.n)

        return update


def describe(records: Sequence[Record]) -> str:
    """The latest validation as text; of many members the best and the worst bound."""
    if not records:
        return "first epoch, not yet validated"
    if len(records) == 1:
        return "elbo {elbo:.2f} rate {rate:.2f} distortion {distortion:.2f}".format(
            **records[0]["validation"]
        )
    terms = [record["validation"] for record in records]
    finite = [each for each in terms if each["elbo"] is not None and math.isfinite(each["elbo"])]
    text = f"{len(terms) - len(finite)} not finite" if len(finite) < len(terms) else ""
    if finite:
        best, worst = (choose(finite, key=lambda each: each["elbo"]) for choose in (max, min))
        bounds = f"best elbo {best['elbo']:.2f} (rate {best['rate']:.2f}), worst {worst['elbo']:.2f}"
        text = f"{bounds}, {text}" if text else bounds
    return text


def _lines(*, total: int, done: int, epochs: int, title: str) -> Callable[[int, str], None]:
    start, counted_from = None, done
    last, shown = -float("inf"), ""

    def update(examples: int, metrics: str) -> None:
        nonlocal start, counted_from, last, shown
        now = time.perf_counter()
        if start is None:  # The first call compiled the program: its time is not the training's speed.
            start, counted_from = now, examples
            print(f"{title}compiled; {metrics}", flush=True)
            shown = metrics
            return
        if now - last < _SECONDS_BETWEEN_LINES and examples < total:
            return
        last = now
        rate = (examples - counted_from) / max(now - start, 1e-9)
        left = (total - examples) / max(rate, 1e-9)
        epoch = f"{title}epoch {examples * epochs / total:.1f}/{epochs}"
        # A validation is shown once, not again until the next one.
        news = [] if metrics == shown else [metrics]
        shown = metrics
        print("  ".join([epoch, *news, f"{rate:,.0f} examples/s", f"{_clock(left)} left"]), flush=True)

    return update


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
