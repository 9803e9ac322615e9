"""Draw a trained model's latents and classes: `python -m experiments.pictures --workdir=runs/...`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from cvae_jax.runs.workdir import read_run
from experiments.command_line import caching, cli, usage
from experiments.reports.workdir import chosen_member, define_model_choice, require_writable

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Dataset
    from cvae_jax.model import CVAE

FLAGS = flags.FLAGS

_OF_ANY_MODEL = ("samples", "reconstructions")
_OF_ONE_ARRAY = ("traversals", "aggregate_posterior")
_OF_LABELLED_DATA = ("interpolations", "latents")
_OF_LABELS = ("traversals_by_class", "label_interpolations", "styles")
_ALL = (*_OF_ANY_MODEL, *_OF_ONE_ARRAY, *_OF_LABELLED_DATA, *_OF_LABELS)


def main() -> int:
    workdir = Path(FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)
    for name in FLAGS.only:
        if name not in _ALL:
            raise UserError(f"only is {name}, expected some of {', '.join(_ALL)}")

    from cvae_jax.conditions import Label
    from cvae_jax.runs.session import load_member, open_session
    from experiments.reports import figures

    session = open_session(run, caching.use())
    drawable = drawable_of(session.model)
    for name in FLAGS.only:
        if name not in drawable:
            raise UserError(
                f"{workdir} was trained {_trained(session.model)}, expected some of {', '.join(drawable)} of --only"
            )
    if FLAGS.label is not None and not isinstance(session.model.condition, Label):
        raise UserError(f"{workdir} was trained {_trained(session.model)}, expected no --label")
    folder = workdir / "pictures" if run.kind == "train" else workdir / "pictures" / f"member-{member:03d}"
    output = Path(FLAGS.output) if FLAGS.output else folder
    chosen = chosen_of(session.dataset, drawable, FLAGS.only)
    for name in chosen:
        require_writable(output / f"{name}.png", workdir, run)
    names = session.dataset.class_names
    if FLAGS.label is not None and FLAGS.label not in names:
        raise UserError(f"label is {FLAGS.label}, expected one of {', '.join(names)}")
    label = None if FLAGS.label is None else names.index(FLAGS.label)
    trained = load_member(session, workdir, member)
    posterior = functools.cache(lambda: figures.posterior(session, trained))
    draw = {
        "samples": lambda: figures.samples_figure(session, trained),
        "reconstructions": lambda: figures.reconstructions_figure(session, trained),
        "traversals": lambda: figures.traversals_figure(session, trained, label),
        "traversals_by_class": lambda: figures.traversals_by_class_figure(session, trained, posterior()),
        "interpolations": lambda: figures.interpolations_figure(session, trained, posterior()),
        "label_interpolations": lambda: figures.label_interpolations_figure(session, trained, posterior()),
        "styles": lambda: figures.styles_figure(session, trained, posterior()),
        "aggregate_posterior": lambda: figures.aggregate_posterior_figure(session, trained, posterior()),
        "latents": lambda: figures.scatter_figure(session, trained, posterior()),
    }
    for name in chosen:
        write_atomically(output / f"{name}.png", draw[name]().savefig)
    print(f"wrote {', '.join(f'{name}.png' for name in chosen)} to {output}")
    return 0


def drawable_of(model: CVAE) -> tuple[str, ...]:
    """The pictures that can be drawn of a model, by its condition, its prior and its latents."""
    from cvae_jax.conditions import Label

    if not model.flat_latents:
        return _OF_ANY_MODEL
    names = (*_OF_ANY_MODEL, *_OF_ONE_ARRAY)
    if model.condition is None or isinstance(model.condition, Label):
        names += _OF_LABELLED_DATA
    if isinstance(model.condition, Label):
        names += _OF_LABELS
    # That picture compares with N(0, 1).
    return names if model.prior.standard else tuple(name for name in names if name != "aggregate_posterior")


def _trained(model: CVAE) -> str:
    """How a model was trained, for messages."""
    from cvae_jax.priors import PRIORS

    how = "without a condition" if model.condition is None else f"with the condition {model.condition.name}"
    return how if model.prior.standard else f"{how} and the prior {PRIORS.name_of(model.prior)}"


def chosen_of(dataset: Dataset, drawable: Sequence[str], only: Sequence[str]) -> list[str]:
    """The pictures to draw: those of `--only`, or all that can be drawn from a dataset.

    Args:
      dataset: of the run.
      drawable: see `drawable_of`.
      only: the names of `--only`, empty for all.

    Raises:
      UserError: if one of `--only` cannot be drawn from the dataset.
    """
    from cvae_jax.evaluation.posteriors import LEAST_EXAMPLES

    lacks = {} if dataset.labelled else dict.fromkeys(_OF_LABELLED_DATA, "labels of its examples")
    if len(dataset.test) < LEAST_EXAMPLES:
        lacks["latents"] = f"{LEAST_EXAMPLES} test examples"
    for name in only:
        if name in lacks:
            raise UserError(f"only is {name}, expected another of {dataset.name}, which lacks {lacks[name]}")
    return list(only) or [name for name in drawable if name not in lacks]


def _define_pictures() -> None:
    flags.DEFINE_list("only", [], f"Draw only these: some of {', '.join(_ALL)}, with commas between.")
    flags.DEFINE_string(
        "label", None, "Class that traversals.png shows, by its name; if not set, the middle one."
    )
    flags.DEFINE_string("output", None, "Folder of the pictures; if not set, pictures/ in --workdir.")


if __name__ == "__main__":
    sections = [
        usage.section("Model", define_model_choice),
        usage.section("Pictures", _define_pictures),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
