"""How well single latents stand for single factors: scores of codes of examples whose factors are known.

Every score takes `codes`, shape (n, z), usually posterior means, and `factors`, shape (n, f), whole numbers. Latents
that never change and factors that have one value only are left out; without any latent left all scores are 0. The
order of the latents changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cvae_jax.evaluation.codes import Used, require_shared_values, used
from cvae_jax.evaluation.interventions import betavae_score, factorvae_score

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_LEAST_BINS = 20
_TREES = 10


def _halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to judge on."""
    rows = np.random.default_rng(0).permutation(n)
    return rows[: n // 2], rows[n // 2 :]


def _balanced_accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean over the values of the share predicted right."""
    return float(np.mean([np.mean(predicted[actual == value] == value) for value in np.unique(actual)]))


def _mean_gap(table: Float[np.ndarray, "u g"]) -> float:
    """Mean over the columns of the distance from the largest entry to the second largest, 0 where there is none."""
    first, second = np.sort(np.pad(table, ((2, 0), (0, 0))), axis=0)[:-3:-1]
    return float(np.mean(first - second))


def _mutual_information(given: Used, bins: int | None) -> Float[np.ndarray, "u g"]:
    """Mutual information of each latent, in bins of one width from its least to its largest value, and each factor."""
    from sklearn.metrics import mutual_info_score

    bins = bins or max(_LEAST_BINS, *(len(np.unique(v)) for v in given.factors.T))
    table = np.zeros((len(given.latents), given.factors.shape[1]))
    for i, z in enumerate(given.codes.T):
        binned = np.digitize(z, np.linspace(z.min(), z.max(), bins + 1)[1:-1])
        table[i] = [mutual_info_score(v, binned) for v in given.factors.T]
    return table


def mig(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, bins: int | None = None
) -> float:
    """Mutual information gap: how much more the first latent says of a factor than the second.

    mean over factors v of (I(z₍₁₎; v) − I(z₍₂₎; v)) / H(v)

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      bins: into which each latent is divided; if not given, as many as the factor of most values has, 20 at least.

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

    given = used(codes, factors)
    require_shared_values(factors)
    entropies = np.array([mutual_info_score(v, v) for v in given.factors.T])
    return _mean_gap(_mutual_information(given, bins) / entropies)


def modularity(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, bins: int | None = None
) -> float:
    """Modularity: whether each latent informs of one factor only.

    mean over latents i of 1 − Σ_{v ≠ v*} I(zᵢ; v)² / ((f − 1) I(zᵢ; v*)²), v* the factor that zᵢ says most of

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      bins: into which each latent is divided; if not given, as many as the factor of most values has, 20 at least.

    Returns:
      From 0 to 1. It does not ask whether all factors are represented.

    Raises:
      DataError: if codes are not finite, no factor varies, or one has nearly as many values as there are examples.

    References:
      Ridgeway & Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, 2018, section 3.
    """
    given = used(codes, factors)
    require_shared_values(factors)
    if not len(given.latents):
        return 0.0
    squares = np.square(_mutual_information(given, bins))
    largest = squares.max(axis=1)
    rest = (squares.sum(axis=1) - largest) / np.maximum(largest, np.finfo(float).tiny)
    return float(np.mean(np.where(largest > 0, 1.0 - rest / max(squares.shape[1] - 1, 1), 0.0)))


def sap(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, categorical: Sequence[int] = ()
) -> float:
    """Separated attribute predictability: how much better the first latent alone predicts a factor than the second.

    A factor with an order is predicted by a line, scored by R²; one without by thresholds, scored by the balanced
    accuracy on the half of the examples they were not fitted to.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors without an order.

    Returns:
      From 0 to 1.

    Raises:
      DataError: if codes are not finite, no factor varies, or one without an order has nearly as many values as there
        are examples.

    References:
      Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts, 2018, section 3.
    """
    from sklearn.tree import DecisionTreeClassifier

    given = used(codes, factors, categorical)
    require_shared_values(factors, categorical)
    if not len(given.latents):
        return 0.0
    z = (given.codes - given.codes.mean(axis=0)) / given.codes.std(axis=0)
    v = (given.factors - given.factors.mean(axis=0)) / given.factors.std(axis=0)
    predictability = np.square(z.T @ v / len(z))
    fitted, judged = _halves(len(z))
    for j in np.flatnonzero(given.categorical):
        values = given.factors[:, j]
        tree = DecisionTreeClassifier(
            max_leaf_nodes=len(np.unique(values)), class_weight="balanced", random_state=0
        )
        for i in range(z.shape[1]):
            tree.fit(z[fitted, i : i + 1], values[fitted])
            predicted = np.asarray(tree.predict(z[judged, i : i + 1]))
            predictability[i, j] = _balanced_accuracy(predicted, values[judged])
    return _mean_gap(predictability)


class DCI(NamedTuple):
    """Three scores from 0 to 1.

    Attributes:
      disentanglement: whether each latent is important for one factor only.
      completeness: whether each factor is predicted by one latent only.
      informativeness: how well the factors are predicted from all latents: R² of those with an order, balanced
        accuracy from chance (0) to perfect (1) of the others.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def importances(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], *, categorical: Sequence[int] = ()
) -> tuple[Float[np.ndarray, "z g"], Float[np.ndarray, " g"]]:
    """How much random forests that predict each factor use each latent, and how well they predict.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors without an order.

    Returns:
      Importances of the g factors that vary, columns of sum 1, rows of 0 for latents that never change; and, on the
      half of the examples that the forests did not see, R² or the accuracy above chance.

    Raises:
      DataError: if codes are not finite, no factor varies, or one without an order has nearly as many values as there
        are examples.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.metrics import r2_score

    given = used(codes, factors, categorical)
    require_shared_values(factors, categorical)
    importance = np.zeros((np.shape(codes)[1], given.factors.shape[1]))
    informativeness = np.zeros(given.factors.shape[1])
    if not len(given.latents):
        return importance, informativeness
    fitted, judged = _halves(len(given.codes))
    for j, values in enumerate(given.factors.T):
        kind: Any = RandomForestClassifier if given.categorical[j] else RandomForestRegressor
        # Every split sees all latents: one drawn from a few would use what says less of the factor.
        forest = kind(_TREES, max_features=None, random_state=0, n_jobs=-1)
        # Trees grow side by side; their predictions are added one after another, so that rounding never differs.
        forest.fit(given.codes[fitted], values[fitted]).set_params(n_jobs=1)
        importance[given.latents, j] = forest.feature_importances_
        predicted, actual = np.asarray(forest.predict(given.codes[judged])), values[judged]
        if given.categorical[j]:
            chance = 1.0 / len(np.unique(actual))
            score = (_balanced_accuracy(predicted, actual) - chance) / max(1.0 - chance, chance)
        else:
            score = float(r2_score(actual, predicted))
        informativeness[j] = max(score, 0.0)
    return importance, informativeness


def code_disentanglement(importance: Float[np.ndarray, "z f"]) -> Float[np.ndarray, " z"]:
    """How far each latent is from being equally important for all factors: 1 − H_f(P_z), shape (z,).

    Example:
      >>> half = [[0.5] * 2 + [0.0] * 8]  # one code for two of ten factors
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

    D = Σᵢ ρᵢ (1 − H_f(Pᵢ)), ρᵢ latent i's share of all importance, Pᵢ its importances over the factors;
    C = mean over factors j of 1 − H_z(P_j), P_j its importances over the latents that vary.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors without an order.

    Returns:
      The three scores, from 0 to 1.

    Raises:
      DataError: if codes are not finite, no factor varies, or one without an order has nearly as many values as there
        are examples.

    References:
      Eastwood & Williams, A Framework for the Quantitative Evaluation of Disentangled Representations, 2018, section 2.
    """
    importance, informativeness = importances(codes, factors, categorical=categorical)
    importance = importance[used(codes, factors).latents]
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
      categorical: the columns of factors without an order.

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
    """All scores, each beside its chance level: what the same code scores that says nothing of the factors.

    The chance level is the score of the codes with their rows permuted, which keeps what the latents are among
    themselves, and n: few scores give 0 to noise, and modularity gives it about two thirds.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors without an order.
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
