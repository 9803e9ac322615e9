"""Compute a trained model's metrics: `python -m experiments.evaluate --workdir=runs/...`.

Or compare two models on the same examples: `python -m experiments.evaluate --compare=runs/...,runs/...`.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.runs.workdir import json_text, read_run
from experiments.command_line import betas, caching, cli, usage
from experiments.reports import measures, quality
from experiments.reports.workdir import (
    chosen_member,
    define_data_flags,
    define_model_choice,
    find_data,
    open_with_data,
    require_writable,
)

# What `--compare` has no paired difference of.
_OF_ONE_RUN = (
    "sample_quality", "disentanglement", "temperature", "judges", "inception_features", "beta", "nll_output", "member",
    "best",
)  # fmt: skip


def main() -> int:
    if (flags.FLAGS.workdir is None) == (not flags.FLAGS.compare):
        raise UserError(
            "expected either --workdir, of a run to evaluate, or --compare, of two runs to be compared"
        )
    return _compare() if flags.FLAGS.compare else _evaluate()


def _compare() -> int:
    """Print figures of two models on the same examples."""
    names = flags.FLAGS.compare
    if len(names) != 2:
        raise UserError(f"compare is {','.join(names)}, expected two names with a comma between")
    unused = [name for name in _OF_ONE_RUN if flags.FLAGS[name].present]
    if unused:
        raise UserError(
            f"{unused[0]} is {flags.FLAGS[unused[0]].value}, expected none with --compare, which takes --nll_samples"
        )

    from experiments.reports.comparison import compare, named

    a, b = (one._replace(run=find_data(one.workdir, one.run)) for one in map(named, names))
    record = compare(
        a, b, caching.use(), nll_samples=flags.FLAGS.nll_samples, split=flags.FLAGS.split
    )  # fmt: skip
    record = measures.with_error(record, [])
    print(json_text(record))
    measures.require_no_error(record)
    return 0


def _evaluate() -> int:
    """Print what one model is like."""
    workdir, output = Path(flags.FLAGS.workdir), flags.FLAGS.nll_output
    run = read_run(workdir)
    wanted = measures.wanted(run)
    if output is not None and (wanted.nll_samples is None or not output.endswith(".npz")):
        raise UserError(f"nll_output is {output}, expected a name ending in .npz, with --nll_samples")
    if output is not None:
        require_writable(Path(output), workdir, run)
    member = chosen_member(workdir, run)
    curve = betas.chosen(run, member, flags.FLAGS.beta) if flags.FLAGS.beta else []
    inception = flags.FLAGS.inception_features
    features = quality.read_inception_features(Path(inception)) if inception else None

    from cvae_jax.evaluation.distances import frechet_distance
    from cvae_jax.runs.session import load_population, trained_member
    from experiments.reports import results, scores

    cache = caching.use()
    session = open_with_data(workdir, run, cache)
    measure = measures.prepare(wanted, session, cache, Path(output) if output else None)
    part = session.part_of(member)
    population = load_population(session, part, workdir)
    position = part.members.index(member)
    trained = trained_member(session, part, population, member)
    faults = results.never_valid(population, position)
    metrics = results.split_metrics(session, part, population.members.best, faults)
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


def _define_models() -> None:
    define_model_choice(required=False)
    flags.DEFINE_list(
        "compare", [],
        "Instead of --workdir: two models A,B, each the folder of a run, or of a sweep with :N or :best after it. "
        "Prints their mean bound on --split, with --nll_samples their likelihood, and the paired difference A - B with "
        "its standard error over examples.",
    )  # fmt: skip


def _define_measures() -> None:
    measures.define_flags()
    flags.DEFINE_string(
        "inception_features", None,
        "Also compute the FID of features that you computed with Inception-v3: an .npz of the arrays real and "
        "generated, shape (n, 2048) each.",
    )  # fmt: skip
    flags.DEFINE_string(
        "beta", None,
        "Also compute the bound at these β of a multirate model: values with commas between, or "
        "logspace(first,last,count).",
    )  # fmt: skip


def _define_output() -> None:
    flags.DEFINE_string(
        "nll_output", None,
        "Also write the negative log-likelihood of each example and its condition to this .npz, with --nll_samples.",
    )  # fmt: skip


if __name__ == "__main__":
    sections = [
        usage.section("Model", _define_models),
        usage.section("Measures", _define_measures),
        usage.section("Data", define_data_flags),
        usage.section("Output", _define_output),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
