"""`--sample_quality`: judges of a run's samples, and files of Inception features."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.data.sources.cache import UNREADABLE, read_npz, write_cached
from cvae_jax.errors import UserError
from experiments.command_line.caching import JUDGES

# What is measured of a trained member, by name.
Record = dict[str, Any]

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from cvae_jax.data.dataset import Dataset
    from cvae_jax.evaluation.quality import Judge
    from cvae_jax.runs.run import Run
    from cvae_jax.runs.session import Session, Trained

    Measure = Callable[[Session, Trained], Record]
    Split = Literal["validation", "test"]

# Part of the name of a cached classifier: to be raised with every change of how it is built or trained.
_CLASSIFIER_VERSION = 3
_INCEPTION_FEATURES = 2048
# By the names of a dataset and its condition: a function from a session, the cache folder, a temperature and a split
# to a measure of samples, for data without a label. `experiments.tasks` adds those of the applications.
OF_TASKS: dict[tuple[str, str], Callable[[Session, Path, float, Split], Measure]] = {}


def find_judge(
    session: Session, cache: Path, temperature: float, *, judges: int = 1, split: Split = "test"
) -> Measure:
    """A function from a trained member to the quality of its samples, by the judges of the run's dataset.

    A judge is trained if the cache has none.

    Args:
      session: the run.
      cache: the folder where judges are kept.
      temperature: of the samples.
      judges: how many judges, each trained with a seed of its own, see `over_judges`.
      split: the real examples that samples are compared with; the function takes a session with them as test split.

    Raises:
      UserError: if there is no judge for the run's condition, or there cannot be several.
    """
    condition = session.model.condition
    name = "none" if condition is None else condition.name
    if judges > 1 and name != "label":
        raise UserError(
            f"judges is {judges}, expected 1 with the condition {name}: only classifiers of labels are trained with "
            "several seeds"
        )
    if name == "label":
        each = [label_judge(session.run, cache, seed, split) for seed in range(judges)]
        return lambda session, trained: over_judges(
            [quality_of_labels(judge, session, trained, temperature) for judge in each]
        )
    dataset = session.run.config.data.dataset
    if (dataset, name) in OF_TASKS:
        return OF_TASKS[dataset, name](session, cache, temperature, split)
    others = "".join(f", or {c} of {data}" for data, c in OF_TASKS)
    raise UserError(f"condition is {name} of {dataset}, expected label{others}, with --sample_quality")


def stored(run: Run, cache: Path) -> Dataset:
    """A run's dataset with its pixels as they are stored: judges see them so, though the run may binarize them."""
    from cvae_jax.runs.session import load_dataset
    from cvae_jax.training.config import replace

    return load_dataset(replace(run.config, binarize="none"), run.data_dir, cache)


def quality_of_labels(judge: Judge, session: Session, trained: Trained, temperature: float) -> Record:
    """The quality of a member's samples of each class."""
    from cvae_jax.evaluation.quality import sample_quality

    return sample_quality(judge, session.model, trained.best.params, temperature=temperature)


def over_judges(records: list[Record]) -> Record:
    """The records of several judges of the same samples, as one record.

    Args:
      records: one of each judge, with the same names.

    Returns:
      Means over judges of floating-point numbers and, with two judges or more, their standard deviations, under the
      name with `_judge_sd`; all else is the same for every judge.

    Example:
      >>> over_judges([{"precision": 0.25, "judged": "means"}, {"precision": 0.75, "judged": "means"}])
      {'precision': 0.5, 'judged': 'means', 'precision_judge_sd': 0.3535533905932738}
    """
    first = records[0]
    judged = [name for name, value in first.items() if isinstance(value, float)] if len(records) > 1 else []
    values = {name: np.array([record[name] for record in records]) for name in judged}
    return (
        first
        | {name: float(of_judges.mean()) for name, of_judges in values.items()}
        | {f"{name}_judge_sd": float(of_judges.std(ddof=1)) for name, of_judges in values.items()}
    )


def label_judge(run: Run, cache: Path, seed: int = 0, split: Split = "test") -> Judge:
    """The judge of a dataset with labels, trained with a seed; it compares samples with the real images of a split."""
    from cvae_jax.evaluation import quality

    dataset = stored(run, cache)
    quality.require_classes(dataset.measured_on(split))
    train, validation = dataset.train, dataset.validation
    depends_on = checksum(
        _CLASSIFIER_VERSION,
        seed,
        dataset.num_classes,
        dataset.x_max,
        train.x,
        train.labels,
        validation.x,
        validation.labels,
    )
    like = quality.abstract_classifier(dataset)
    params = trained_once(
        cache, dataset.name, depends_on, like, lambda: quality.train_classifier(dataset, seed=seed)
    )
    return quality.make_judge(dataset.measured_on(split), params, seed=seed)


def trained_once(
    cache: Path, dataset: str, depends_on: str, like: PyTree, train: Callable[[], PyTree]
) -> PyTree:
    """The variables of a judge from the cache; if it has none, they are trained and written to it.

    Args:
      cache: its folder.
      dataset: the name of the dataset.
      depends_on: a checksum of all that the variables depend on.
      like: shapes of the variables.
      train: returns the trained variables.

    Returns:
      The variables.
    """
    path = cache / JUDGES / f"{dataset.replace('/', '-')}-{depends_on}.npz"
    params = _read_params(path, like)
    if params is None:
        print(
            f"training the classifier that judges samples of {dataset}",
            file=sys.stderr,
            flush=True,
        )
        params = train()
        _write_params(path, params)
    return params


def _write_params(path: Path, params: Any) -> None:
    import jax

    leaves = {jax.tree_util.keystr(place): np.asarray(leaf)
              for place, leaf in jax.tree_util.tree_leaves_with_path(params)}  # fmt: skip
    write_cached(path, leaves)


def _read_params(path: Path, like: Any) -> Any:
    """The variables of a file, or None if it is missing or damaged."""
    import jax

    try:
        arrays = read_npz(path)
    except UNREADABLE:
        return None
    places, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = [arrays.get(jax.tree_util.keystr(place)) for place, _ in places]
    if any(
        leaf is None or leaf.shape != wanted.shape for leaf, (_, wanted) in zip(leaves, places, strict=True)
    ):
        return None
    return structure.unflatten([jax.numpy.asarray(leaf) for leaf in leaves])


def read_inception_features(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays `real` and `generated` of an `.npz`, of shape (n, 2048) each.

    Raises:
      UserError: if the file or its arrays cannot be used.
    """
    try:
        found = read_npz(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, expected an .npz with arrays real and generated") from None
    except UNREADABLE:
        raise UserError(f"{path} cannot be read as .npz with arrays real and generated") from None

    def features(name: str) -> np.ndarray:
        if name not in found:
            raise UserError(f"{path} has no array {name}; it holds {', '.join(sorted(found)) or 'nothing'}")
        array = found[name]
        if array.ndim != 2 or array.shape[1] != _INCEPTION_FEATURES or len(array) < 2:
            raise UserError(
                f"{path}: {name} has shape {array.shape}, expected (n, {_INCEPTION_FEATURES}) with n ≥ 2: the last "
                "pooling layer of Inception-v3"
            )
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise UserError(f"{path}: {name} is {array.dtype}, expected finite floating numbers throughout")
        return array

    return features("real"), features("generated")
