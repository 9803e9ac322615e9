"""`--help` of every script: all of its flags in groups, absl's last; nothing is started or written."""

import json
import os
import re
import runpy
import sys

import pytest
from absl import flags
from scripts import FORKS, ROOT, SECONDS

from experiments.command_line import usage

SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__")
# The first groups of each, and flags that a new user looks for.
WANTED = {
    "train": (
        ("Most used", "Data", "Model", "Condition", "Objective", "Optimizer", "Output", "Measures", "Cache"),
        ("dataset", "beta", "latent_dim", "epochs", "learning_rate", "workdir"),
    ),
    "sample": (
        ("Model", "Condition", "Samples", "Output", "Cache"),
        ("label", "text", "speaker", "member", "best", "temperature", "condition_file"),
    ),
    "evaluate": (("Model", "Measures", "Data", "Output", "Cache"), ("workdir", "compare", "nll_samples")),
}
MOST_WORDS = 2500


def help_of(script, argument, folder):
    """Start a script with one argument in a folder: its status, output, errors, and its own flags' names."""
    out, err, names = (folder.parent / f"{folder.name}.{end}" for end in ("out", "err", "names"))
    folder.mkdir()
    process = FORKS.Process(target=_main, args=(script, argument, folder, out, err, names))
    process.start()
    process.join(SECONDS)
    return process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"), names


def _main(script, argument, folder, out, err, names):
    """Become `python -m` of a script, and leave the names of the flags that it defines."""
    from experiments.command_line import cli

    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(COLUMNS="110", HOME=str(folder), XDG_CACHE_HOME=str(folder / "cache"))
    os.chdir(folder)
    sys.path.insert(0, os.fspath(ROOT))
    sys.argv = [f"experiments.{script}", argument]
    sys.modules.pop(sys.argv[0], None)
    run, foreign = cli.run, set(flags.FLAGS)

    def recorded(main, sections):
        names.write_text(json.dumps(sorted(set(flags.FLAGS) - foreign)))
        run(main, sections)

    cli.run = recorded
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def listed(text):
    """Names of the flags of a text, by the title that they stand under."""
    found, title = {}, ""
    for line in text.splitlines():
        if match := re.match(r" {2,6}--(\w+)", line):
            found.setdefault(title, []).append(match[1])
        elif line and not line.startswith(" "):
            title = line
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_the_scripts_own_flags_and_writes_nothing(script, tmp_path):
    folder = tmp_path / "user"
    code, out, err, names = help_of(script, "--help", folder)
    assert (code, err) == (0, "")
    assert list(folder.iterdir()) == []
    own, by_group = set(json.loads(names.read_text())), listed(out)
    *groups, last = [line for line in out.splitlines() if re.fullmatch(r"[A-Z][\w ]*", line)]
    assert last == "Flags of absl"
    by_group.pop(last)
    assert {name for group in by_group.values() for name in group} == own
    wanted, looked_for = WANTED.get(script, (tuple(groups), ()))
    assert tuple(groups) == wanted
    assert own >= set(looked_for)
    assert len(out.split()) <= MOST_WORDS
    assert max(map(len, out.splitlines())) <= 120
    # A text for each: sentences that begin with a capital, a number or a symbol.
    for line in re.sub(r"\n {30}", " ", out).splitlines():
        if match := re.match(r" {2,6}--\w+\S*\s+(.*)", line):
            assert re.match(r"\S.*[.:)\]]$", match[1]), line
            assert not re.match(r"(Of (the|what|that|a)|Which|What happens)\b", match[1]), line


def test_full_help_ends_in_absls_flags(tmp_path):
    code, out, err, _ = help_of("prepare", "--helpfull", tmp_path / "user")
    assert (code, err) == (0, "")
    assert out.index("--dataset") < out.index("--verbosity")


def test_a_flag_is_listed_with_its_default_and_its_values(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    flags.DEFINE_string("before", None, "Defined before.", flag_values=values)

    def define():
        flags.DEFINE_integer("num", 16, "Number of  samples.", flag_values=values)
        flags.DEFINE_bool("best", False, "Use the best.", flag_values=values)
        flags.DEFINE_enum("split", "test", ("validation", "test"), "Split to use.", flag_values=values)

    assert usage.section("Samples", define) == usage.Section(
        "Samples",
        (
            usage.Entry("--num=16", "Number of samples."),
            usage.Entry("--best", "Use the best."),
            usage.Entry("--split=test", "Split to use. One of validation, test."),
        ),
    )
