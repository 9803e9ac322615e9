"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.workdir import chosen_member, define_member_choice, read_run


def main() -> int:
    workdir = Path(flags.FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)

    from experiments import loop, results

    session = loop.open_session(run, cli.use_cache())
    part = session.part_of(member)
    best = results.load_population(session, part, workdir).members.best
    metrics = results.split_metrics(session, part, best)
    position = part.members.index(member)
    record = {name: members[position] for name, members in metrics.items()}
    print(json.dumps(record | {"best_epoch": int(best.epoch[position])}, indent=2))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    define_member_choice()
    cli.define_cache_flags()
    cli.run(main)
