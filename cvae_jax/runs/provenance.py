"""What a checkpoint stores about its run: settings, data and versions. They are compared before it is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import cvae_jax
from cvae_jax.conditions import Condition
from cvae_jax.data.dataset import Dataset, Description
from cvae_jax.errors import UserError
from cvae_jax.runs import checkpoints
from cvae_jax.runs.run import Run, differences, run_from_record, run_to_record


def record(run: Run, dataset: Dataset | Description) -> dict[str, Any]:
    """What a checkpoint stores besides the members: settings, data and versions."""
    return {"run": run_to_record(run), "data": dict(dataset.checksums), "versions": _versions()}


def require_same(workdir: Path, run: Run, dataset: Dataset | Description) -> bool:
    """Refuse to continue from checkpoints of another run, or with other data.

    Args:
      workdir: of the run.
      run: what is to be trained.
      dataset: its data.

    Returns:
      Whether there are checkpoints, all of this run.

    Raises:
      UserError: naming what differs.

    Warns:
      UserWarning: if another version made them.
    """
    found, versions = False, {}
    for folder in _folders(workdir):
        with checkpoints.open_manager(folder, read_only=True) as manager:
            records = checkpoints.read_records(manager)
        for step, saved in sorted(records.items(), reverse=True):
            found, versions = True, versions or saved["versions"]
            _require_same_settings(f"checkpoint {step} in {folder}", saved, run, dataset.condition)
            if changed := _changed(saved, run, dataset):
                raise UserError(
                    f"{workdir} was trained on other data: {changed} since; expected the same, or another workdir"
                )
    if found and versions != _versions():
        before, now = (", ".join(f"{k} {v}" for k, v in each.items()) for each in (versions, _versions()))
        warnings.warn(
            f"{workdir} was trained by {before}, this is {now}: the last digits may differ", stacklevel=2
        )
    return found


def require_readable(
    checkpoint: checkpoints.Checkpoint, workdir: Path, run: Run, dataset: Dataset | Description
) -> None:
    """Refuse to read a checkpoint of a run other than that in `config.json`. The data may have another name.

    Raises:
      UserError: naming what differs.

    Warns:
      UserWarning: if the data are not those it was trained on.
    """
    what = f"checkpoint {checkpoint.step} in {workdir}"
    trained_on = run_from_record(checkpoint.record["run"], what).config.data.dataset
    _require_same_settings(what, checkpoint.record, run.with_dataset(trained_on), dataset.condition)
    if changed := _changed(checkpoint.record, run, dataset):
        warnings.warn(f"{workdir} was trained on other data: {changed} since", stacklevel=2)


def _require_same_settings(what: str, saved: Mapping[str, Any], run: Run, made_for: Condition | None) -> None:
    before, after = run_from_record(saved["run"], what), run
    differing = differences(before.with_condition(made_for), after.with_condition(made_for))
    if differing:
        raise UserError(
            f"{what} is of a run with other settings: {'; '.join(differing)}; expected the same, or another workdir"
        )


def _changed(saved: Mapping[str, Any], run: Run, dataset: Dataset | Description) -> str:
    """Which splits are not those that a checkpoint records, in words; empty if none."""
    found = dataset.checksums
    changed = [name for name, before in saved["data"].items() if found[name] != before]
    if not changed:
        return ""
    before, now = saved["run"]["data_dir"], run.data_dir
    where = f" in {now or 'the default data_dir'}" if before != now else ""
    splits = f"{', '.join(changed)} split{'s' if len(changed) > 1 else ''}"
    return f"the {splits} of {run.config.data.dataset}{where} changed"


def _folders(workdir: Path) -> Iterator[Path]:
    """Where checkpoints may be, however the members were divided."""
    folder = workdir / "checkpoints"
    for each in (folder, *sorted(folder.glob("part-*"))):
        if each.is_dir():
            yield each


def _versions() -> dict[str, str]:
    return {"cvae_jax": cvae_jax.__version__, "jax": jax.__version__}
