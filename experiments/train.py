"""Train one conditional VAE: `python -m experiments.train --beta=4`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import cli, measures, settings
from experiments.measures import Wanted
from experiments.workdir import Run, claim, finished_summary, require_same_run, test_line


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
    if summary and measures.holds(measures.flat(summary), wanted):
        print(f"{workdir} is finished: {summary['epochs']} epochs, {test_line(summary)}")
        return summary

    from experiments import loop, results

    cache = cli.use_cache()
    session = loop.open_session(run, cache)
    measure = measures.prepare(wanted, session, cache)
    claim(workdir, run)
    (part,) = session.parts
    print(f"{loop.describe(session)}; results in {workdir}", flush=True)
    population, seconds = loop.train(session, part, workdir)
    summary = results.finish(session, population, seconds, workdir, measure)
    print(f"{test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    measures.require_no_error(summary)
    return summary


if __name__ == "__main__":
    settings.define_shared_flags()
    settings.define_member_flags()
    measures.define_flags()
    cli.define_cache_flags()
    cli.run(main)
