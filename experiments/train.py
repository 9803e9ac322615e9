"""Train one conditional VAE: `python -m experiments.train --beta=4`."""

from __future__ import annotations

from experiments import cli, quality, settings
from experiments.workdir import claim, finished_summary, require_same_run, test_line


def main() -> int:
    run, workdir = settings.single_run()
    judged = quality.is_wanted(run)
    require_same_run(workdir, run)
    summary = finished_summary(workdir, run)
    if summary and (not judged or "sample_quality" in summary):
        print(f"{workdir} is finished: {summary['epochs']} epochs, {test_line(summary)}")
        return 0

    from experiments import loop, results

    cache = cli.use_cache()
    session = loop.open_session(run, cache)
    judge = quality.find_judge(run, cache) if judged else None
    claim(workdir, run)
    (part,) = session.parts
    print(f"{loop.describe(session)}; results in {workdir}", flush=True)
    population, seconds = loop.train(session, part, workdir)
    summary = results.finish(session, population, seconds, workdir, judge)
    print(f"{test_line(summary)}, after {seconds:.1f} s; pictures and checkpoint in {workdir}")
    return 0


if __name__ == "__main__":
    settings.define_shared_flags()
    settings.define_member_flags()
    quality.define_flag()
    cli.define_cache_flags()
    cli.run(main)
