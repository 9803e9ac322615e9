"""Write a sweep's member as an ordinary run: `python -m experiments.export_member --best --workdir=sweeps/...`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import folder_atomically
from cvae_jax.runs.logs import MetricsLog, read_metrics
from cvae_jax.runs.workdir import read_run
from experiments.command_line import caching, cli, usage
from experiments.reports import measures
from experiments.reports.measures import Wanted
from experiments.reports.workdir import (
    PICTURES,
    chosen_member,
    define_model_choice,
    missing,
    require_writable,
    test_line,
)

FLAGS = flags.FLAGS


def main() -> int:
    workdir = Path(FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)
    if run.kind != "sweep":
        raise UserError(f"{workdir} holds an ordinary run already, expected a sweep")
    output = Path(FLAGS.output or f"{workdir}-member{member}")
    if output.exists():
        raise UserError(f"{output} exists already, expected a new folder: set --output")
    require_writable(output, workdir, run)
    records = [record | {"member": 0} for record in read_metrics(workdir) if record["member"] == member]
    if not records:
        raise UserError(
            f"{workdir / 'metrics.jsonl'} has no line of member {member}, expected one per epoch: they become the run's"
        )
    single = dataclasses.replace(run, kind="train", members=(run.members[member],), members_per_program=1)

    from cvae_jax.runs import checkpoints
    from cvae_jax.runs.description import record_run
    from cvae_jax.runs.session import load_population, member_of, open_session, origin_of, stack_one
    from cvae_jax.training.population import Population, solo_state
    from experiments.reports import results

    cache = caching.use()
    session = open_session(run, cache)
    part = session.part_of(member)
    population = load_population(session, part, workdir)
    position = part.members.index(member)
    state = solo_state(member_of(population.members, position), run.members, member)
    alone = Population(population.step, stack_one(state))

    opened = open_session(single, cache)
    measure = measures.prepare(Wanted(), opened, cache)
    with folder_atomically(output) as folder:
        record_run(folder, single, opened.dataset.description)
        with checkpoints.open_manager(folder / "checkpoints") as manager:
            checkpoints.save(manager, alone, origin_of(opened))
        MetricsLog(folder, members=(0,), step=0).epoch(records)
        summary = results.finish(opened, alone, records[-1]["seconds"], folder, measure)
        # A run that is half there would be in the way of the next attempt.
        if missing(folder, PICTURES):
            raise UserError(f"{output} is not written: {summary['error']}")
    print(f"member {member} is an ordinary run in {output}: {test_line(summary)}")
    measures.require_no_error(summary)
    return 0


def _define_output() -> None:
    flags.DEFINE_string(
        "output", None, "Folder of the new run; if not set, --workdir with -memberN after it."
    )


if __name__ == "__main__":
    sections = [
        usage.section("Member", define_model_choice),
        usage.section("Output", _define_output),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
