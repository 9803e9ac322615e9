"""Train a grid of conditional VAEs as one program: `python -m experiments.sweep --beta=0.5,1,2 --seed=0,1`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from cvae_jax.files import write_atomically
from cvae_jax.runs.description import require_same_run
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run, training_lock, write_json
from cvae_jax.training.config import Config, name_of, traced_options
from experiments.command_line import caching, cli, paths, settings, usage
from experiments.reports import measures, seeds
from experiments.reports.measures import Wanted
from experiments.reports.workdir import finished_rows, is_current, missing, ranked_by

if TYPE_CHECKING:
    from cvae_jax.runs.session import Part, Session, Trained
    from experiments.reports.members import Pictures
    from experiments.reports.quality import Record

FLAGS = flags.FLAGS

Rows = list[dict[str, Any]]

_MOST_NAMED = 5


def main() -> int:
    members = settings.sweep_members()
    config = members[0]
    name = f"{Path(config.data.dataset).stem}-{name_of(config, 'network')}-{len(members)}members"
    workdir = Path(FLAGS.workdir or f"sweeps/{name}")

    cache = caching.use()
    size = FLAGS.members_per_program
    run = settings.sweep_run(members, _planned_size(members, workdir, cache) if size is None else size)
    wanted = measures.wanted(run)
    require_same_run(workdir, run)
    rows = finished_rows(workdir, run)
    if rows is not None and not all(measures.holds(row, wanted) for row in rows):
        rows = None
    finished = rows is not None and is_current(workdir, run, workdir / "results.json")
    if rows is not None and finished and not missing(workdir, _outputs(run, rows)):
        _say_finished(run, workdir, rows)
        return 0
    with training_lock(workdir):
        _sweep(run, workdir, wanted, rows, cache)
    return 0


def _sweep(run: Run, workdir: Path, wanted: Wanted, rows: Rows | None, cache: Path) -> None:
    """Train all members, or make again what a finished sweep lacks.

    Args:
      run: the sweep.
      workdir: its folder, locked.
      wanted: what is measured at the end.
      rows: what `results.json` holds, if it may be of this sweep and nothing is left to train and to measure.
      cache: the cache folder.
    """
    from cvae_jax.runs import provenance
    from cvae_jax.runs.description import record_run
    from cvae_jax.runs.session import load_population, open_session, trained_member
    from experiments.reports import members, report, results

    session = open_session(run, cache)
    measure = measures.prepare(wanted, session, cache)
    is_ours = provenance.require_same(workdir, run, session.dataset) or (workdir / "config.json").exists()
    record_run(workdir, run, session.data, session.examples)
    pictures: list[Pictures | None] = []
    failed: list[str] = []
    if rows is not None and is_ours:
        if missing(workdir, _outputs(run, rows)):
            for part in session.parts:
                population = load_population(session, part, workdir)
                for member in part.members:
                    trained = trained_member(session, part, population, member)
                    pictures.append(members.pictures_of(session, trained))
            report.write(session, rows, pictures, workdir)
            _write_tables(workdir, run, rows)
            print(f"table, rate-distortion picture and report are made again in {workdir}")
        _say_finished(run, workdir, rows)
        return
    print(
        f"{results.describe(session)}, {run.members_per_program} at a time; results in {workdir}", flush=True
    )
    print(results.describe_data(session), flush=True)

    rows, tests = [], {}
    for part in session.parts:
        rows += _train_part(session, part, workdir, measure, pictures, tests)
    rows = _same_columns(rows)
    measures.attempt(failed, "drawing the report", report.write, session, rows, pictures, workdir)
    _write_tables(workdir, run, rows)
    _print_ranking(run, rows)
    results.warn_of_collapse(run, {i: test for i, test in tests.items() if rows[i]["diverged"] is None})
    print(f"table, rate-distortion picture and report in {workdir}")
    _require_no_error(rows, failed)


def _train_part(
    session: Session,
    part: Part,
    workdir: Path,
    measure: Callable[[Trained, Record, list[str]], Record],
    pictures: list[Pictures | None],
    tests: dict[int, Record],
) -> Rows:
    """Train and measure some members: their rows of results.

    Args:
      session: the sweep.
      part: the members.
      workdir: its folder.
      measure: of `measures.prepare`.
      pictures: where those of each member are added.
      tests: where the metrics of each member's test split are added.
    """
    from cvae_jax.runs import loop
    from cvae_jax.runs.session import diverged, stopped_epoch, trained_member
    from experiments.reports import members, results

    population, seconds = loop.train(session, part, workdir, results.loggers(session, part, workdir))
    rows, of_part = [], []
    metrics = results.split_metrics(session, part, population.members.best, of_part)
    for position, member in enumerate(part.members):
        trained, failure = trained_member(session, part, population, member), diverged(population, position)
        faults = [*of_part, *results.never_valid(population, position)]
        drawn = measures.attempt(faults, "drawing pictures", members.pictures_of, session, trained)
        pictures.append(drawn)
        record = measure(trained, {split: metrics[split][position] for split in measures.SPLITS}, faults)
        measures.attempt(
            faults, "TensorBoard's results",
            members.write_tensorboard, session, member, record["test"], drawn, int(population.step), workdir,
        )  # fmt: skip
        # Of a member that diverged nothing finite is expected.
        if failure is None:
            record = measures.with_error(record, faults)
        tests[member] = record["test"]
        rows.append(
            {
                "member": member,
                **traced_options(session.run.members[member]),
                **measures.flat(record),
                "epochs": int(population.step) // session.steps_per_epoch,
                "best_epoch": int(population.members.best.epoch[position]),
                "stopped_epoch": stopped_epoch(population, position),
                "diverged": None if failure is None else failure[0],
                "seconds": seconds,
            }
        )
    return rows


def _outputs(run: Run, rows: Rows) -> list[str]:
    """The files of a finished sweep, beside `results.json`."""
    outputs = ["results.csv", "report.html"]
    if seeds.several(rows, tuple(traced_options(run.config))):
        outputs += ["results_by_setting.json", "results_by_setting.csv"]
    if any(row["diverged"] is None and math.isfinite(row["test_elbo"]) for row in rows):
        outputs.append("rate_distortion.png")
    return outputs


def _say_finished(run: Run, workdir: Path, rows: Rows) -> None:
    _print_ranking(run, rows)
    print(f"{workdir} is finished: {rows[0]['epochs']} epochs")


def _planned_size(members: tuple[Config, ...], workdir: Path, cache: Path) -> int:
    """As many members at a time as fit; as recorded, where the sweep has been planned before."""
    if (workdir / "config.json").exists():
        return min(read_run(workdir).members_per_program, len(members))

    from cvae_jax.runs.session import load_dataset
    from cvae_jax.training import memory
    from cvae_jax.training import population as sweep

    dataset = load_dataset(members[0], paths.data_dir(), cache)
    return memory.members_that_fit(sweep.build_model(members, dataset), members)


def _same_columns(rows: Rows) -> list[dict[str, Any]]:
    """Rows that all have the columns of each, None where a measure failed."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def _require_no_error(rows: Rows, failed: list[str]) -> None:
    """End with the first members whose measures failed, and what else did."""
    faulty = [f"member {row['member']}: {row['error']}" for row in rows if row.get("error")]
    more = [f"{len(faulty) - _MOST_NAMED} more members"] if len(faulty) > _MOST_NAMED else []
    if faulty or failed:
        measures.require_no_error({"error": "; ".join([*failed, *faulty[:_MOST_NAMED], *more])})


def _write_tables(workdir: Path, run: Run, rows: Rows) -> None:
    """`results.csv` and `.json`, a row per member; of several seeds also `results_by_setting`, a row per setting."""
    tables, options = {"results": rows}, tuple(traced_options(run.config))
    if seeds.several(rows, options):
        tables = {"results_by_setting": seeds.by_setting(rows, options)} | tables
    for name, table in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(
            text, fieldnames=list(dict.fromkeys(column for row in table for column in row))
        )
        writer.writeheader()
        writer.writerows(table)
        content = text.getvalue()
        write_atomically(
            workdir / f"{name}.csv", lambda file, content=content: file.write_text(content, encoding="utf-8")
        )
        # A sweep with `results.json` counts as finished: it is written last.
        write_json(workdir / f"{name}.json", table)


def _print_ranking(run: Run, rows: Rows) -> None:
    """The members by validation bound, best first, with the settings that differ; then the means over seeds."""
    members = [traced_options(member) for member in run.members]
    options = tuple(members[0])
    differing = [name for name in options if len({member[name] for member in members}) > 1]
    columns = ["member", *differing, ranked_by(rows[0]), "test_elbo", "test_rate", "test_distortion"]
    table = [columns]
    for row in sorted(rows, key=ranking):
        table.append([_cell(row[column], 4 if column in differing else None) for column in columns])
        if row["diverged"] is not None:
            table[-1].append(f"diverged at step {row['diverged']}")
    _print_table(table)
    if seeds.several(rows, options):
        print(f"mean ± standard error over {seeds.number(seeds.by_setting(rows, options))}:")
        _print_table(seeds.table(rows, options))


def _print_table(lines: list[list[str]]) -> None:
    """Cells right-aligned in columns."""
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines)))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False)))


def _cell(value: float | None, digits: int | None) -> str:
    """A number with so many digits, or two after the point; nothing for what is not finite."""
    if value is None or value != value:
        return ""
    return f"{value:.{digits}g}" if digits else f"{value:.2f}" if isinstance(value, float) else str(value)


def ranking(row: dict[str, Any]) -> tuple[bool, float]:
    """Sorts rows best first, those that diverged last."""
    bound = row[ranked_by(row)]
    if row["diverged"] is not None or bound is None or bound != bound:
        return True, 0.0
    return False, -bound


if __name__ == "__main__":
    settings.define_flags(sweep=True)
    measured = usage.section("Measures", measures.define_flags)
    cli.run(main, [*settings.sections(sweep=True), measured, usage.section("Cache", caching.define_flags)])
