"""Draw a trained model's latents and classes: `python -m experiments.pictures --workdir=runs/...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from cvae_jax.runs.workdir import read_run
from experiments.command_line import caching, cli, usage
from experiments.reports.workdir import (
    chosen_member,
    define_data_flags,
    define_model_choice,
    open_with_data,
    require_writable,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cvae_jax.model import CVAE
    from cvae_jax.runs.run import Run
    from cvae_jax.runs.session import RunModel, Session, Trained

FLAGS = flags.FLAGS

_OF_ANY_MODEL = ("samples", "reconstructions")
_OF_ONE_ARRAY = ("traversals", "aggregate_posterior")
_OF_LABELLED_DATA = ("interpolations", "latents")
_OF_LABELS = ("traversals_by_class", "label_interpolations", "styles")
_ALL = (*_OF_ANY_MODEL, *_OF_ONE_ARRAY, *_OF_LABELLED_DATA, *_OF_LABELS)
# All others need no more of the data than the run records.
_OF_WHOLE_SPLIT = ("aggregate_posterior", "latents")


def main() -> int:
    workdir = Path(FLAGS.workdir)
    run = read_run(workdir)
    member = chosen_member(workdir, run)
    for name in FLAGS.only:
        if name not in _ALL:
            raise UserError(f"only is {name}, expected some of {', '.join(_ALL)}")

    from cvae_jax.conditions import Label
    from cvae_jax.runs.session import load_member, open_model

    cache, session = caching.use(), open_model(workdir)
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
    chosen = chosen_of(session, drawable, FLAGS.only)
    for name in chosen:
        require_writable(output / f"{name}.png", workdir, run)
    names = session.data.class_names
    if FLAGS.label is not None and FLAGS.label not in names:
        raise UserError(f"label is {FLAGS.label}, expected one of {', '.join(names)}")
    label = None if FLAGS.label is None else names.index(FLAGS.label)
    whole = [name for name in chosen if name in _OF_WHOLE_SPLIT]
    with_data, missing = _with_data(workdir, run, cache) if whole else (None, "")
    if with_data is None:
        chosen = [name for name in chosen if name not in whole]
    trained = load_member(session if with_data is None else with_data, workdir, member)
    for name, figure in _figures(session, with_data, trained, label).items():
        if name in chosen:
            write_atomically(output / f"{name}.png", figure().savefig)
    if chosen:
        print(f"wrote {', '.join(f'{name}.png' for name in chosen)} to {output}")
    if missing:
        raise UserError(f"{' and '.join(f'{name}.png' for name in whole)} not drawn: {missing}")
    return 0


def _with_data(workdir: Path, run: Run, cache: Path) -> tuple[Session | None, str]:
    """The run with its data, or what is missing of them."""
    try:
        return open_with_data(workdir, run, cache), ""
    except UserError as error:
        return None, str(error)


def _figures(
    session: RunModel, with_data: Session | None, trained: Trained, label: int | None
) -> dict[str, Callable[[], Figure]]:
    """What draws each picture; those of the whole test split only with the data."""
    from experiments.reports import figures

    draw: dict[str, Callable[[], Figure]] = {
        "samples": lambda: figures.samples_figure(session, trained),
        "reconstructions": lambda: figures.reconstructions_figure(session, trained),
        "traversals": lambda: figures.traversals_figure(session, trained, label),
        "traversals_by_class": lambda: figures.traversals_by_class_figure(session, trained),
        "interpolations": lambda: figures.interpolations_figure(session, trained),
        "label_interpolations": lambda: figures.label_interpolations_figure(session, trained),
        "styles": lambda: figures.styles_figure(session, trained),
    }
    if with_data is not None:
        draw |= {
            "aggregate_posterior": lambda: figures.aggregate_posterior_figure(with_data, trained),
            "latents": lambda: figures.scatter_figure(with_data, trained),
        }
    return draw


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


def chosen_of(session: RunModel, drawable: Sequence[str], only: Sequence[str]) -> list[str]:
    """The pictures to draw: those of `--only`, or all that can be drawn from a run's data.

    Args:
      session: the run.
      drawable: see `drawable_of`.
      only: the names of `--only`, empty for all.

    Raises:
      UserError: if one of `--only` cannot be drawn from the data.
    """
    from cvae_jax.evaluation.posteriors import LEAST_EXAMPLES

    lacks = {} if session.data.labelled else dict.fromkeys(_OF_LABELLED_DATA, "labels of its examples")
    if len(session.examples) < LEAST_EXAMPLES:
        lacks["latents"] = f"{LEAST_EXAMPLES} test examples"
    for name in only:
        if name in lacks:
            raise UserError(
                f"only is {name}, expected another of {session.data.name}, which lacks {lacks[name]}"
            )
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
        usage.section("Data", define_data_flags),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
