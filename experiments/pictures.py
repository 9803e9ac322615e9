"""Draw what a trained model does with latents and classes: `python -m experiments.pictures --workdir=runs/...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from experiments import cli
from experiments.workdir import chosen_member, define_member_choice, read_run, require_writable

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Dataset

FLAGS = flags.FLAGS

_OF_ANY_CONDITION = ("samples", "reconstructions", "traversals", "aggregate_posterior")
_OF_LABELLED_DATA = ("interpolations", "latents")
_OF_ALL = (*_OF_ANY_CONDITION, *_OF_LABELLED_DATA)
_OF_LABELS = ("traversals_by_class", "label_interpolations", "styles")


def main() -> int:
    workdir = Path(FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)
    condition = run.config.condition
    drawable = {"label": _OF_ALL + _OF_LABELS, "none": _OF_ALL}.get(condition, _OF_ANY_CONDITION)
    if run.config.prior != "standard":
        # That picture compares with N(0, 1).
        drawable = tuple(name for name in drawable if name != "aggregate_posterior")
    trained_on = "without a condition" if condition == "none" else f"with the condition {condition}"
    if run.config.prior != "standard":
        trained_on += f" and the prior {run.config.prior}"
    for name in FLAGS.only:
        if name not in _OF_ALL + _OF_LABELS:
            raise UserError(f"only is {name}, expected some of {', '.join(_OF_ALL + _OF_LABELS)}")
        if name not in drawable:
            raise UserError(
                f"{workdir} was trained {trained_on}, expected some of {', '.join(drawable)} of --only"
            )
    if FLAGS.label is not None and condition != "label":
        raise UserError(f"{workdir} was trained {trained_on}, expected no --label")
    folder = workdir / "pictures" if run.kind == "train" else workdir / "pictures" / f"member-{member:03d}"
    output = Path(FLAGS.output) if FLAGS.output else folder
    for name in FLAGS.only or drawable:
        require_writable(output / f"{name}.png", workdir, run)

    from experiments import figures, loop, results

    session = loop.open_session(run, cli.use_cache())
    chosen = chosen_of(session.dataset, drawable, FLAGS.only)
    names = session.dataset.class_names
    if FLAGS.label is not None and FLAGS.label not in names:
        raise UserError(f"label is {FLAGS.label}, expected one of {', '.join(names)}")
    label = None if FLAGS.label is None else names.index(FLAGS.label)
    part = session.part_of(member)
    trained = results.trained_member(part, results.load_population(session, part, workdir), member)
    q = figures.posterior(session, trained)

    draw = {
        "samples": lambda: figures.samples_figure(session, trained),
        "reconstructions": lambda: figures.reconstructions_figure(session, trained),
        "traversals": lambda: figures.traversals_figure(session, trained, label),
        "traversals_by_class": lambda: figures.traversals_by_class_figure(session, trained, q),
        "interpolations": lambda: figures.interpolations_figure(session, trained, q),
        "label_interpolations": lambda: figures.label_interpolations_figure(session, trained, q),
        "styles": lambda: figures.styles_figure(session, trained, q),
        "aggregate_posterior": lambda: figures.aggregate_posterior_figure(session, trained, q),
        "latents": lambda: figures.scatter_figure(session, trained, q),
    }
    for name in chosen:
        write_atomically(output / f"{name}.png", draw[name]().savefig)
    print(f"wrote {', '.join(f'{name}.png' for name in chosen)} to {output}")
    return 0


def chosen_of(dataset: Dataset, drawable: Sequence[str], only: Sequence[str]) -> list[str]:
    """The pictures to draw: those asked for, or all that a dataset allows.

    Args:
      dataset: the run's.
      drawable: what can be drawn of the run's condition and prior.
      only: what `--only` asks for, empty for all.

    Raises:
      UserError: if one is asked for that the dataset does not allow.
    """
    from cvae_jax.evaluation.posteriors import LEAST_EXAMPLES

    lacks = {} if dataset.labelled else dict.fromkeys(_OF_LABELLED_DATA, "labels of its examples")
    if len(dataset.test) < LEAST_EXAMPLES:
        lacks["latents"] = f"{LEAST_EXAMPLES} test examples"
    for name in only:
        if name in lacks:
            raise UserError(f"only is {name}, expected another of {dataset.name}, which lacks {lacks[name]}")
    return list(only) or [name for name in drawable if name not in lacks]


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    define_member_choice()
    flags.DEFINE_list("only", [], f"Some of {', '.join(_OF_ALL + _OF_LABELS)}; all if not given.")
    flags.DEFINE_string("label", None, "Name of the class in traversals.png; the middle one if not given.")
    flags.DEFINE_string("output", None, "Folder for the pictures; the run's own pictures/ if not given.")
    cli.define_cache_flags()
    cli.run(main)
