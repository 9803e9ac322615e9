"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.workdir import (
    chosen_member,
    chosen_nll_samples,
    define_member_choice,
    define_nll_samples,
    nll_name,
    read_run,
    write_atomically,
)


def main() -> int:
    num_samples, output = chosen_nll_samples(), flags.FLAGS.nll_output
    if output is not None and (num_samples is None or not output.endswith(".npz")):
        raise UserError(f"nll_output is {output}, expected a name ending in .npz, with --nll_samples")
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
    if num_samples is not None:
        params, mask = results.member_of((best.params, part.hparams.latent_mask), position)
        nll = results.test_nll(session, params, mask, num_samples)
        record["test"] |= results.nll_metrics(run.config, nll, num_samples)
        if output is not None:
            arrays: dict[str, Any] = {nll_name(run.config): nll, "c": session.dataset.test.c}
            write_atomically(Path(output), lambda file: np.savez(file, **arrays))
    results.warn_of_collapse(run, {member: record["test"]})
    print(json.dumps(record | {"best_epoch": int(best.epoch[position])}, indent=2))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    define_nll_samples()
    flags.DEFINE_string("nll_output", None, "Also write each test example's, and its label, to this .npz.")
    define_member_choice()
    cli.define_cache_flags()
    cli.run(main)
