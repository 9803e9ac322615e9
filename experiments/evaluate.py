"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

import json
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

    from experiments import loop, results

    session = loop.open_session(run, cli.use_cache())
    if flags.FLAGS.disentanglement:
        results.require_factors(session.dataset)
    part = session.part_of(member)
    best = results.load_population(session, part, workdir).members.best
    metrics = results.split_metrics(session, part, best)
    position = part.members.index(member)
    record = {name: members[position] for name, members in metrics.items()}
    params, mask = results.member_of((best.params, part.hparams.latent_mask), position)
    if num_samples is not None:
        nll = results.test_nll(session, params, mask, num_samples)
        record["test"] |= {
            "nll": float(np.mean(nll)),
            "nll_standard_error": float(np.std(nll, ddof=1) / np.sqrt(len(nll))),
            "nll_samples": num_samples,
        }
    if flags.FLAGS.disentanglement:
        record["disentanglement"] = results.disentanglement_scores(session, params, mask)
    print(json.dumps(record | {"best_epoch": int(best.epoch[position])}, indent=2))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_integer(
        "nll_samples",
        None,
        "Also estimate the test split's negative log-likelihood from this many draws each.",
    )
    flags.DEFINE_bool(
        "disentanglement",
        False,
        "Also score how well single latents stand for single factors of the test split, for data whose factors are "
        "known, such as shapes: MIG, SAP, DCI, FactorVAE and beta-VAE scores, modularity.",
    )
    define_member_choice()
    cli.define_cache_flags()
    cli.run(main)
