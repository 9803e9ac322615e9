"""What a workdir stores about the data, to use its model without them: `data.json` and `examples.npz`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cvae_jax.conditions import CONDITIONS
from cvae_jax.data.dataset import Dataset, Description, Scaling, Split
from cvae_jax.data.sources.cache import UNREADABLE, read_npz
from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from cvae_jax.runs.records import part_from_record, part_to_record
from cvae_jax.runs.run import Run, differences, run_to_record
from cvae_jax.runs.workdir import read_run, write_json

_FILE, _EXAMPLES = "data.json", "examples.npz"
# The bytes that recorded examples may take, and the least and the most of them: averages over them must be stable.
_BYTES, _LEAST_EXAMPLES, _MOST_EXAMPLES = 2**20, 100, 1000


def record_run(workdir: Path, run: Run, data: Description, examples: Split) -> None:
    """Write to the workdir: the run, what the model must know about the data, and a few test examples.

    Raises:
      UserError: if the workdir records another run, naming what differs.
    """
    claim(workdir, run)
    write_description(workdir, data)
    c = (
        {f"c_{name}": each for name, each in examples.c.items()}
        if isinstance(examples.c, dict)
        else {"c": examples.c}
    )
    path = workdir / _EXAMPLES
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, x=examples.x, **c))


def few_examples(dataset: Dataset) -> Split:
    """At most 1,000 test examples, about a megabyte of x: of labels each class in turn, else at equal distances."""
    test = dataset.test
    count = min(max(_BYTES // max(test.x[:1].nbytes, 1), _LEAST_EXAMPLES), _MOST_EXAMPLES, len(test))
    if not dataset.labelled:
        return test.take(np.linspace(0, len(test) - 1, count).astype(int))
    classes, of_class = np.unique(test.labels, return_inverse=True)
    order = np.argsort(of_class, kind="stable")
    first = np.searchsorted(of_class[order], np.arange(len(classes)))
    # For each example, how many of its class come before it.
    place = np.empty(len(test), int)
    place[order] = np.arange(len(test)) - first[of_class[order]]
    # With many classes, only as many classes as leave room for two examples each.
    drawn = np.flatnonzero(of_class < max(count // 2, 1))
    return test.take(drawn[np.lexsort((of_class[drawn], place[drawn]))][:count])


def read_examples(workdir: Path) -> Split:
    """The test examples that a workdir records.

    Raises:
      UserError: if it records none, or the file is damaged.
    """
    path = workdir / _EXAMPLES
    try:
        arrays = read_npz(path)
        x = arrays.pop("x")
    except FileNotFoundError:
        raise UserError(f"{workdir} holds no {_EXAMPLES}, expected one that a training wrote") from None
    except UNREADABLE:
        raise UserError(f"{path} cannot be read, expected the test examples that a training wrote") from None
    return Split(
        x, arrays["c"] if "c" in arrays else {name.removeprefix("c_"): c for name, c in arrays.items()}
    )


def require_same_run(workdir: Path, run: Run) -> None:
    """Refuse a workdir that already belongs to another run.

    More epochs than recorded continue the run, unless a schedule depends on their number; anything else that differs
    is refused.

    Raises:
      UserError: naming what differs.
    """
    if (workdir / "config.json").exists():
        before, after = read_run(workdir), run
        # What the data are made for matters only where one of the two names no condition.
        if (before.config.condition is None) != (after.config.condition is None) and (
            workdir / _FILE
        ).exists():
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
    """Write the run to its workdir; refuse if the workdir already belongs to another run."""
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
            "seen_classes": list(data.seen_classes),
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
            seen_classes=tuple(record["seen_classes"]),
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
