"""Scores of disentanglement from groups and pairs of examples that have the same value of one factor.

Codes and factors are those of `disentanglement.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cvae_jax.evaluation.codes import require_shared_values, varying

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_GROUP = 64
_TRAIN_GROUPS, _TEST_GROUPS = 2_000, 1_000


def _sharing(
    values: Int[np.ndarray, " n"], rows: Int[np.ndarray, "*m"], rng: np.random.Generator
) -> Int[np.ndarray, "*m"]:
    """For each of the rows a random one that has the same value; it can be the row itself."""
    order = np.argsort(values, kind="stable")
    _, kinds, counts = np.unique(values, return_inverse=True, return_counts=True)
    kinds = kinds[rows]
    return order[(np.cumsum(counts) - counts)[kinds] + rng.integers(0, counts[kinds])]


def factorvae_score(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, seed: int = 0
) -> float:
    """FactorVAE score: in a group of examples with one factor fixed, does the least varying latent tell which factor?

    The 64 examples of a group share one value of one factor. The index of the latent with the least variance in the
    group, relative to its variance over all examples, predicts the factor by a majority vote: each latent predicts the
    factor that it occurred with most often in 2,000 groups, and the accuracy is that on 1,000 other groups.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      seed: of the groups.

    Returns:
      Accuracy, from 0 to 1; 1/f is chance.

    Raises:
      DataError: if codes are not finite, no factor varies, or one has nearly as many values as there are examples.

    References:
      Kim & Mnih, Disentangling by Factorising, 2018, section 4.
    """
    kept, rng = varying(codes, factors), np.random.default_rng(seed)
    require_shared_values(factors)
    if not len(kept.latents):
        return 0.0
    n, count = kept.factors.shape
    variance = kept.codes.var(axis=0)
    fixed = np.arange(_TRAIN_GROUPS + _TEST_GROUPS) % count
    votes = np.empty(len(fixed), int)
    for j, values in enumerate(kept.factors.T):
        first = rng.integers(0, n, (np.sum(fixed == j), 1))
        groups = _sharing(values, np.repeat(first, _GROUP, axis=1), rng)
        votes[fixed == j] = np.argmin(kept.codes[groups].var(axis=1) / variance, axis=1)
    table = np.zeros((len(variance), count), int)
    np.add.at(table, (votes[:_TRAIN_GROUPS], fixed[:_TRAIN_GROUPS]), 1)
    return float(np.mean(table.argmax(axis=1)[votes[_TRAIN_GROUPS:]] == fixed[_TRAIN_GROUPS:]))


def betavae_score(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, seed: int = 0
) -> float:
    """β-VAE score: do the mean absolute differences of latents in pairs tell which factor the pairs have in common?

    Each of 2,000 points is a mean over 64 pairs that share one factor. A linear classifier is fitted to them, and the
    score is its accuracy on 1,000 other points. Latents are first scaled to variance 1.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      seed: of the pairs.

    Returns:
      Accuracy, from 0 to 1; 1/f is chance.

    Raises:
      DataError: if codes are not finite, no factor varies, or one has nearly as many values as there are examples.

    References:
      Higgins et al., β-VAE, 2017, section 3.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept, rng = varying(codes, factors), np.random.default_rng(seed)
    require_shared_values(factors)
    if not len(kept.latents):
        return 0.0
    n, count = kept.factors.shape
    if count == 1:
        return 1.0
    z = kept.codes / kept.codes.std(axis=0)
    shared = np.arange(_TRAIN_GROUPS + _TEST_GROUPS) % count
    points = np.empty((len(shared), z.shape[1]))
    for j, values in enumerate(kept.factors.T):
        first = rng.integers(0, n, (np.sum(shared == j), _GROUP))
        points[shared == j] = np.abs(z[first] - z[_sharing(values, first, rng)]).mean(axis=1)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    linear.fit(points[:_TRAIN_GROUPS], shared[:_TRAIN_GROUPS])
    return float(linear.score(points[_TRAIN_GROUPS:], shared[_TRAIN_GROUPS:]))
