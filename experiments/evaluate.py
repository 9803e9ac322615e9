"""Recompute a run's metrics from its checkpoint: `python -m experiments.evaluate --workdir=runs/...`."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from experiments import betas, cli, measures, quality
from experiments.cli import UserError
from experiments.workdir import chosen_member, define_member_choice, json_text, read_run, require_writable


def main() -> int:
    workdir, output = Path(flags.FLAGS.workdir), flags.FLAGS.nll_output
    run = read_run(workdir)
    wanted = measures.wanted(run)
    if output is not None and (wanted.nll_samples is None or not output.endswith(".npz")):
        raise UserError(f"nll_output is {output}, expected a name ending in .npz, with --nll_samples")
    if output is not None:
        require_writable(Path(output))
    member = chosen_member(workdir, run)
    curve = betas.chosen(run, member, flags.FLAGS.beta) if flags.FLAGS.beta else []
    inception = flags.FLAGS.inception_features
    features = quality.read_inception_features(Path(inception)) if inception else None

    from cvae_jax.quality import frechet_distance
    from experiments import loop, results, scores

    cache = cli.use_cache()
    session = loop.open_session(run, cache)
    measure = measures.prepare(wanted, session, cache, Path(output) if output else None)
    part = session.part_of(member)
    population = results.load_population(session, part, workdir)
    metrics = results.split_metrics(session, part, population.members.best)
    position = part.members.index(member)
    trained = results.trained_member(part, population, member)
    faults = results.never_valid(population, position)
    record = measure(trained, {split: metrics[split][position] for split in measures.SPLITS}, faults)
    if curve:
        record["at_beta"] = scores.at_betas(session, trained, curve)
    if features is not None:
        record["fid"] = frechet_distance(*features)
        record["fid_real_images"], record["fid_generated_images"] = map(len, features)
    results.warn_of_collapse(run, {member: record["test"]})
    record = measures.with_error(record | {"best_epoch": int(trained.best.epoch)}, faults)
    print(json_text(record))
    measures.require_no_error(record)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    measures.define_flags()
    flags.DEFINE_string(
        "inception_features",
        None,
        "An .npz with Inception-v3's features of real and of generated images, arrays real and generated of shape "
        "(n, 2048): also compute the FID between them.",
    )
    flags.DEFINE_string(
        "beta", None,
        "Of a multirate model: also give the bound at these betas, values with commas between or logspace(a,b,n).",
    )  # fmt: skip
    flags.DEFINE_string(
        "nll_output", None, "Also write that of each example, and its condition, to this .npz."
    )
    define_member_choice()
    cli.define_cache_flags()
    cli.run(main)
