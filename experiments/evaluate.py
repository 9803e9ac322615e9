"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from absl import flags

from experiments import cli, quality
from experiments.cli import UserError
from experiments.workdir import chosen_member, define_member_choice, read_run


def main() -> int:
    num_samples = flags.FLAGS.nll_samples
    if num_samples is not None and num_samples < 1:
        raise UserError(f"nll_samples is {num_samples}, expected a whole number ≥ 1")
    workdir = Path(flags.FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)
    judged = quality.is_wanted(run)
    inception = flags.FLAGS.inception_features
    features = quality.read_inception_features(Path(inception)) if inception else None

    from cvae_jax.quality import frechet_distance
    from experiments import loop, results

    cache = cli.use_cache()
    session = loop.open_session(run, cache)
    part = session.part_of(member)
    population = results.load_population(session, part, workdir)
    metrics = results.split_metrics(session, part, population.members.best)
    record = {name: members[part.members.index(member)] for name, members in metrics.items()}
    trained = results.trained_member(part, population, member)
    if num_samples is not None:
        nll = results.test_nll(session, trained.best.params, trained.hparams.latent_mask, num_samples)
        record["test"] |= {
            "nll": float(np.mean(nll)),
            "nll_standard_error": float(np.std(nll, ddof=1) / np.sqrt(len(nll))),
            "nll_samples": num_samples,
        }
    if judged:
        record["sample_quality"] = results.judged(session, trained, quality.find_judge(run, cache))
    if features is not None:
        record["fid"] = frechet_distance(*features)
    print(json.dumps(record | {"best_epoch": int(trained.best.epoch)}, indent=2))
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_integer(
        "nll_samples",
        None,
        "Also estimate the test split's negative log-likelihood from this many draws each.",
    )
    quality.define_flag()
    flags.DEFINE_string(
        "inception_features",
        None,
        "An .npz with Inception-v3's features of real and of generated images, arrays real and generated of shape "
        "(n, 2048): also compute the FID between them.",
    )
    define_member_choice()
    cli.define_cache_flags()
    cli.run(main)
