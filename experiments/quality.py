"""For `--sample_quality`: the judge of a run's dataset, and files of Inception features."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cvae_jax.checksums import checksum
from cvae_jax.data.cache import UNREADABLE, read_npz
from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from experiments.cli import JUDGES
from experiments.workdir import Run

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from cvae_jax.evaluation.quality import Judge
    from experiments.loop import Session
    from experiments.measures import Record
    from experiments.results import Trained

# Part of the name of a cached classifier: to be raised with every change of how it is built or trained.
_CLASSIFIER_VERSION = 3
_INCEPTION_FEATURES = 2048


def find_judge(
    run: Run,
    cache: Path,
    temperature: float,
    *,
    judges: int = 1,
    split: Literal["validation", "test"] = "test",
) -> Callable[[Session, Trained], Record]:
    """A function from a trained member to how good its samples are, by the judges of the run's dataset.

    A judge is trained if the cache has none.

    Args:
      run: what was trained.
      cache: where judges are kept.
      temperature: of the samples.
      judges: how many judge the samples, each trained with a seed of its own, see `over_judges`.
      split: the real examples that samples are compared with; the function takes a session whose test split they are.

    Raises:
      UserError: if there is no judge of samples under the run's condition, or there are not several.
    """
    from experiments.tasks.captions import quality as caption_quality
    from experiments.tasks.spoken_digit import quality as speech_quality

    if judges > 1 and run.config.condition != "label":
        raise UserError(
            f"judges is {judges}, expected 1 with the condition {run.config.condition}: only classifiers of labels "
            "are trained with several seeds"
        )
    match run.config.dataset, run.config.condition:
        case _, "label":
            each = [label_judge(run, cache, seed, split) for seed in range(judges)]
            return lambda session, trained: over_judges(
                [quality_of_labels(judge, session, trained, temperature) for judge in each]
            )
        case "captions", "text":
            return caption_quality.find_judge(run, cache, temperature, split)
        case "spoken_digit", "text,label":
            return speech_quality.find_judge(run, cache, temperature, split)
        case dataset, condition:
            raise UserError(
                f"condition is {condition} of {dataset}, expected label, or text of captions, or text,label of "
                "spoken_digit, with --sample_quality"
            )


def quality_of_labels(judge: Judge, session: Session, trained: Trained, temperature: float) -> Record:
    """How good a member's samples of each class are."""
    from cvae_jax.evaluation.quality import sample_quality

    mask = trained.hparams.latent_mask
    return sample_quality(judge, session.model, trained.best.params, mask, temperature=temperature)


def over_judges(records: list[Record]) -> Record:
    """What several judges say of the same samples, as one record.

    Args:
      records: each judge's, of the same names.

    Returns:
      Means over judges where numbers differ between them, and of two judges or more the standard deviation between
      them, under the name with `_judge_sd`; all else is the same for each judge and stays as it is.

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


def label_judge(run: Run, cache: Path, seed: int = 0, split: Literal["validation", "test"] = "test") -> Judge:
    """The judge of a dataset with labels, trained with a seed, which compares samples with a split's real images."""
    from cvae_jax.data import reading
    from cvae_jax.evaluation import quality

    # The judge sees images as they are stored.
    config = dataclasses.replace(run.config, binarize="none")
    data_dir = Path(run.data_dir) if run.data_dir else None
    dataset = reading.load(config, data_dir=data_dir, cache_dir=cache)
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
    return quality.appoint_judge(dataset.measured_on(split), params, seed=seed)


def trained_once(
    cache: Path, dataset: str, depends_on: str, like: PyTree, train: Callable[[], PyTree]
) -> PyTree:
    """A judge's variables from the cache; trained and kept there if it has none.

    Args:
      cache: its folder.
      dataset: its name.
      depends_on: a checksum of all that the variables depend on.
      like: shapes of the variables.
      train: gives them.

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
    try:
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **leaves))
    except OSError as error:
        raise UserError(
            f"the cache {path.parent} cannot be written ({error.strerror}): set --cache_dir"
        ) from None


def _read_params(path: Path, like: Any) -> Any:
    """The variables a file holds, or None if there are none to be trusted."""
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
      UserError: if the file or its arrays are of another kind.
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
