"""`experiments.sweep` as a person runs it: tables, pictures, the report in a browser, and what follows a sweep.

One file for all of it, because the tests of a second would train the same sweep again.
"""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from browser import Browser
from plotly.offline import get_plotlyjs
from scripts import Scripts, metrics_lines, read_json, tensorboard_events, without_seconds
from tensorboardX.proto import plugin_hparams_pb2

from cvae_jax.training.config import Config, traced_options

EPOCHS = 3
STEPS = EPOCHS * 10
RATES = (2e-3, 1e6, 5e-4, 4e-3)  # one of them diverges
DIVERGED = 1
SWEEP = (
    "--learning_rate=2e-3,1e6,5e-4,4e-3",
    "--latent_dim=4",
    f"--epochs={EPOCHS}",
    "--checkpoint_every=1",
    "--members_per_program=2",
    "--nll_samples=5",
)
TERMS = ("elbo", "rate", "distortion")
METRICS = [*(f"validation_{name}" for name in (*TERMS, "loss")), *(f"test_{name}" for name in TERMS)]
HELD = (
    "mutual_information", "aggregate_kl", "conditional_mutual_information", "conditional_aggregate_kl",
    "label_information", "active_units", "reconstruction_mse", "reconstruction_psnr", "reconstruction_ssim",
    "ssim_window",
)  # fmt: skip
LATENTS = [f"test_{name}" for name in HELD]
NLL = [f"test_{name}" for name in ("conditional_nll", "conditional_nll_standard_error", "nll_samples")]
MADE_AGAIN = ("results.csv", "report.html", "rate_distortion.png")
RESULTS = [*METRICS, *LATENTS, *NLL]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    return Scripts(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def swept(scripts, tmp_path_factory):
    """The workdir of a finished sweep, and what its command output."""
    workdir = tmp_path_factory.mktemp("sweeps") / "undisturbed"
    result = scripts.run("sweep", *SWEEP, f"--workdir={workdir}")
    assert result.code == 0, result.err
    return workdir, result


@pytest.fixture(scope="module")
def launched(scripts, swept, tmp_path_factory):
    """Results of the commands on a finished sweep by name, two at a time."""
    workdir = f"--workdir={swept[0]}"
    other = tmp_path_factory.mktemp("other")
    exported = other / "exported"
    without_metrics = other / "without_metrics"
    bare = other / "bare"
    shutil.copytree(swept[0], bare, ignore=shutil.ignore_patterns(*MADE_AGAIN))
    shutil.copytree(swept[0], without_metrics, ignore=shutil.ignore_patterns("metrics.jsonl"))
    look = ("--label=7", "--num=4")
    chains = [
        {
            "export": ("export_member", workdir, "--member=3", f"--output={exported}"),
            "evaluate exported": ("evaluate", f"--workdir={exported}"),
            "sweep over a run": ("sweep", *SWEEP, f"--workdir={exported}"),
            "train on": (
                "train", "--learning_rate=4e-3", "--latent_dim=4", f"--epochs={EPOCHS + 2}", f"--workdir={exported}",
            ),
        },
        {
            "evaluate": ("evaluate", workdir, "--member=2", "--nll_samples=5"),
            "sample": ("sample", workdir, "--best", *look, f"--output={other / 'seven.npz'}"),
            "compare": ("evaluate", f"--compare={swept[0]}:best,{swept[0]}:2"),
            "member out of range": ("evaluate", workdir, "--member=4"),
            "no metrics": ("export_member", f"--workdir={without_metrics}", "--member=3"),
            "compare what": ("evaluate", workdir, f"--compare={swept[0]}:0,{swept[0]}:2"),
            "train over a sweep": ("train", workdir),
            "again": ("sweep", *SWEEP, workdir),
            "made again": ("sweep", *SWEEP, f"--workdir={bare}"),
        },
    ]  # fmt: skip

    def run_chain(commands):
        return {name: scripts.run(*command) for name, command in commands.items()}

    with ThreadPoolExecutor(2) as pool:
        results = {k: v for chain in pool.map(run_chain, chains) for k, v in chain.items()}
    return results, other


@pytest.fixture
def result(launched):
    return launched[0].__getitem__


def read_table(workdir):
    with (workdir / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ranked(rows):
    """Members best first, those that diverged last."""
    return [
        r["member"] for r in sorted(rows, key=lambda r: (r["diverged"] is not None, -r["validation_elbo"]))
    ]


# What a sweep leaves behind


def test_results_csv_has_a_row_per_member(swept):
    table = read_table(swept[0])
    settings = list(traced_options(Config()))
    ends = ["epochs", "best_epoch", "stopped_epoch", "diverged", "seconds"]
    assert list(table[0]) == ["member", *settings, *RESULTS, *ends]
    assert [int(row["member"]) for row in table] == [0, 1, 2, 3]
    assert [float(row["learning_rate"]) for row in table] == list(RATES)
    for row in table:
        assert (float(row["beta"]), int(row["latent_dim"]), float(row["clip_norm"])) == (1.0, 4, math.inf)
        assert float(row["seconds"]) > 0
        for split in ("validation", "test"):
            elbo, rate, distortion = (float(row[f"{split}_{k}"]) for k in ("elbo", "rate", "distortion"))
            assert elbo == -(rate + distortion)
        nats = [float(row[name]) for name in LATENTS[:2]]
        assert sum(nats) == pytest.approx(float(row["test_rate"]), rel=1e-12)
        assert 0 <= int(row["test_active_units"]) <= 4
        bound, nll = float(row["test_elbo"]), float(row["test_conditional_nll"])
        assert -bound - 3 < nll < -bound


def test_results_json_says_the_same(swept):
    rows = read_json(swept[0] / "results.json")
    for row, line in zip(rows, read_table(swept[0]), strict=True):
        assert list(row) == list(line)
        for name, text in line.items():
            number = float(text) if text else None
            assert row[name] == (None if number == math.inf else number)


def test_a_member_that_diverges_leaves_the_others_alone(swept):
    rows = read_json(swept[0] / "results.json")
    for row in rows:
        if row["member"] == DIVERGED:
            assert 0 < row["diverged"] < 10
            assert row["best_epoch"] == 0
        else:
            assert row["diverged"] is None
            assert row["best_epoch"] == EPOCHS
            assert -40 < row["test_elbo"] < -20
        assert (row["validation_loss"] is None) == (row["best_epoch"] == 0)
        assert all(math.isfinite(row[name]) for name in RESULTS if name != "validation_loss")


def test_the_ranking_is_printed_best_first(swept):
    workdir, output = swept
    assert output.err == ""
    rows = read_json(workdir / "results.json")
    lines = output.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:1] == ["member"])
    assert lines[at].split() == [
        "member", "learning_rate", "validation_elbo", "test_elbo", "test_rate", "test_distortion"
    ]  # fmt: skip
    table = [line.split() for line in lines[at + 1 : at + 5]]
    assert [int(cells[0]) for cells in table] == ranked(rows)
    for cells in table:
        row = rows[int(cells[0])]
        assert float(cells[1]) == row["learning_rate"]
        assert cells[2:6] == [f"{row[k]:.2f}" for k in lines[at].split()[2:]]
    assert lines[at + 4].endswith(f"diverged at step {rows[DIVERGED]['diverged']}")


def test_metrics_jsonl_has_a_line_per_member_and_epoch(swept):
    lines = metrics_lines(swept[0])
    parts = ((0, 1), (2, 3))
    expected = [(m, e) for part in parts for e in range(1, EPOCHS + 1) for m in part]
    assert [(line["member"], line["epoch"]) for line in lines] == expected


def test_the_rate_distortion_picture_shows_something(swept):
    from matplotlib.image import imread

    picture = imread(swept[0] / "rate_distortion.png")
    assert min(picture.shape[:2]) > 200
    assert len(np.unique(picture[..., 0])) > 20


def test_tensorboard_has_the_members_as_hparams(swept):
    settings, metrics = {}, {}
    for file in (swept[0] / "tensorboard").rglob("events.out.*"):
        run = file.parent.name
        for event in tensorboard_events(file):
            for value in event.summary.value:
                if value.tag == "_hparams_/session_start_info":
                    content = plugin_hparams_pb2.HParamsPluginData.FromString(
                        value.metadata.plugin_data.content
                    )
                    settings[run] = {k: v.number_value for k, v in content.session_start_info.hparams.items()}
                elif value.tag.startswith("test/"):
                    metrics.setdefault(run, {})[value.tag] = value.simple_value
    rows = read_json(swept[0] / "results.json")
    assert set(settings) == set(metrics) == {f"member-{i:03d}" for i in range(4)}
    for row in rows:
        run = f"member-{row['member']:03d}"
        assert settings[run]["learning_rate"] == row["learning_rate"]
        assert settings[run]["latent_dim"] == 4
        for name in ("elbo", "rate", "distortion"):
            assert metrics[run][f"test/{name}"] == np.float32(row[f"test_{name}"])


def test_no_temporary_files_are_left(swept):
    names = {path.name for path in swept[0].iterdir()}
    assert names == {
        "checkpoints", "config.json", "data.json", "examples.npz", "metrics.jsonl", "rate_distortion.png",
        "report.html", "results.csv", "results.json", "tensorboard",
    }  # fmt: skip


# A sweep that is disturbed


@pytest.mark.slow
def test_a_sweep_killed_in_mid_run_ends_as_an_undisturbed_one(scripts, swept, tmp_path):
    workdir = tmp_path / "sweep"
    command = ("sweep", *SWEEP, f"--workdir={workdir}")
    killed = scripts.start(*command)
    deadline = time.monotonic() + 120
    metrics = workdir / "metrics.jsonl"
    while not metrics.exists() or '{"member": 2, ' not in metrics.read_text(encoding="utf-8"):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (workdir / "results.csv").exists()

    code, _, err = scripts.run(*command)
    assert (code, err) == (0, "")
    assert without_seconds(read_table(workdir)) == without_seconds(read_table(swept[0]))
    assert metrics_lines(workdir) == metrics_lines(swept[0])


# After a sweep


def test_evaluate_repeats_a_members_row(swept, result):
    assert result("evaluate").code == 0, result("evaluate").err
    record, row = json.loads(result("evaluate").out), read_json(swept[0] / "results.json")[2]
    assert {f"{s}_{k}": v for s in ("validation", "test") for k, v in record[s].items()} == {
        name: row[name] for name in RESULTS
    }
    assert record["best_epoch"] == row["best_epoch"]


def test_two_members_are_compared(swept, result):
    assert result("compare").code == 0, result("compare").err
    record, rows = json.loads(result("compare").out), read_json(swept[0] / "results.json")
    best = ranked(rows)[0]
    assert record["compare"] == [f"{swept[0]}:best", f"{swept[0]}:2"]
    for name in ("elbo", "rate", "distortion"):
        found, expected = record[name], [rows[i][f"test_{name}"] for i in (best, 2)]
        np.testing.assert_allclose([found["a"], found["b"]], expected, rtol=1e-5)
        assert found["difference"] == pytest.approx(found["a"] - found["b"], abs=1e-9)
        assert found["standard_error"] > 0


def test_the_best_member_is_sampled(launched):
    results, other = launched
    assert results["sample"].code == 0, results["sample"].err
    with np.load(other / "seven.npz") as file:
        assert file["x"].shape == (4, 8, 8, 1)
        assert len({image.tobytes() for image in file["x"]}) == 4
        np.testing.assert_array_equal(file["c"], 7)


def test_the_same_command_says_it_is_finished(swept, result):
    workdir, output = swept
    assert result("again").code == 0, result("again").err
    *ranking, last = result("again").out.splitlines()
    assert last == f"{workdir} is finished: {EPOCHS} epochs"
    assert output.out.splitlines()[-1 - len(ranking) : -1] == ranking


def test_a_finished_sweep_gets_back_what_it_lacks(swept, launched):
    results, other = launched
    assert results["made again"].err == ""
    assert results["made again"].out.splitlines()[-1].endswith(f"is finished: {EPOCHS} epochs")
    for name in (*MADE_AGAIN[:2], "results.json"):
        assert (other / "bare" / name).read_bytes() == (swept[0] / name).read_bytes()
    assert (other / "bare" / MADE_AGAIN[2]).stat().st_size > 1000


def test_an_exported_member_has_its_rows_metrics_and_continues(swept, launched):
    results, other = launched
    assert results["export"].code == 0, results["export"].err
    row = read_json(swept[0] / "results.json")[3]
    evaluated = json.loads(results["evaluate exported"].out)
    for name in METRICS:
        split, metric = name.split("_")
        np.testing.assert_allclose(evaluated[split][metric], row[name], rtol=1e-5)
    for name in LATENTS:
        np.testing.assert_allclose(evaluated["test"][name.removeprefix("test_")], row[name], atol=1e-4)
    row = read_json(swept[0] / "results.json")[3]
    output = results["export"].out.splitlines()[-1]
    assert output.startswith(f"member 3 is an ordinary run in {other / 'exported'}: test elbo ")
    assert float(output.split("test elbo ")[1].split()[0]) == pytest.approx(row["test_elbo"], abs=0.0051)

    assert results["train on"].code == 0, results["train on"].err
    assert f"resuming at step {STEPS} of {STEPS + 20}" in results["train on"].out
    lines = metrics_lines(other / "exported")
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 3))
    assert lines[:EPOCHS] == [line | {"member": 0} for line in metrics_lines(swept[0]) if line["member"] == 3]
    assert lines[-1]["validation"]["elbo"] > lines[EPOCHS - 1]["validation"]["elbo"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_an_export_on_a_full_disk_leaves_nothing(scripts, swept, tmp_path):
    for size in ("40k", "400k"):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path], check=False
        )
        if mounted.returncode:
            pytest.skip("this system does not let even root mount")
        try:
            result = scripts.run(
                "export_member", f"--workdir={swept[0]}", "--member=3", f"--output={tmp_path / 'run'}"
            )
            assert result.code == 1
            assert result.err.startswith("error: ")
            assert "no space left on the device" in result.err.lower()
            assert result.err.count("\n") == 1
            assert list(tmp_path.iterdir()) == []
        finally:
            subprocess.run(["umount", tmp_path], check=True)


# Errors

ERRORS = {
    "member out of range": ("member is 4, expected 0 to 3",),
    "no metrics": ("metrics.jsonl has no line of member 3, expected one per epoch",),
    "compare what": ("expected either --workdir", "or --compare"),
    "train over a sweep": ("it is a sweep there, not a single training",),
    "sweep over a run": ("it is a single training there, not a sweep",),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_that_says_what_to_mend(result, name):
    assert result(name).code == 1
    (line,) = result(name).err.splitlines()
    assert line.startswith("error: ")
    for part in ERRORS[name]:
        assert part in line


# The report

INTERACTIONS = """
window.addEventListener("load", () => setTimeout(() => {
  const outcome = {};
  const members = () => [...document.querySelectorAll("#body tr")].map(row => Number(row.cells[1].textContent));
  const head = name => [...document.querySelectorAll("#head th")].find(cell => cell.textContent === name);
  const cards = () => [...document.querySelectorAll("#chosen h3")].map(title => title.textContent);
  const filter = text => {
    const input = document.getElementById("filter");
    input.value = text;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    return [members(), document.getElementById("count").textContent];
  };
  const plots = () => [
    document.querySelectorAll("#rate-distortion path.point").length,
    document.querySelectorAll("#curves .scatterlayer path.js-line").length,
    ...["rate-distortion", "curves", "chosen"].map(id =>
      document.getElementById(id).textContent.includes("No member matches the filter.")),
  ];
  outcome.start = [members(), cards()];
  outcome.below = [...filter("learning_rate<0.003"), plots()];
  outcome.none = [...filter("learning_rate>1 test_elbo>0"), plots()];
  outcome.all = [...filter(""), plots()];
  head("learning_rate").click();
  outcome.ascending = [members(), head("learning_rate").getAttribute("aria-sort")];
  head("learning_rate").click();
  outcome.descending = [members(), head("learning_rate").getAttribute("aria-sort")];
  const boxes = () => [...document.querySelectorAll("#body input[type=checkbox]")];
  boxes().find(box => !box.checked).click();
  outcome.ticked = cards();
  boxes().forEach(box => box.click());
  outcome.unticked = cards();
  const plot = document.getElementById("rate-distortion");
  outcome.marks = plot.querySelectorAll("path.point").length;
  outcome.hovered = plot.data.find(trace => trace.mode === "markers").customdata[1];
  const mark = plot.querySelectorAll("path.point")[1];
  mark.scrollIntoView({ block: "center" });
  const box = mark.getBoundingClientRect();
  const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 2];
  plot.querySelector(".nsewdrag").dispatchEvent(new MouseEvent("mousemove", { clientX, clientY, bubbles: true }));
  setTimeout(() => {
    outcome.pointed = document.querySelector("#pointed").textContent;
    outcome.pictures = [...document.querySelectorAll("#pointed img")].map(image => image.naturalWidth);
    report(outcome);
  }, 500);
}, 1500));
"""


def test_the_report_is_one_small_file_that_fetches_nothing(swept):
    page = swept[0] / "report.html"
    assert page.stat().st_size < 10e6
    text = page.read_text(encoding="utf-8")
    assert get_plotlyjs() in text
    own = text.replace(get_plotlyjs(), "")
    assert not re.search(r"https?:|\bfetch\(|@import|<link|<script[^>]+src", own)


def test_a_browser_shows_a_row_and_a_mark_per_member(swept, browser):
    workdir, rows = swept[0], read_json(swept[0] / "results.json")
    dom = browser.dom(workdir / "report.html")
    assert "<title>digits: 4 conditional VAEs, mlp</title>" in dom
    head = re.findall(r"<th[^>]*>([^<]*)</th>", dom)
    assert head[:4] == ["", "member", "learning_rate", "validation_elbo"]
    table = re.findall(r"<td>([^<]*)</td>", dom[dom.index('<tbody id="body">') : dom.index("</tbody>")])
    shown = [dict(zip(head[1:], table[i:], strict=False)) for i in range(0, len(table), len(head) - 1)]
    assert [int(row["member"]) for row in shown] == sorted(
        range(4), key=lambda i: -rows[i]["validation_elbo"]
    )
    for row in shown:
        assert float(row["test_elbo"]) == pytest.approx(rows[int(row["member"])]["test_elbo"], rel=1e-3)
        assert float(row["learning_rate"]) == RATES[int(row["member"])]
    assert 'Above: <span id="samples">samples from the prior, a row per class: 0; 1; 2;' in dom
    plot = dom[dom.index('<div id="rate-distortion"') : dom.index('<div id="pointed"')]
    assert len(re.findall(r'<path class="point[ "]', plot)) == 3
    curves = dom[dom.index('<div id="curves"') :]
    curves = curves[curves.index('class="scatterlayer') : curves.index('class="legend"')]
    assert len(re.findall(r'<path class="js-line"', curves)) == 3


def test_the_report_answers_a_person(swept, browser):
    rows = read_json(swept[0] / "results.json")
    order = sorted(range(4), key=lambda i: -rows[i]["validation_elbo"])
    outcome = browser.outcome(swept[0] / "report.html", INTERACTIONS)
    alive = [f"member {i}: β 1, 4 latents, seed 0" for i in range(4) if i != DIVERGED]
    everyone = [f"member {i}: β 1, 4 latents, seed 0" for i in range(4)]
    assert outcome["start"] == [order, alive]
    assert outcome["below"] == [
        [i for i in order if RATES[i] < 0.003],
        "2 of 4 members",
        [2, 2, False, False, False],
    ]
    assert outcome["none"] == [[], "no member matches, of 4", [0, 0, True, True, True]]
    assert outcome["all"] == [order, "4 of 4 members", [3, 3, False, False, False]]
    by_rate = sorted(range(4), key=RATES.__getitem__)
    assert outcome["ascending"] == [by_rate, "ascending"]
    assert outcome["descending"] == [by_rate[::-1], "descending"]
    assert outcome["ticked"] == everyone
    assert outcome["unticked"] == []
    assert outcome["marks"] == 3
    assert outcome["pointed"].startswith(f"member {outcome['hovered']}: β 1, 4 latents, seed 0test ELBO")
    assert len(outcome["pictures"]) == 2
    assert all(outcome["pictures"])
    assert outcome["fetched"] == []
    assert outcome["errors"] == []
