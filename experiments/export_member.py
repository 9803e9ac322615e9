"""Write a sweep's member as an ordinary run: `python -m experiments.export_member --best --workdir=sweeps/...`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import folder_atomically
from cvae_jax.runs.logs import MetricsLog, read_metrics
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run, write_json
from cvae_jax.training.config import traced_options
from experiments.command_line import caching, cli, usage
from experiments.reports.measures import SPLITS, Record
from experiments.reports.workdir import (
    chosen_member,
    define_model_choice,
    finished_rows,
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

    rows = finished_rows(workdir, run)
    row = None if rows is None else rows[member]
    _write(output, single, records, row, workdir, member)
    figures = "the sweep is not finished" if row is None else test_line(summary_of(row, ()))
    print(f"member {member} is an ordinary run in {output}: {figures}")
    return 0


def _write(
    output: Path, single: Run, records: list[Record], row: Record | None, workdir: Path, member: int
) -> None:
    """Write an ordinary run.

    Args:
      output: its folder.
      single: the run.
      records: of `metrics.jsonl`.
      row: of the sweep's results, None while it is not finished.
      workdir: of the sweep.
      member: its number there.
    """
    from cvae_jax.runs import checkpoints
    from cvae_jax.runs.description import record_run
    from cvae_jax.runs.session import (
        load_population,
        member_of,
        model_of,
        open_model,
        origin_of,
        stack_one,
        trained_member,
    )
    from cvae_jax.training.population import Population, solo_state
    from experiments.reports import results

    caching.use()
    session = open_model(workdir)
    part = session.part_of(member)
    population = load_population(session, part, workdir)
    state = solo_state(member_of(population.members, part.members.index(member)), session.run.members, member)
    alone = Population(population.step, stack_one(state))
    opened = model_of(single, session.data, session.examples)
    with folder_atomically(output) as folder:
        record_run(folder, single, opened.data, opened.examples)
        with checkpoints.open_manager(folder / "checkpoints") as manager:
            checkpoints.save(manager, alone, origin_of(opened))
        MetricsLog(folder, members=(0,), step=0).epoch(records)
        pictures = results.write_pictures(opened, trained_member(opened, opened.parts[0], alone, 0), folder)
        if row is not None:
            summary = summary_of(row, tuple(traced_options(single.config)))
            summary |= {"pictures": pictures, **results.effort(alone, records[-1]["seconds"])}
            write_json(folder / "summary.json", summary)


def summary_of(row: Record, options: Sequence[str]) -> Record:
    """A row of a sweep's results as the summary of an ordinary run.

    Args:
      row: of the member.
      options: columns of the row that are settings.

    Example:
      >>> summary_of({"member": 3, "beta": 4.0, "test_elbo": -9.0, "epochs": 2, "error": None}, ["beta"])
      {'test': {'elbo': -9.0}, 'epochs': 2}
    """
    summary: Record = {}
    for name, value in row.items():
        split, _, metric = name.partition("_")
        if split in SPLITS:
            summary.setdefault(split, {})[metric] = value
        elif name not in ("member", *options) and not (name == "error" and value is None):
            summary[name] = value
    return summary


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
