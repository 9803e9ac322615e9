"""A sweep's settings: members alike in all but their seed, as means over seeds with standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.reports.workdir import ranked_by

Row = dict[str, Any]

ERROR = "_standard_error_over_seeds"
# Of a row of results, what is no figure of a trained model.
_NOT_FIGURES = ("member", "epochs", "stopped_epoch", "diverged", "seconds", "error")
_SHOWN = ("test_elbo", "test_rate", "test_distortion")


def several(rows: Sequence[Row], options: Sequence[str]) -> bool:
    """Whether some members differ in their seed alone; see `by_setting`."""
    return len({_setting(row, options) for row in rows}) < len(rows)


def by_setting(rows: Sequence[Row], options: Sequence[str]) -> list[Row]:
    """A row for each setting, in the order of their first members.

    Args:
      rows: of results, one a member.
      options: names of the traced options, which are columns of the rows.

    Returns:
      For each setting its values; `members`; `seeds`, the number of members that are averaged, and `diverged`, of those
      that are not; and each figure's mean over the seeds, followed by its standard error under the name with
      `_standard_error_over_seeds`: s / √n with the standard deviation s of n seeds. The mean is None without a seed, or
      where one lacks the figure; the error is None of one seed. Standard errors over examples are left out. A figure
      that is the same for every member of the sweep stands alone.

    Example:
      >>> both = {"diverged": None, "test_rate": 2.0, "beta": 4.0}
      >>> rows = [both | {"member": i, "seed": i, "test_elbo": elbo} for i, elbo in enumerate((-9.0, -7.0))]
      >>> (row,) = by_setting(rows, ["beta", "seed"])
      >>> row["beta"], row["seeds"], row["test_elbo"], row["test_elbo" + ERROR], row["test_rate"]
      (4.0, 2, -8.0, 1.0, 2.0)
    """
    settings = [name for name in options if name != "seed"]
    figures = [
        name
        for name, value in rows[0].items()
        if name not in (*_NOT_FIGURES, *options) and not name.endswith("_standard_error")
    ]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_setting(row, options), []).append(row)
    found = []
    for members in groups.values():
        counted = [row for row in members if row["diverged"] is None]
        setting = {name: members[0][name] for name in settings}
        setting |= {"members": [row["member"] for row in members]}
        setting |= {"seeds": len(counted), "diverged": len(members) - len(counted)}
        for name in figures:
            if all(row[name] == rows[0][name] for row in rows):
                setting[name] = rows[0][name] if counted else None
            elif all(isinstance(row[name], int | float | None) for row in rows):
                setting[name], setting[name + ERROR] = _mean_and_error([row[name] for row in counted])
        found.append(setting)
    return found


def table(rows: Sequence[Row], options: Sequence[str]) -> list[list[str]]:
    """The settings as lines of text, best validation bound first, under a line of names.

    Args:
      rows: of results, one a member.
      options: names of the traced options.

    Returns:
      Lines of as many cells: the settings that differ, the number of seeds, and figures as mean ± standard error.
    """
    settings = by_setting(rows, options)
    differing = [name for name in options if name != "seed" and len({row[name] for row in settings}) > 1]
    bound = ranked_by(rows[0])
    settings.sort(key=lambda row: math.inf if row[bound] is None else -row[bound])
    shown = (bound, *_SHOWN)
    lines = [[*differing, "seeds", *shown]]
    for row in settings:
        seeds = f"{row['seeds']}" + (f", {row['diverged']} diverged" if row["diverged"] else "")
        lines.append([*(f"{row[name]:.4g}" for name in differing), seeds, *(_shown(row, k) for k in shown)])
    return lines


def number(settings: Sequence[Row]) -> str:
    """How many seeds the means are of: `3 seeds`, or `2 to 3 seeds`."""
    counts = sorted({row["seeds"] for row in settings if row["seeds"]}) or [0]
    few, many = counts[0], counts[-1]
    return f"{few} to {many} seeds" if few < many else f"{many} seed{'s' if many != 1 else ''}"


def _setting(row: Row, options: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in options if name != "seed")


def _mean_and_error(values: list[float | None]) -> tuple[float | None, float | None]:
    known = np.array([math.nan if value is None else value for value in values], float)
    if not len(known) or not np.isfinite(known).all():
        return None, None
    error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    return float(known.mean()), error


def _shown(row: Row, name: str) -> str:
    mean, error = row[name], row.get(name + ERROR)
    if mean is None:
        return ""
    return f"{mean:.2f}" if error is None else f"{mean:.2f} ± {error:.2f}"
