"""Train one conditional VAE: `python -m experiments.train --beta=4`."""

from __future__ import annotations

from experiments import cli, settings
from experiments.workdir import claim, finished_summary, write_json


def main() -> int:
    run, workdir = settings.single_run()
    claim(workdir, run)
    if summary := finished_summary(workdir, run):
        print(f"{workdir} is finished: {summary['epochs']} epochs, {_test_line(summary)}")
        return 0

    import jax

    from experiments import loop, results

    cache = cli.use_cache()
    session = loop.open_session(run, cache)
    dataset = session.dataset
    member = run.members[0]
    print(
        f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test examples; {run.config.network}, beta {member.beta:g}, "
        f"{member.latent_dim} latents, on {jax.devices()[0].device_kind}; results in {workdir}",
        flush=True,
    )
    try:
        population, seconds = loop.train(session, workdir)
    except loop.Interrupted as interrupted:
        print(interrupted)
        return 130

    best = results.member_of(population.members.best, 0)
    metrics = results.split_metrics(session, population.members.best)
    results.write_pictures(session, best, results.member_of(session.hparams, 0), workdir)
    steps = int(population.step)
    summary = {
        "validation": metrics["validation"][0],
        "test": metrics["test"][0],
        "best_epoch": int(best.epoch),
        "epochs": steps // session.steps_per_epoch,
        "steps": steps,
        "seconds": seconds,
        "examples_per_second": steps * run.config.batch_size / seconds,
        "params": sum(leaf.size for leaf in jax.tree.leaves(best.params)),
    }
    write_json(workdir / "summary.json", summary)
    print(f"{_test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    return 0


def _test_line(summary: dict) -> str:
    return "test elbo {elbo:.2f} (rate {rate:.2f}, distortion {distortion:.2f}) nats".format(
        **summary["test"]
    )


if __name__ == "__main__":
    settings.define_shared_flags()
    settings.define_member_flags()
    cli.define_cache_flags()
    cli.run(main)
