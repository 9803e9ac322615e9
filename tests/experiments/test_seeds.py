"""A sweep's settings over seeds: means and standard errors in the tables, the picture and the report."""

import csv
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from browser import Browser
from scripts import read_json

from cvae_jax.plots.rate_distortion import rate_distortion
from cvae_jax.runs.description import few_examples
from cvae_jax.runs.run import Run
from cvae_jax.training.config import from_flat, traced_options
from experiments import sweep
from experiments.reports import report, seeds
from experiments.reports.seeds import ERROR

rng = np.random.default_rng(0)
# Two β of three seeds each, of which one diverged, and one β of a single seed.
SETTINGS = [(beta, seed) for beta in (0.5, 4.0) for seed in (0, 1, 2)] + [(1.0, 0)]
MEMBERS = tuple(from_flat(beta=beta, seed=seed) for beta, seed in SETTINGS)
OPTIONS = tuple(traced_options(MEMBERS[0]))
DIVERGED = 4


def row(i, member):
    rates, distortions = rng.uniform(5, 6, 2), rng.uniform(20, 24, 2)
    bounds = {
        f"{split}_{name}": float(value)
        for split, rate, distortion in zip(("validation", "test"), rates, distortions, strict=True)
        for name, value in (("elbo", -rate - distortion), ("rate", rate), ("distortion", distortion))
    }
    others = {"test_active_units": 10 + i, "test_nll": 24.0 + i, "test_nll_standard_error": 0.1 + i}
    how = {
        "test_nll_samples": 5,
        "judged": "means",
        "factors": ["x", "y"],
        "mig": None if i == 2 else 0.1 * i,
    }
    ends = {"epochs": 3, "best_epoch": 1 + i, "stopped_epoch": None, "diverged": 7 if i == DIVERGED else None}
    return {"member": i, **traced_options(member), **bounds, **others, **how, **ends, "seconds": 1.0}


ROWS = [row(i, member) for i, member in enumerate(MEMBERS)]
RUN = Run("sweep", MEMBERS)
FIGURES = ("validation_elbo", "test_elbo", "test_rate", "test_distortion", "test_active_units", "test_nll")


def values(name, *members):
    return [ROWS[i][name] for i in members]


def test_a_setting_has_mean_and_standard_error_of_the_members_that_did_not_diverge():
    of_three, of_two, of_one = seeds.by_setting(ROWS, OPTIONS)
    assert [(s["beta"], s["seeds"], s["diverged"]) for s in (of_three, of_two, of_one)] == [
        (0.5, 3, 0), (4.0, 2, 1), (1.0, 1, 0)
    ]  # fmt: skip
    assert of_two["members"] == [3, 4, 5]
    for name in FIGURES:
        for setting, members in ((of_three, (0, 1, 2)), (of_two, (3, 5))):
            found = values(name, *members)
            assert setting[name] == pytest.approx(np.mean(found))
            assert setting[name + ERROR] == pytest.approx(np.std(found, ddof=1) / math.sqrt(len(found)))
        assert (of_one[name], of_one[name + ERROR]) == (ROWS[6][name], None)


def test_what_is_no_figure_of_a_seed_is_left_as_it_is_or_out():
    of_three, of_two, _ = seeds.by_setting(ROWS, OPTIONS)
    assert (of_three["test_nll_samples"], of_three["judged"], of_three["factors"]) == (5, "means", ["x", "y"])
    assert not {"seed", "member", "seconds", "epochs", "test_nll_standard_error", f"judged{ERROR}"} & set(
        of_three
    )
    # One seed lacks it: its mean would be of others than those counted.
    assert (of_three["mig"], of_three[f"mig{ERROR}"]) == (None, None)
    assert of_two["mig"] == pytest.approx(0.4)


def test_a_setting_whose_members_all_diverged_has_no_figures():
    rows = [one | {"diverged": 3} for one in ROWS[:2]] + ROWS[3:4]
    setting, _ = seeds.by_setting(rows, OPTIONS)
    assert (setting["seeds"], setting["diverged"]) == (0, 2)
    assert all(setting[name] is None for name in (*FIGURES, "test_nll_samples", "judged"))
    *_, last = seeds.table(rows, OPTIONS)
    assert last[1:] == ["0, 2 diverged", "", "", "", ""]


def test_tables_have_rows_per_member_and_per_setting(tmp_path):
    sweep._write_tables(tmp_path, RUN, ROWS)
    assert [one["member"] for one in read_json(tmp_path / "results.json")] == list(range(7))
    settings = read_json(tmp_path / "results_by_setting.json")
    assert [s["test_elbo"] for s in settings] == [s["test_elbo"] for s in seeds.by_setting(ROWS, OPTIONS)]
    with (tmp_path / "results_by_setting.csv").open(encoding="utf-8", newline="") as file:
        for line, setting in zip(csv.DictReader(file), settings, strict=True):
            assert float(line["test_elbo"]) == setting["test_elbo"]
            assert line[f"test_elbo{ERROR}"] == (
                "" if setting["seeds"] == 1 else str(setting[f"test_elbo{ERROR}"])
            )


def test_a_sweep_of_one_seed_has_no_table_of_settings(tmp_path, capsys):
    rows = [ROWS[0], ROWS[3]]
    run = Run("sweep", (MEMBERS[0], MEMBERS[3]))
    sweep._write_tables(tmp_path, run, rows)
    assert not list(tmp_path.glob("results_by_setting*"))
    sweep._print_ranking(run, rows)
    assert "mean" not in capsys.readouterr().out


def test_the_table_printed_says_how_many_seeds(capsys):
    sweep._print_ranking(RUN, ROWS)
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("mean ± standard error over 1 to 3 seeds:")
    assert at == 8
    assert lines[at + 1].split() == [
        "beta",
        "seeds",
        "validation_elbo",
        "test_elbo",
        "test_rate",
        "test_distortion",
    ]
    by_beta = {float(line.split()[0]): line for line in lines[at + 2 :]}
    order = sorted(seeds.by_setting(ROWS, OPTIONS), key=lambda s: -s["validation_elbo"])
    assert list(by_beta) == [s["beta"] for s in order]
    for setting in order:
        figures = by_beta[setting["beta"]]
        assert ("1 diverged" in figures) == (setting["beta"] == 4)
        error = setting[f"test_elbo{ERROR}"]
        shown = f"{setting['test_elbo']:.2f}" + ("" if error is None else f" ± {error:.2f}")
        assert shown in figures


# Pictures

ALIVE = [one for one in ROWS if one["diverged"] is None]


def test_the_picture_has_a_mark_with_error_bars_per_setting():
    points = report._points(ALIVE, OPTIONS)
    figure = rate_distortion(points, ALIVE, title="test split, over 3 seeds")
    (axes,) = figure.axes
    assert "over 3 seeds" in axes.get_title()
    (bars,) = axes.containers
    settings = seeds.by_setting(ALIVE, OPTIONS)
    np.testing.assert_allclose(
        bars[0].get_xydata(), [(s["test_rate"], s["test_distortion"]) for s in settings]
    )
    for lines, name, axis in zip(bars[2], ("test_rate", "test_distortion"), (0, 1), strict=True):
        lengths = [np.ptp(segment[:, axis]) / 2 for segment in lines.get_segments() if len(segment)]
        errors = [s[name + ERROR] for s in settings if s[name + ERROR] is not None]
        np.testing.assert_allclose([x for x in lengths if np.isfinite(x)], errors)
    assert len(axes.collections[-1].get_offsets()) == 6


def test_the_report_has_marks_and_a_table_of_settings(digits, tmp_path):
    browser = Browser(tmp_path)
    session = SimpleNamespace(
        run=RUN,
        data=digits.description,
        examples=few_examples(digits),
        model=SimpleNamespace(condition=digits.condition),
    )
    pictures = [None] * len(ROWS)
    page = tmp_path / "report.html"
    page.write_text(report._page(session, ROWS, pictures, []), encoding="utf-8")
    dom = browser.dom(page)
    table = dom[dom.index('<div id="settings">') : dom.index("<h2>Members</h2>")]
    assert re.findall(r"<td>([^<]*)</td>", table) == [
        cell for line in seeds.table(ROWS, OPTIONS)[1:] for cell in line
    ]
    plot = dom[dom.index('<div id="rate-distortion"') : dom.index('<div id="pointed"')]
    assert len(re.findall(r'<path class="point[ "]', plot)) == len(ALIVE) + 3
    assert (
        len(re.findall(r'<path class="yerror"', plot)) == len(re.findall(r'<path class="xerror"', plot)) == 2
    )
    assert re.findall(r"<th>([^<]*)</th>", table) == seeds.table(ROWS, OPTIONS)[0]


FILTERED = """
window.addEventListener("load", () => {
  const cells = () => [...document.querySelectorAll("#settings td")].map(cell => cell.textContent);
  const map = () => {
    const node = document.getElementById("heat-map");
    const [map] = node.data;
    return map ? [map.x, map.y, map.z] : node.layout.annotations[0].text;
  };
  const filter = text => {
    const input = document.getElementById("filter");
    input.value = text;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const names = () => document.getElementById("curves").data.filter(trace => trace.showlegend).map(t => t.name);
  const range = () => document.getElementById("rate-distortion").layout.yaxis.range;
  const outcome = { map: map(), names: names(), range: range() };
  filter("latent_dim=8 seed=1");
  outcome.some = map();
  outcome.settings = cells();
  filter("beta>100");
  outcome.none = map();
  report(outcome);
});
"""


def test_the_report_maps_beta_and_latent_size_of_the_members_that_match(digits, tmp_path):
    options = [(beta, size, seed) for beta in (0.5, 2.0) for size in (2, 8) for seed in (0, 1)]
    members = tuple(from_flat(beta=beta, latent_dim=size, seed=seed) for beta, size, seed in options)
    rows = [
        {"member": i, **traced_options(one), "diverged": None, "validation_elbo": -10.0 - i, "test_elbo": -20.0 - i,
         "test_rate": 2.0 + i, "test_distortion": 18.0}
        for i, one in enumerate(members)
    ]  # fmt: skip
    metrics = [{"member": i, "epoch": e, "validation": {"elbo": -20.0 - i}} for i in range(8) for e in (1, 2)]
    session = SimpleNamespace(
        run=Run("sweep", members),
        data=digits.description,
        examples=few_examples(digits),
        model=SimpleNamespace(condition=digits.condition),
    )
    page = tmp_path / "report.html"
    page.write_text(report._page(session, rows, [None] * 8, metrics), encoding="utf-8")
    outcome = Browser(tmp_path).outcome(page, FILTERED)
    assert outcome["errors"] == outcome["fetched"] == []
    means = [[-10.5, -12.5], [-14.5, -16.5]]
    assert outcome["map"] == [["2 latents", "8 latents"], ["β 0.5", "β 2"], means]
    assert outcome["names"] == [f"{size} latents, β {beta}" for beta in ("0.5", "2") for size in (2, 8)]
    low, high = outcome["range"]
    assert 17 < low < 18 < high < 19
    assert outcome["some"] == [["8 latents"], ["β 0.5", "β 2"], [[-13.0], [-17.0]]]
    at = seeds.table(rows, list(traced_options(members[0])))[0].index("validation_elbo")
    width = len(outcome["settings"]) // 2
    assert outcome["settings"][at::width] == ["-13.00", "-17.00"]
    assert outcome["none"] == "No member matches the filter."
