"""`data.json`: what a workdir records of the data, so that its model can be used without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.conditions import CONDITIONS
from cvae_jax.data.dataset import Description, Scaling
from cvae_jax.errors import UserError
from cvae_jax.runs.records import part_from_record, part_to_record
from cvae_jax.runs.run import Run, differences, run_to_record
from cvae_jax.runs.workdir import read_run, write_json

_FILE = "data.json"


def record_run(workdir: Path, run: Run, data: Description) -> None:
    """Record a run and its data in its workdir, unless the workdir records another run.

    Raises:
      UserError: naming what differs.
    """
    claim(workdir, run)
    write_description(workdir, data)


def require_same_run(workdir: Path, run: Run) -> None:
    """Refuse a workdir that records another run.

    More epochs than recorded continue the run, unless a schedule depends on their number; anything else that differs
    is refused.

    Raises:
      UserError: naming what differs.
    """
    if (workdir / "config.json").exists():
        before, after = read_run(workdir), run
        if (workdir / _FILE).exists():
            made_for = read_description(workdir).condition
            before, after = before.with_condition(made_for), after.with_condition(made_for)
        differing = differences(before, after)
        if differing:
            raise UserError(
                f"{workdir} holds a run with other settings: {'; '.join(differing)}; expected the same, or another "
                "workdir"
            )
    elif workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} is a file, expected a folder")


def claim(workdir: Path, run: Run) -> None:
    """Record a run in its workdir, unless the workdir records another run."""
    require_same_run(workdir, run)
    write_json(workdir / "config.json", run_to_record(run))


def write_description(workdir: Path, data: Description) -> None:
    """Record the data of a run."""
    names = data.names
    write_json(
        workdir / _FILE,
        {
            "name": data.name,
            "shape": data.shape,
            "x_max": data.x_max,
            "condition": None if data.condition is None else part_to_record(CONDITIONS, data.condition),
            "names": dict(names) if isinstance(names, dict) else list(names),
            "checksums": dict(data.checksums),
            "limits": list(data.limits),
            "scalings": {name: _scaling_to_record(scaling) for name, scaling in data.scalings.items()},
        },
    )


def _scaling_to_record(scaling: Scaling) -> dict[str, Any]:
    kept = None if scaling.kept is None else list(scaling.kept)
    condition = part_to_record(CONDITIONS, scaling.condition)
    return {
        "condition": condition,
        "kept": kept,
        "mean": scaling.mean.tolist(),
        "deviation": scaling.deviation.tolist(),
    }


def read_description(workdir: Path) -> Description:
    """The data that a workdir records.

    Raises:
      UserError: if it records none, or not as this version does.
    """
    path = workdir / _FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        condition, names = record["condition"], record["names"]
        return Description(
            name=record["name"],
            shape=tuple(record["shape"]),
            x_max=record["x_max"],
            condition=None if condition is None else part_from_record(CONDITIONS, condition, str(path)),
            names={k: tuple(v) for k, v in names.items()} if isinstance(names, dict) else tuple(names),
            checksums=record["checksums"],
            scalings={
                name: _scaling_from_record(each, str(path)) for name, each in record["scalings"].items()
            },
            limits=tuple(record["limits"]),
        )
    except FileNotFoundError:
        raise UserError(f"{workdir} holds no {_FILE}, expected one that a training wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not describe the data of a run: {error}") from None


def _scaling_from_record(record: dict[str, Any], where: str) -> Scaling:
    kept = None if record["kept"] is None else tuple(record["kept"])
    # Of a spectrogram, whose numbers have one scaling, these are float32.
    dtype = np.float32 if kept is None else np.float64
    mean, deviation = (np.asarray(record[name], dtype) for name in ("mean", "deviation"))
    return Scaling(part_from_record(CONDITIONS, record["condition"], where), kept, mean, deviation)
