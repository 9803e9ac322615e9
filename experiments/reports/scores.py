"""Scores of one trained member that take longer than its metrics: likelihood and disentanglement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions import Condition, Label, Several
from cvae_jax.data.dataset import Dataset
from cvae_jax.data.examples import on_device
from cvae_jax.errors import UserError
from cvae_jax.evaluation import bounds, disentanglement
from cvae_jax.evaluation.codes import require_shared_values
from cvae_jax.evaluation.posteriors import encode_examples
from cvae_jax.objectives.multirate import at_beta
from cvae_jax.rng import Stream, root_key, stream
from cvae_jax.runs.session import Session, Trained

_SCORED_EXAMPLES = 10_000
# Two to fit to and two to score on.
_LEAST_EXAMPLES = 4


def nll_of_test(
    session: Session,
    trained: Trained,
    num_samples: int,
    proposal: Literal["posterior", "prior"] = "posterior",
) -> np.ndarray:
    """Negative log-likelihoods of the test split, from draws of the posterior or the prior; nats, shape (n,)."""
    examples = on_device(session.dataset.test, session.dataset.x_max)
    key = stream(root_key(0), Stream.IMPORTANCE)
    nll = bounds.importance_nll(
        session.model, trained.best.params, examples, key, num_samples=num_samples, proposal=proposal
    )
    return np.asarray(nll, np.float64)


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of independent values of shape (n,); None for a single one.

    Example:
      >>> standard_error(np.array([1.0, 3.0])), standard_error(np.array([1.0]))
      (1.0, None)
    """
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def mean_and_error(nll: np.ndarray) -> dict[str, float | None]:
    """The mean over a split and its standard error, nats per example."""
    return {"nll": float(np.mean(nll)), "standard_error": standard_error(nll)}


class Scored(NamedTuple):
    """The factors that codes are compared with.

    Attributes:
      rows: of the test split that are scored, shape (n,).
      names: of the factors.
      factors: their values, shape (n, f).
      categorical: the columns of factors whose values have no order.
    """

    rows: np.ndarray
    names: list[str]
    factors: np.ndarray
    categorical: list[int]


def _labels(dataset: Dataset) -> list[np.ndarray]:
    """The labels among the conditions of the test split."""
    c = dataset.test.c
    if isinstance(dataset.condition, Several):
        return [c[name] for name, part in dataset.condition.parts if isinstance(part, Label)]
    return [dataset.test.labels] if dataset.labelled else []


def factors_to_score(dataset: Dataset, condition: Condition | None) -> Scored:
    """The factors of the test split that disentanglement is scored against.

    The values of a factor that is a label have no order. If the model is conditioned on it, its latents need not encode
    it: it is left out.

    Args:
      dataset: whose test split is scored.
      condition: of the model, None for a plain VAE.

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
    conditions = [] if condition is None else labels
    scored = [j for j in range(factors.shape[1]) if j not in conditions]
    rows = np.random.default_rng(0).permutation(len(factors))[:_SCORED_EXAMPLES]
    chosen = factors[rows][:, scored]
    names = [dataset.factor_names[j] for j in scored]
    if not (chosen != chosen[:1]).any():
        left_out = (
            f" besides {', '.join(dataset.factor_names[j] for j in conditions)}, which is the condition"
        )
        raise UserError(
            f"disentanglement is scored against factors that vary, and those of {dataset.name} have one value only: "
            f"{', '.join(names) or 'none'}; expected one that varies{left_out if conditions else ''}"
        )
    return Scored(rows, names, chosen, [i for i, j in enumerate(scored) if j in labels])


def require_factors(dataset: Dataset, condition: Condition | None) -> None:
    """Refuse data on which disentanglement cannot be scored.

    Raises:
      UserError: if there are no factors, or none that varies.
      DataError: if one has nearly as many values as there are examples.
    """
    scored = factors_to_score(dataset, condition)
    require_shared_values(scored.factors, names=scored.names)


def disentanglement_scores(session: Session, trained: Trained) -> dict[str, Any]:
    """Scores of the posterior means of the test split, with chance levels; see `factors_to_score`."""
    dataset, model, params = session.dataset, session.model, trained.best.params
    scored = factors_to_score(dataset, model.condition)
    examples = on_device(dataset.test.take(scored.rows), dataset.x_max)
    means = np.asarray(encode_examples(model, params, examples).mean)
    codes = means[:, np.asarray(model.latent_mask(params))]
    return {
        "factors": scored.names,
        **disentanglement.scores_and_chance(codes, scored.factors, categorical=scored.categorical),
    }


def at_betas(session: Session, trained: Trained, betas: Sequence[float]) -> list[dict[str, Any]]:
    """The bound of a multi-rate member at each β, in one program: its rate–distortion curve."""
    params = jax.vmap(lambda beta: at_beta(trained.best.params, beta))(jnp.asarray(betas, jnp.float32))
    records: list[dict[str, Any]] = [{"beta": beta} for beta in betas]
    for name, split in (("validation", session.dataset.validation), ("test", session.dataset.test)):
        examples = on_device(split, session.dataset.x_max)
        terms = bounds.members_elbo_terms(session.model, params, examples)
        for record, metrics in zip(records, bounds.summarize(terms), strict=True):
            record[name] = metrics
    return records
