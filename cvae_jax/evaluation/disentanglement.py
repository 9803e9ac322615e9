"""Scores of disentanglement: how well single latents represent single factors, where the factors are known.

Every score takes `codes`, shape (n, z), usually posterior means, and `factors`, shape (n, f), integers. Latents that
are constant and factors that have only one value are left out; if no latent is left, all scores are 0. The scores do
not depend on the order of the latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvae_jax.evaluation.codes import Varying, require_shared_values, varying
from cvae_jax.evaluation.interventions import betavae_score, factorvae_score

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_LEAST_BINS = 20
_TREES = 10


def _halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit to, and rows to score on."""
    rows = np.random.default_rng(0).permutation(n)
    return rows[: n // 2], rows[n // 2 :]


def _balanced_accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean over the values of the fraction that is predicted correctly."""
    return float(np.mean([np.mean(predicted[actual == value] == value) for value in np.unique(actual)]))


def _mean_gap(table: Float[np.ndarray, "u g"]) -> float:
    """Mean over the columns of the largest entry minus the second largest; a missing entry counts as 0."""
    first, second = np.sort(np.pad(table, ((2, 0), (0, 0))), axis=0)[:-3:-1]
    return float(np.mean(first - second))


def _mutual_information(kept: Varying, bins: int | None) -> Float[np.ndarray, "u g"]:
    """Mutual information of each latent and each factor, the latent in bins of equal width over its range."""
    from sklearn.metrics import mutual_info_score

    bins = bins or max(_LEAST_BINS, *(len(np.unique(v)) for v in kept.factors.T))
    table = np.zeros((len(kept.latents), kept.factors.shape[1]))
    for i, z in enumerate(kept.codes.T):
        binned = np.digitize(z, np.linspace(z.min(), z.max(), bins + 1)[1:-1])
        table[i] = [mutual_info_score(v, binned) for v in kept.factors.T]
    return table


def mig(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, bins: int | None = None
) -> float:
    """Mutual information gap: how much more information the best latent has about a factor than the second best.

    mean over factors v of (I(z₍₁₎; v) − I(z₍₂₎; v)) / H(v)

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      bins: number of bins of each latent; None for the largest number of values of a factor, at least 20.

    Returns:
      From 0 to 1.

    Raises:
      DataError: if codes are not finite, no factor varies, or one has nearly as many values as there are examples.

    Example:
      >>> factors = np.stack(np.divmod(np.arange(400) % 20, 5), axis=1)
      >>> round(mig(factors.astype(float), factors), 6)
      1.0
      >>> round(mig(np.repeat(factors.astype(float), 2, axis=1), factors), 6)  # every latent twice
      0.0

    References:
      Chen, Li, Grosse & Duvenaud, Isolating Sources of Disentanglement in VAEs, 2018, equation 6; bins, 20 of
      them, are those of Locatello et al., Challenging Common Assumptions, 2019.
    """
    from sklearn.metrics import mutual_info_score

    kept = varying(codes, factors)
    require_shared_values(factors)
    entropies = np.array([mutual_info_score(v, v) for v in kept.factors.T])
    return _mean_gap(_mutual_information(kept, bins) / entropies)


def modularity(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, bins: int | None = None
) -> float:
    """Modularity: whether each latent has information about one factor only.

    mean over latents i of 1 − Σ_{v ≠ v*} I(zᵢ; v)² / ((f − 1) I(zᵢ; v*)²), v* the factor with the largest I(zᵢ; v)

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      bins: number of bins of each latent; None for the largest number of values of a factor, at least 20.

    Returns:
      From 0 to 1. It does not measure whether all factors are represented.

    Raises:
      DataError: if codes are not finite, no factor varies, or one has nearly as many values as there are examples.

    References:
      Ridgeway & Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, 2018, section 3.
    """
    kept = varying(codes, factors)
    require_shared_values(factors)
    if not len(kept.latents):
        return 0.0
    squares = np.square(_mutual_information(kept, bins))
    largest = squares.max(axis=1)
    rest = (squares.sum(axis=1) - largest) / np.maximum(largest, np.finfo(float).tiny)
    return float(np.mean(np.where(largest > 0, 1.0 - rest / max(squares.shape[1] - 1, 1), 0.0)))


def sap(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, categorical: Sequence[int] = ()
) -> float:
    """Separated attribute predictability: how much better the best latent alone predicts a factor than the second best.

    A factor whose values have an order is predicted by linear regression, scored by R²; any other by a decision tree,
    scored by the balanced accuracy on the half of the examples that it was not fitted to.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors whose values have no order.

    Returns:
      From 0 to 1.

    Raises:
      DataError: if codes are not finite, no factor varies, or a categorical one has nearly as many values as there
        are examples.

    References:
      Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts, 2018, section 3.
    """
    from sklearn.tree import DecisionTreeClassifier

    kept = varying(codes, factors, categorical)
    require_shared_values(factors, categorical)
    if not len(kept.latents):
        return 0.0
    z = (kept.codes - kept.codes.mean(axis=0)) / kept.codes.std(axis=0)
    v = (kept.factors - kept.factors.mean(axis=0)) / kept.factors.std(axis=0)
    predictability = np.square(z.T @ v / len(z))
    fitted, scored = _halves(len(z))
    for j in np.flatnonzero(kept.categorical):
        values = kept.factors[:, j]
        tree = DecisionTreeClassifier(
            max_leaf_nodes=len(np.unique(values)), class_weight="balanced", random_state=0
        )
        for i in range(z.shape[1]):
            tree.fit(z[fitted, i : i + 1], values[fitted])
            predicted = np.asarray(tree.predict(z[scored, i : i + 1]))
            predictability[i, j] = _balanced_accuracy(predicted, values[scored])
    return _mean_gap(predictability)


class DCI(NamedTuple):
    """The three DCI scores, from 0 to 1.

    Attributes:
      disentanglement: whether each latent is important for one factor only.
      completeness: whether each factor is predicted by one latent only.
      informativeness: how well the factors are predicted from all latents: by R² where values have an order, else by
        the balanced accuracy, scaled so that 0 is chance and 1 is perfect.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def importances(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, categorical: Sequence[int] = ()
) -> tuple[Float[np.ndarray, "z g"], Float[np.ndarray, " g"]]:
    """Importances of the latents in random forests that predict each factor, and how well the forests predict.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors whose values have no order.

    Returns:
      Importances for the g factors that vary: every column sums to 1, and rows of constant latents are 0. And R² or the
      accuracy above chance, on the half of the examples that the forests were not fitted to.

    Raises:
      DataError: if codes are not finite, no factor varies, or a categorical one has nearly as many values as there
        are examples.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.metrics import r2_score

    kept = varying(codes, factors, categorical)
    require_shared_values(factors, categorical)
    importance = np.zeros((np.shape(codes)[1], kept.factors.shape[1]))
    informativeness = np.zeros(kept.factors.shape[1])
    if not len(kept.latents):
        return importance, informativeness
    fitted, scored = _halves(len(kept.codes))
    for j, values in enumerate(kept.factors.T):
        kind: Any = RandomForestClassifier if kept.categorical[j] else RandomForestRegressor
        # Every split considers all latents: among a random few it could only use less informative ones.
        forest = kind(_TREES, max_features=None, random_state=0, n_jobs=-1)
        # Trees are fitted in parallel; their predictions are added in order, so that rounding is the same each time.
        forest.fit(kept.codes[fitted], values[fitted]).set_params(n_jobs=1)
        importance[kept.latents, j] = forest.feature_importances_
        predicted, actual = np.asarray(forest.predict(kept.codes[scored])), values[scored]
        if kept.categorical[j]:
            chance = 1.0 / len(np.unique(actual))
            score = (_balanced_accuracy(predicted, actual) - chance) / max(1.0 - chance, chance)
        else:
            score = float(r2_score(actual, predicted))
        informativeness[j] = max(score, 0.0)
    return importance, informativeness


def code_disentanglement(importance: Float[np.ndarray, "z f"]) -> Float[np.ndarray, " z"]:
    """One minus the entropy of each latent's importances over the factors: 1 − H_f(P_z), shape (z,).

    Example:
      >>> half = [[0.5] * 2 + [0.0] * 8]  # one latent for two of ten factors
      >>> round(float(code_disentanglement(np.array(half))[0]), 4), round(1 - math.log(2) / math.log(10), 4)
      (0.699, 0.699)
    """
    total = importance.sum(axis=1, keepdims=True)
    p = np.divide(importance, total, out=np.zeros_like(importance), where=total > 0)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)
    return np.where(total[:, 0] > 0, 1.0 - entropy / math.log(max(p.shape[1], 2)), 0.0)


def dci(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, categorical: Sequence[int] = ()
) -> DCI:
    """Disentanglement, completeness and informativeness, by the importances of random forests.

    D = Σᵢ ρᵢ (1 − H_f(Pᵢ)), ρᵢ latent i's fraction of all importance, Pᵢ its importances over the factors;
    C = mean over factors j of 1 − H_z(P_j), P_j its importances over the latents that vary.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors whose values have no order.

    Returns:
      The three scores, from 0 to 1.

    Raises:
      DataError: if codes are not finite, no factor varies, or a categorical one has nearly as many values as there
        are examples.

    References:
      Eastwood & Williams, A Framework for the Quantitative Evaluation of Disentangled Representations, 2018, section 2.
    """
    importance, informativeness = importances(codes, factors, categorical=categorical)
    importance = importance[varying(codes, factors).latents]
    if not importance.sum():
        return DCI(0.0, 0.0, 0.0)
    share = importance.sum(axis=1) / importance.sum()
    return DCI(
        float(share @ code_disentanglement(importance)),
        float(np.mean(code_disentanglement(importance.T))),
        float(np.mean(informativeness)),
    )


def scores(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, categorical: Sequence[int] = ()
) -> dict[str, float]:
    """All scores by name; see the functions of this module.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors whose values have no order.

    Returns:
      Each from 0 to 1.

    Raises:
      DataError: if codes are not finite, no factor varies, or one has nearly as many values as there are examples.
    """
    return {
        "mig": mig(codes, factors),
        "sap": sap(codes, factors, categorical=categorical),
        **{f"dci_{k}": v for k, v in dci(codes, factors, categorical=categorical)._asdict().items()},
        "factorvae_score": factorvae_score(codes, factors),
        "betavae_score": betavae_score(codes, factors),
        "modularity": modularity(codes, factors),
    }


def scores_and_chance(
    codes: Float[np.ndarray, "n z"],
    factors: Int[np.ndarray, "n f"],
    *,
    categorical: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, float]:
    """All scores, each with its chance level: the score of the same codes with their rows permuted.

    The chance level is the score of the codes with their rows permuted, which keeps n and the joint distribution of the
    latents. It is needed because few scores are 0 for noise; modularity is about two thirds.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors whose values have no order.
      seed: of the permutation.

    Returns:
      Each score by name, and its chance level under the name with `_chance`.

    Raises:
      DataError: as `scores`.
    """
    rows = np.random.default_rng(seed).permutation(len(codes))
    found = scores(codes, factors, categorical=categorical)
    chance = scores(np.asarray(codes)[rows], factors, categorical=categorical)
    return {k: v for name in found for k, v in ((name, found[name]), (f"{name}_chance", chance[name]))}
