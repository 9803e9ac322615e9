"""Scores of one trained member that cost more than its metrics: likelihood, sample quality, disentanglement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax import disentanglement, evaluation
from cvae_jax.dataset import Dataset
from cvae_jax.multirate import at_beta
from cvae_jax.randomness import Stream, root_key, stream
from experiments.cli import UserError
from experiments.loop import Session
from experiments.results import Trained

_SCORED_EXAMPLES = 10_000


def nll_of_test(
    session: Session,
    trained: Trained,
    num_samples: int,
    proposal: Literal["posterior", "prior"] = "posterior",
) -> np.ndarray:
    """Negative log-likelihoods of the test split, from draws of the posterior or the prior; nats, shape (n,)."""
    examples = evaluation.on_device(session.dataset.test, session.dataset.x_max)
    key = stream(root_key(0), Stream.IMPORTANCE)
    nll = evaluation.importance_nll(
        session.model,
        trained.best.params,
        examples,
        trained.hparams.latent_mask,
        key,
        num_samples=num_samples,
        proposal=proposal,
    )
    return np.asarray(nll, np.float64)


def mean_and_error(nll: np.ndarray) -> dict[str, float]:
    """The mean over a split, and its standard error; nats per example."""
    return {"nll": float(np.mean(nll)), "standard_error": float(np.std(nll, ddof=1) / np.sqrt(len(nll)))}


def require_factors(dataset: Dataset) -> None:
    """Refuse data that disentanglement cannot be scored on."""
    if dataset.test.factors is None:
        raise UserError(
            f"disentanglement is scored against known factors, and {dataset.name} has none: expected shapes, shapes32, "
            "dsprites, shapes3d, smallnorb, or an .npz with factors_test"
        )


def disentanglement_scores(session: Session, trained: Trained) -> dict[str, Any]:
    """Scores of the posterior means of the test split, by its factors.

    A factor that is the label has values without an order. If it is the condition as well, the model is given it and
    need not code it: it is left out.
    """
    dataset, test = session.dataset, session.dataset.test
    rows = np.random.default_rng(0).permutation(len(test))[:_SCORED_EXAMPLES]
    split = test.take(rows)
    means = np.asarray(
        evaluation.posteriors(
            session.model,
            trained.best.params,
            evaluation.on_device(split, dataset.x_max),
            trained.hparams.latent_mask,
        ).mean
    )
    assert split.factors is not None
    labels = [j for j, values in enumerate(split.factors.T) if (values == split.labels).all()]
    given = labels if session.run.config.condition == "label" else []
    scored = [j for j in range(len(dataset.factor_names)) if j not in given]
    return {
        "factors": [dataset.factor_names[j] for j in scored],
        **disentanglement.scores(
            means[:, np.asarray(trained.hparams.latent_mask)],
            split.factors[:, scored],
            categorical=[i for i, j in enumerate(scored) if j in labels],
        ),
    }


def at_betas(session: Session, trained: Trained, betas: Sequence[float]) -> list[dict[str, Any]]:
    """A multi-rate member's bound at each β, in one program: its rate–distortion curve."""
    params = jax.vmap(at_beta, (None, 0))(trained.best.params, jnp.asarray(betas, jnp.float32))
    masks = jnp.broadcast_to(trained.hparams.latent_mask, (len(betas), *trained.hparams.latent_mask.shape))
    records: list[dict[str, Any]] = [{"beta": beta} for beta in betas]
    for name, split in (("validation", session.dataset.validation), ("test", session.dataset.test)):
        examples = evaluation.on_device(split, session.dataset.x_max)
        terms = evaluation.members_elbo_terms(session.model, params, examples, masks)
        for record, metrics in zip(records, evaluation.summarize(terms), strict=True):
            record[name] = metrics
    return records
