"""Train one conditional VAE: `python -m experiments.train --beta=4`."""

from __future__ import annotations

from typing import Any

from experiments import cli, settings
from experiments.workdir import claim, finished_summary, write_json


def main() -> int:
    run, workdir = settings.single_run()
    claim(workdir, run)
    if summary := finished_summary(workdir, run):
        print(f"{workdir} is finished: {summary['epochs']} epochs, {_test_line(summary)}")
        return 0

    from experiments import loop, results

    session = loop.open_session(run, cli.use_cache())
    (part,) = session.parts
    print(f"{loop.describe(session)}; results in {workdir}", flush=True)
    population, seconds = loop.train(session, part, workdir)
    trained = results.trained_member(part, population, 0)
    metrics = results.split_metrics(session, part, population.members.best)
    results.write_pictures(session, trained, workdir)
    steps = int(population.step)
    summary = {
        "validation": metrics["validation"][0],
        "test": metrics["test"][0],
        "best_epoch": int(trained.best.epoch),
        "epochs": steps // session.steps_per_epoch,
        "steps": steps,
        "seconds": seconds,
        "examples_per_second": steps * run.config.batch_size / seconds,
        "params": results.num_params(trained),
    }
    write_json(workdir / "summary.json", summary)
    print(f"{_test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    return 0


def _test_line(summary: dict[str, Any]) -> str:
    return "test elbo {elbo:.2f} (rate {rate:.2f}, distortion {distortion:.2f}) nats".format(
        **summary["test"]
    )


if __name__ == "__main__":
    settings.define_shared_flags()
    settings.define_member_flags()
    cli.define_cache_flags()
    cli.run(main)
