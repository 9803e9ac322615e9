"""Train one conditional VAE: `python -m experiments.train --beta=4`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import cli, settings
from experiments.workdir import (
    Run,
    chosen_nll_samples,
    claim,
    define_nll_samples,
    finished_summary,
    require_same_run,
    test_line,
)


def main() -> int:
    train(*settings.single_run(), nll_samples=chosen_nll_samples())
    return 0


def train(run: Run, workdir: Path, *, nll_samples: int | None) -> dict[str, Any]:
    """Train an ordinary run to its end, or on from where it was stopped.

    Args:
      run: the run.
      workdir: its folder.
      nll_samples: draws of z per example for the test split's likelihood, None to leave it out.

    Returns:
      What `summary.json` holds.
    """
    require_same_run(workdir, run)
    if summary := finished_summary(workdir, run, nll_samples):
        print(f"{workdir} is finished: {summary['epochs']} epochs, {test_line(summary)}")
        return summary

    from experiments import loop, results

    session = loop.open_session(run, cli.use_cache())
    claim(workdir, run)
    (part,) = session.parts
    print(f"{loop.describe(session)}; results in {workdir}", flush=True)
    population, seconds = loop.train(session, part, workdir)
    summary = results.finish(session, population, seconds, workdir, nll_samples)
    print(f"{test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    return summary


if __name__ == "__main__":
    settings.define_shared_flags()
    settings.define_member_flags()
    define_nll_samples()
    cli.define_cache_flags()
    cli.run(main)
