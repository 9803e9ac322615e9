"""Train one conditional VAE: `python -m experiments.train --beta=4`."""

from __future__ import annotations

from experiments import cli, settings
from experiments.workdir import claim, finished_summary, require_same_run, test_line


def main() -> int:
    run, workdir = settings.single_run()
    require_same_run(workdir, run)
    if summary := finished_summary(workdir, run):
        print(f"{workdir} is finished: {summary['epochs']} epochs, {test_line(summary)}")
        return 0

    from experiments import loop, results

    session = loop.open_session(run, cli.use_cache())
    claim(workdir, run)
    (part,) = session.parts
    print(f"{loop.describe(session)}; results in {workdir}", flush=True)
    population, seconds = loop.train(session, part, workdir)
    summary = results.finish(session, population, seconds, workdir)
    print(f"{test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    return 0


if __name__ == "__main__":
    settings.define_shared_flags()
    settings.define_member_flags()
    cli.define_cache_flags()
    cli.run(main)
