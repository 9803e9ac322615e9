"""Train one conditional VAE: `python -m experiments.train --beta=1`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvae_jax.runs.description import require_same_run
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import training_lock
from experiments.command_line import caching, cli, settings, usage
from experiments.reports import measures
from experiments.reports.measures import Wanted
from experiments.reports.workdir import finished_summary, is_current, missing, test_line


def main() -> int:
    run, workdir = settings.single_run()
    train(run, workdir, measures.wanted(run))
    return 0


def train(run: Run, workdir: Path, wanted: Wanted) -> dict[str, Any]:
    """Train an ordinary run to its end, or on from where it was stopped.

    Args:
      run: the run.
      workdir: its folder.
      wanted: what is measured at the end.

    Returns:
      What `summary.json` holds.

    Raises:
      UserError: if it cannot be trained or measured so; if a measure fails after training, `summary.json` holds the
        others, and the same call measures again.
    """
    require_same_run(workdir, run)
    summary = finished_summary(workdir, run)
    if summary is not None and not measures.holds(measures.flat(summary), wanted):
        summary = None
    finished = summary is not None and is_current(workdir, run, workdir / "summary.json")
    if summary is not None and finished and not missing(workdir, summary["pictures"]):
        return _say_finished(workdir, summary)
    with training_lock(workdir):
        return _train(run, workdir, wanted, summary)


def _train(run: Run, workdir: Path, wanted: Wanted, summary: dict[str, Any] | None) -> dict[str, Any]:
    """Train, or make again what a finished run lacks.

    Args:
      run: the run.
      workdir: its folder, locked.
      wanted: what is measured at the end.
      summary: what `summary.json` holds, if it may be of this run and nothing is left to train and to measure.

    Returns:
      What `summary.json` holds.
    """
    from cvae_jax.runs import loop, provenance
    from cvae_jax.runs.description import record_run
    from cvae_jax.runs.session import load_member, open_session
    from experiments.reports import results

    cache = caching.use()
    session = open_session(run, cache)
    measure = measures.prepare(wanted, session, cache)
    is_ours = provenance.require_same(workdir, run, session.dataset) or (workdir / "config.json").exists()
    record_run(workdir, run, session.data, session.examples)
    (part,) = session.parts
    if summary is not None and is_ours:
        if missing(workdir, summary["pictures"]):
            results.write_pictures(session, load_member(session, workdir, 0), workdir)
            print(f"pictures are drawn again in {workdir}")
        return _say_finished(workdir, summary)
    print(f"{results.describe(session)}; results in {workdir}", flush=True)
    print(results.describe_data(session), flush=True)
    population, seconds = loop.train(session, part, workdir, results.loggers(session, part, workdir))
    summary = results.finish(session, population, seconds, workdir, measure)
    print(f"{test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    measures.require_no_error(summary)
    return summary


def _say_finished(workdir: Path, summary: dict[str, Any]) -> dict[str, Any]:
    print(f"{workdir} is finished: {summary['epochs']} epochs, {test_line(summary)}")
    return summary


if __name__ == "__main__":
    settings.define_flags()
    measured = usage.section("Measures", measures.define_flags)
    cli.run(main, [*settings.sections(), measured, usage.section("Cache", caching.define_flags)])
