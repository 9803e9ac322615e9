"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.workdir import read_run


def main() -> int:
    from experiments import loop, results

    workdir = Path(flags.FLAGS.workdir)
    run = read_run(workdir)
    session = loop.open_session(run, cli.use_cache())
    population = results.load_population(session, workdir)
    best = population.members.best
    metrics = results.split_metrics(session, best)
    print(
        json.dumps(
            {name: members[0] for name, members in metrics.items()} | {"best_epoch": int(best.epoch[0])},
            indent=2,
        )
    )
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    cli.define_cache_flags()
    cli.run(main)
