"""What people look at after a sweep: `rate_distortion.png`, and `report.html`, one file that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.colors import qualitative
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from cvae_jax.files import write_atomically
from cvae_jax.plots import drawing
from cvae_jax.runs.logs import read_metrics
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
        figure = drawing.rate_distortion(points, alive, title=title)
        write_atomically(workdir / "rate_distortion.png", figure.savefig)
    page = _page(session, rows, alive, pictures, read_metrics(workdir))
    write_atomically(workdir / "report.html", lambda file: file.write_text(page, encoding="utf-8"))


def _options(session: RunModel) -> tuple[str, ...]:
    """Names of the options in which members may differ."""
    return tuple(traced_options(session.run.config))


def _points(alive: list[dict[str, Any]], options: Sequence[str]) -> list[drawing.Point]:
    """The settings on the rate–distortion plane."""
    return [
        drawing.Point(
            row.get("beta"), row["latent_dim"], row["test_rate"], row["test_distortion"],
            row.get(f"test_rate{seeds.ERROR}"), row.get(f"test_distortion{seeds.ERROR}"),
        )
        for row in seeds.by_setting(alive, options)
    ]  # fmt: skip


def _page(
    session: RunModel,
    rows: list[dict[str, Any]],
    alive: list[dict[str, Any]],
    pictures: list[Pictures | None],
    metrics: list[dict[str, Any]],
) -> str:
    config, chosen, options = session.run.config, conditions_of(session), _options(session)
    what = ", ".join(filter(None, ("samples from the prior", chosen.title)))
    content = {
        "title": f"{session.data.name}: {len(rows)} conditional VAEs, {name_of(config, 'network')}",
        "rows": rows,
        "names": [_name(row) for row in rows],
        "ranked_by": ranked_by(rows[0]),
        "settings": seeds.table(rows, options) if seeds.several(rows, options) else [],
        "samples": f"{what}: {'; '.join(chosen.names)}" if chosen.names else what,
        "pictures": list(map(_addresses, pictures)),
        "rate_distortion": _rate_distortion_figure(alive, options).to_plotly_json(),
        "curves": _curves_figure(rows, metrics).to_plotly_json(),
    }
    data = script_json(content, PlotlyJSONEncoder)
    template = _TEMPLATE.read_text(encoding="utf-8")
    return template.replace("/*PLOTLY*/", get_plotlyjs()).replace("/*DATA*/null", data)


def _name(row: dict[str, Any]) -> str:
    """What a member is called beside its number."""
    beta = f"β {row['beta']:g}, " if "beta" in row else ""
    return f"{beta}{row['latent_dim']} latents, seed {row['seed']}"


def _rate_distortion_figure(alive: list[dict[str, Any]], options: Sequence[str]) -> go.Figure:
    figure = go.Figure()
    if alive:
        for x, y, bound in drawing.iso_elbo_lines(alive):
            figure.add_scatter(
                x=x, y=y, mode="lines", line={"color": "#bbb", "width": 1, "dash": "dot"}, hoverinfo="skip",
                showlegend=False, name=f"−ELBO {bound:g}",
            )  # fmt: skip
            figure.add_annotation(
                x=x[0], y=y[0], text=f"{bound:g}", showarrow=False, font={"color": "#888", "size": 10}
            )
    several = seeds.several(alive, options)
    for i, latent_dim in enumerate(sorted({row["latent_dim"] for row in alive})):
        color = qualitative.Plotly[i % 10]
        if several:
            _add_settings(figure, [p for p in _points(alive, options) if p.latent_dim == latent_dim], color)
        points = sorted(
            (r for r in alive if r["latent_dim"] == latent_dim), key=lambda r: (r["seed"], r.get("beta", 0.0))
        )
        figure.add_scatter(
            x=[p["test_rate"] for p in points],
            y=[p["test_distortion"] for p in points],
            mode="markers",
            marker={"size": 6, "opacity": 0.5, "color": color} if several else {"size": 9, "color": color},
            name=f"{latent_dim} latents",
            customdata=[p["member"] for p in points],
            text=[f"member {p['member']}<br>{_name(p)}<br>ELBO {p['test_elbo']:.2f}" for p in points],
            hovertemplate="%{text}<br>rate %{x:.2f}, distortion %{y:.2f}<extra></extra>",
        )
    figure.update_layout(
        template="plotly_white", margin={"l": 60, "r": 10, "t": 10, "b": 45}, height=430,
        legend={"x": 1, "xanchor": "right", "y": 0.98},
        xaxis_title="rate: KL, nats per example", yaxis_title="distortion: −log p(x|z,c), nats per example",
    )  # fmt: skip
    return figure


def _add_settings(figure: go.Figure, points: list[drawing.Point], color: str) -> None:
    """Means over seeds, with their standard errors; of one seed without bars, which plotly would draw of length 0."""
    for known in (True, False):
        some = [p for p in points if (p.rate_error is not None) == known]
        bars = {
            "error_x": {"array": [p.rate_error for p in some], "thickness": 1.5},
            "error_y": {"array": [p.distortion_error for p in some], "thickness": 1.5},
        }
        over = "mean over seeds" if known else "one seed"
        figure.add_scatter(
            x=[p.rate for p in some],
            y=[p.distortion for p in some],
            mode="markers", marker={"size": 11, "symbol": "diamond", "color": color}, showlegend=False,
            text=[
                f"{'' if p.beta is None else f'β {p.beta:g}, '}{p.latent_dim} latents, {over}" for p in some
            ],
            hovertemplate="%{text}<br>rate %{x:.2f}, distortion %{y:.2f}<extra></extra>",
            **(bars if known else {}),
        )  # fmt: skip


def _curves_figure(rows: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> go.Figure:
    figure = go.Figure()
    for row in rows:
        records = [record for record in metrics if record["member"] == row["member"]]
        figure.add_scatter(
            x=[record["epoch"] for record in records],
            y=[record["validation"]["elbo"] for record in records],
            mode="lines", line={"width": 1.2}, name=f"member {row['member']}",
            hovertemplate=f"member {row['member']}, epoch %{{x}}: %{{y:.2f}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white", margin={"l": 60, "r": 10, "t": 10, "b": 45}, height=380, showlegend=False,
        xaxis_title="epoch", yaxis_title="validation ELBO, nats per example",
    )  # fmt: skip
    return figure
