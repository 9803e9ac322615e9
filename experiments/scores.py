"""Scores of one trained member that cost more than its metrics: likelihood, sample quality, disentanglement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.kinds import Label
from cvae_jax.data.dataset import Dataset
from cvae_jax.evaluation import bounds, disentanglement
from cvae_jax.evaluation.codes import require_shared_values
from cvae_jax.objectives.multirate import at_beta
from cvae_jax.rng import Stream, root_key, stream
from experiments.cli import UserError
from experiments.loop import Session
from experiments.results import Trained

_SCORED_EXAMPLES = 10_000
# Two to fit on and two to judge on.
_LEAST_EXAMPLES = 4


def nll_of_test(
    session: Session,
    trained: Trained,
    num_samples: int,
    proposal: Literal["posterior", "prior"] = "posterior",
) -> np.ndarray:
    """Negative log-likelihoods of the test split, from draws of the posterior or the prior; nats, shape (n,)."""
    examples = bounds.on_device(session.dataset.test, session.dataset.x_max)
    key = stream(root_key(0), Stream.IMPORTANCE)
    nll = bounds.importance_nll(
        session.model,
        trained.best.params,
        examples,
        trained.hparams.latent_mask,
        key,
        num_samples=num_samples,
        proposal=proposal,
    )
    return np.asarray(nll, np.float64)


def standard_error(values: np.ndarray) -> float | None:
    """Of the mean of independent values, shape (n,); None of a single one.

    Example:
      >>> standard_error(np.array([1.0, 3.0])), standard_error(np.array([1.0]))
      (1.0, None)
    """
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def mean_and_error(nll: np.ndarray) -> dict[str, float | None]:
    """The mean over a split, and its standard error; nats per example."""
    return {"nll": float(np.mean(nll)), "standard_error": standard_error(nll)}


class Scored(NamedTuple):
    """The factors that codes are compared with.

    Attributes:
      rows: of the test split that are looked at, shape (n,).
      names: of the factors.
      factors: their values, shape (n, f).
      categorical: which of them have values without an order.
    """

    rows: np.ndarray
    names: list[str]
    factors: np.ndarray
    categorical: list[int]


def _labels(dataset: Dataset) -> list[np.ndarray]:
    """Each label of the test split: its condition, or one of several; none where it has other conditions only."""
    c = dataset.test.c
    if isinstance(c, dict):
        assert isinstance(dataset.condition, tuple)
        return [c[name] for name, kind in dataset.condition if isinstance(kind, Label)]
    return [c] if dataset.labelled else []


def factors_to_score(dataset: Dataset, condition: str) -> Scored:
    """The factors of the test split that disentanglement is scored against.

    A factor that is a label has values without an order. If it is a condition as well, the model is given it and need
    not code it: it is left out.

    Args:
      dataset: whose test split is scored.
      condition: what the model is conditioned on.

    Raises:
      UserError: if it cannot be scored.
    """
    factors = dataset.test.factors
    if factors is None:
        raise UserError(
            f"disentanglement is scored against known factors, and {dataset.name} has none: expected shapes, shapes32, "
            "dsprites, shapes3d, smallnorb, or an .npz with factors_test"
        )
    if len(factors) < _LEAST_EXAMPLES:
        raise UserError(
            f"disentanglement is scored on a split of {dataset.name} of size {len(factors)}, expected at least "
            f"{_LEAST_EXAMPLES} examples"
        )
    labels = [j for j, values in enumerate(factors.T) if any((values == c).all() for c in _labels(dataset))]
    given = [] if condition == "none" else labels
    scored = [j for j in range(factors.shape[1]) if j not in given]
    rows = np.random.default_rng(0).permutation(len(factors))[:_SCORED_EXAMPLES]
    chosen = factors[rows][:, scored]
    names = [dataset.factor_names[j] for j in scored]
    if not (chosen != chosen[:1]).any():
        left_out = f" besides {', '.join(dataset.factor_names[j] for j in given)}, which is the condition"
        raise UserError(
            f"disentanglement is scored against factors that vary, and those of {dataset.name} have one value only: "
            f"{', '.join(names) or 'none'}; expected one that varies{left_out if given else ''}"
        )
    return Scored(rows, names, chosen, [i for i, j in enumerate(scored) if j in labels])


def require_factors(dataset: Dataset, condition: str) -> None:
    """Refuse data that disentanglement cannot be scored on.

    Raises:
      UserError: if there are no factors, or none that varies.
      DataError: if one has nearly as many values as there are examples.
    """
    scored = factors_to_score(dataset, condition)
    require_shared_values(scored.factors, names=scored.names)


def disentanglement_scores(session: Session, trained: Trained) -> dict[str, Any]:
    """Scores of the posterior means of the test split, by its factors, beside chance; see `factors_to_score`."""
    dataset = session.dataset
    scored = factors_to_score(dataset, session.run.config.condition)
    means = np.asarray(
        bounds.posteriors(
            session.model,
            trained.best.params,
            bounds.on_device(dataset.test.take(scored.rows), dataset.x_max),
            trained.hparams.latent_mask,
        ).mean
    )
    codes = means[:, np.asarray(trained.hparams.latent_mask)]
    return {
        "factors": scored.names,
        **disentanglement.scores_and_chance(codes, scored.factors, categorical=scored.categorical),
    }


def at_betas(session: Session, trained: Trained, betas: Sequence[float]) -> list[dict[str, Any]]:
    """A multi-rate member's bound at each β, in one program: its rate–distortion curve."""
    params = jax.vmap(at_beta, (None, 0))(trained.best.params, jnp.asarray(betas, jnp.float32))
    masks = jnp.broadcast_to(trained.hparams.latent_mask, (len(betas), *trained.hparams.latent_mask.shape))
    records: list[dict[str, Any]] = [{"beta": beta} for beta in betas]
    for name, split in (("validation", session.dataset.validation), ("test", session.dataset.test)):
        examples = bounds.on_device(split, session.dataset.x_max)
        terms = bounds.members_elbo_terms(session.model, params, examples, masks)
        for record, metrics in zip(records, bounds.summarize(terms), strict=True):
            record[name] = metrics
    return records
