"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.workdir import chosen_member, define_member_choice, read_run


def main() -> int:
    num_samples = flags.FLAGS.nll_samples
    if num_samples is not None and num_samples < 1:
        raise UserError(f"nll_samples is {num_samples}, expected a whole number ≥ 1")
    workdir = Path(flags.FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)

    from cvae_jax.evaluation import bits_per_dim
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
        record["test"] |= {
            "nll": float(np.mean(nll)),
            "nll_standard_error": float(np.std(nll, ddof=1) / np.sqrt(len(nll))),
            "nll_samples": num_samples,
        }
        if session.model.likelihood.bits:
            record["test"]["nll_bits_per_dim"] = bits_per_dim(
                float(np.mean(nll)), math.prod(session.dataset.shape)
            )
    print(json.dumps(record | {"best_epoch": int(best.epoch[position])}, indent=2))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_integer(
        "nll_samples",
        None,
        "Also estimate the test split's negative log-likelihood from this many draws each.",
    )
    define_member_choice()
    cli.define_cache_flags()
    cli.run(main)
