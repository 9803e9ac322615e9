"""What people look at after a sweep: `rate_distortion.png`, and `report.html`, one file that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from plotly.colors import qualitative
from plotly.io import templates
from plotly.offline import get_plotlyjs

from cvae_jax.files import write_atomically
from cvae_jax.plots.rate_distortion import Point, rate_distortion
from cvae_jax.runs.logs import read_metrics, without_infinities
from cvae_jax.runs.session import RunModel
from cvae_jax.training.config import name_of, traced_options
from experiments.reports import seeds
from experiments.reports.members import Pictures, conditions_of
from experiments.reports.pages import script_json
from experiments.reports.workdir import ranked_by

if TYPE_CHECKING:
    from jaxtyping import UInt8

_TEMPLATE = Path(__file__).with_name("report_template.html")


# Where drawing a member's pictures failed: an image of one transparent pixel.
_NO_PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


def _addresses(pictures: Pictures | None) -> dict[str, str]:
    """A member's pictures as data addresses of PNGs of their own pixels."""
    if pictures is None:
        return dict.fromkeys(Pictures._fields, _NO_PICTURE)
    return {name: _png(canvas) for name, canvas in pictures._asdict().items()}


def _png(canvas: UInt8[np.ndarray, "y x C"]) -> str:
    file = io.BytesIO()
    Image.fromarray(canvas.squeeze(-1) if canvas.shape[-1] == 1 else canvas).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def write(
    session: RunModel, rows: list[dict[str, Any]], pictures: list[Pictures | None], workdir: Path
) -> None:
    """Write both pictures of a sweep.

    Args:
      session: the sweep.
      rows: of its results, one a member.
      pictures: of each member, None where drawing them failed.
      workdir: its folder.
    """
    alive = [row for row in rows if row["diverged"] is None and np.isfinite(row["test_elbo"])]
    if alive:
        options = _options(session)
        points = _points(alive, options)
        over = f", mean ± standard error over {seeds.number(seeds.by_setting(alive, options))} (small marks)"
        title = f"test split{over if seeds.several(alive, options) else ''}"
        figure = rate_distortion(points, alive, title=title)
        write_atomically(workdir / "rate_distortion.png", figure.savefig)
    page = _page(session, rows, pictures, read_metrics(workdir))
    write_atomically(workdir / "report.html", lambda file: file.write_text(page, encoding="utf-8"))


def _options(session: RunModel) -> tuple[str, ...]:
    """Names of the options in which members may differ."""
    return tuple(traced_options(session.run.config))


def _points(alive: list[dict[str, Any]], options: Sequence[str]) -> list[Point]:
    """The settings on the rate–distortion plane."""
    return [
        Point(
            row.get("beta"), row["latent_dim"], row["test_rate"], row["test_distortion"],
            row.get(f"test_rate{seeds.ERROR}"), row.get(f"test_distortion{seeds.ERROR}"),
        )
        for row in seeds.by_setting(alive, options)
    ]  # fmt: skip


def _page(
    session: RunModel,
    rows: list[dict[str, Any]],
    pictures: list[Pictures | None],
    metrics: list[dict[str, Any]],
) -> str:
    config, chosen, options = session.run.config, conditions_of(session), _options(session)
    what = ", ".join(filter(None, ("samples from the prior", chosen.title)))
    settings = seeds.by_setting(rows, options)
    differing = [name for name in options if name != "seed" and len({row[name] for row in settings}) > 1]
    content = {
        "title": f"{session.data.name}: {len(rows)} conditional VAEs, {name_of(config, 'network')}",
        "rows": rows,
        "names": [_name(row) for row in rows],
        "ranked_by": ranked_by(rows[0]),
        "several": seeds.several(rows, options),
        "differing": differing,
        "settings": [_setting(setting, differing) for setting in settings],
        "grid": _figures(rows) if {"beta", "latent_dim"} <= set(differing) else [],
        "samples": f"{what}: {'; '.join(chosen.names)}" if chosen.names else what,
        "pictures": list(map(_addresses, pictures)),
        "curves": [_curve(row, metrics) for row in rows],
        "palette": qualitative.Plotly,
        "template": templates["plotly_white"].to_plotly_json(),
    }
    data = script_json(without_infinities(content))
    template = _TEMPLATE.read_text(encoding="utf-8")
    return template.replace("/*PLOTLY*/", get_plotlyjs()).replace("/*DATA*/null", data)


def _name(row: dict[str, Any]) -> str:
    """What a member is called beside its number."""
    beta = f"β {row['beta']:g}, " if "beta" in row else ""
    return f"{beta}{row['latent_dim']} latents, seed {row['seed']}"


def _setting(setting: dict[str, Any], differing: Sequence[str]) -> dict[str, Any]:
    """A setting's name, its members and its values, for the page."""
    words = {"beta": "β {:g}", "latent_dim": "{:g} latents"}
    names = [words.get(name, f"{name} {{:g}}").format(setting[name]) for name in differing]
    values = {name: setting[name] for name in {*differing, "latent_dim"}}
    return values | {"name": ", ".join(names) or "all members", "members": setting["members"]}


def _figures(rows: list[dict[str, Any]]) -> list[str]:
    """Columns of results that the heat map can show, the one that members are ranked by first."""
    names = ("test_elbo", "test_rate", "test_distortion", "test_active_units", "test_mutual_information")
    found = [name for name in (*names, *(n for n in rows[0] if n.endswith("nll"))) if name in rows[0]]
    return list(dict.fromkeys([ranked_by(rows[0]), *found]))


def _curve(row: dict[str, Any], metrics: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A member's validation ELBO by epoch."""
    records = [record for record in metrics if record["member"] == row["member"]]
    return {
        "epochs": [record["epoch"] for record in records],
        "elbo": [record["validation"]["elbo"] for record in records],
    }
