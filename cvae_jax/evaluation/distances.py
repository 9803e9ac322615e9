"""Distances between two sets of images, in a space of features: Fréchet, kernel, precision and recall, diversity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# k of precision and recall, as in the paper.
NEIGHBOUR = 3
_ROWS_AT_ONCE = 1_000


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Fréchet distance between the Gaussians that have the means and covariances of two sets of features.

    ‖μₓ − μᵧ‖² + tr(Σₓ + Σᵧ − 2 (Σₓ Σᵧ)^½)

    With Σₓ = A Aᵀ and Σᵧ = B Bᵀ the trace of the root is the sum of the singular values of AᵀB, which avoids the root
    of a matrix that is not symmetric.

    Args:
      x: features, shape (n, d), n ≥ 2.
      y: features, shape (m, d), m ≥ 2.

    Returns:
      ≥ 0, in squared units of the features; NaN if any of them is not finite. Only with Inception's features is it the
      "FID".

    Example:
      >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])), 6)  # (1 − 3)² + (√2 − √8)²
      6.0

    References:
      Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
      equation 6.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    (mean_x, a), (mean_y, b) = _moments(x), _moments(y)
    root = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    distance = np.sum((mean_x - mean_y) ** 2) + np.sum(a**2) + np.sum(b**2) - 2.0 * root
    return max(float(distance), 0.0)


def _moments(x: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """The mean, and a factor A of the unbiased covariance A Aᵀ."""
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / (len(x) - 1))
    return mean, vectors * np.sqrt(np.maximum(values, 0.0))


def kernel_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy under the cubic kernel.

    mean of k(xᵢ, xⱼ) over i ≠ j + mean of k(yᵢ, yⱼ) over i ≠ j − 2 mean of k(xᵢ, yⱼ),  k(x, y) = (xᵀy/d + 1)³

    The mean is over all pairs, where the paper averages over random subsets, so that it needs no random numbers.

    Args:
      x: features, shape (n, d), n ≥ 2.
      y: features, shape (m, d), m ≥ 2.

    Returns:
      0 in expectation for two sets from one distribution, and therefore sometimes negative.

    References:
      Bińkowski et al., Demystifying MMD GANs, 2018, equation 4 and section 4.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)

    def within(x: np.ndarray) -> float:
        diagonal = np.sum((np.sum(x * x, axis=1) / x.shape[1] + 1.0) ** 3)
        return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))

    return float(within(x) + within(y) - 2.0 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """The cubic kernel summed over all pairs, by blocks of rows."""
    return sum(float(np.sum((rows @ y.T / x.shape[1] + 1.0) ** 3)) for rows in _blocks(x))


class PrecisionRecall(NamedTuple):
    """Two fractions of images, from 0 to 1.

    Attributes:
      precision: fraction of generated images that lie among the real ones: are samples realistic?
      recall: fraction of real images that lie among the generated ones: are all kinds of images generated?
    """

    precision: float
    recall: float


def precision_recall(
    real: Float[np.ndarray, "n d"], generated: Float[np.ndarray, "n d"], *, k: int = NEIGHBOUR
) -> PrecisionRecall:
    """Improved precision and recall.

    A point lies among a set if its distance to some element is at most the distance of this element to its k-th nearest
    neighbour in the set.

    Args:
      real: features of real images, shape (n, d), n > k.
      generated: features of as many generated images, shape (n, d): both fractions depend on n.
      k: which nearest neighbour gives the radius.

    Returns:
      Precision and recall.

    Raises:
      ValueError: if the two sets differ in size, or n ≤ k.

    Example:
      >>> real = np.array([[0.0], [1.0], [2.0], [9.0]])
      >>> precision_recall(real, np.array([[0.5], [1.5], [1.6], [1.7]]), k=1)  # real radii 1, 1, 1, 7
      PrecisionRecall(precision=1.0, recall=0.5)

    References:
      Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019, section 2.
    """
    if len(real) != len(generated) or len(real) <= k:
        raise ValueError(
            f"expected as many real as generated images, > {k}, got {len(real)} and {len(generated)}"
        )
    real, generated = real.astype(np.float64), generated.astype(np.float64)

    def fraction_among(points: np.ndarray, others: np.ndarray) -> float:
        # The smallest distance is that to the point itself, 0.
        radii = np.concatenate(
            [np.partition(cdist(rows, others), k, axis=1)[:, k] for rows in _blocks(others)]
        )
        return float(
            np.mean(np.concatenate([(cdist(rows, others) <= radii).any(1) for rows in _blocks(points)]))
        )

    return PrecisionRecall(fraction_among(generated, real), fraction_among(real, generated))


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
    return (x[i : i + _ROWS_AT_ONCE] for i in range(0, len(x), _ROWS_AT_ONCE))


class Comparison(NamedTuple):
    """Distances between the features of two sets of equally many images.

    Attributes:
      frechet: see `frechet_distance`.
      kernel: see `kernel_distance`.
      precision, recall: see `precision_recall`.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float


def compare(real: Float[np.ndarray, "n d"], others: Float[np.ndarray, "n d"]) -> Comparison:
    """Compare features of real images with those of as many other images.

    All four numbers depend on n: the Fréchet distance of two sets from one distribution is about proportional to d/n.
    Only numbers from equal n can be compared.

    Args:
      real: features of real images, shape (n, d).
      others: features of other images, generated or real, shape (n, d).

    Returns:
      Distances, and precision and recall of the other images.

    Raises:
      ValueError: if the two sets differ in size.
    """
    fractions = precision_recall(real, others)
    return Comparison(frechet_distance(real, others), kernel_distance(real, others), *fractions)


def diversity(
    features: Float[np.ndarray, "n d"],
    c: Int[np.ndarray, " n"],
    real_features: Float[np.ndarray, "m d"],
    real_c: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " k"]:
    """Mean distance between two generated images of a class, divided by that between two real images of the class.

    Args:
      features: of generated images, shape (n, d).
      c: their labels, shape (n,).
      real_features: of real images, shape (m, d).
      real_c: their labels, shape (m,).

    Returns:
      A number for each class of `c` that has two different real images: 0 if all generated images of the class are
      equal, 1 if they differ as much as real ones do.

    Example:
      >>> real, c = np.array([[0.0], [4.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
      >>> diversity(np.array([[3.0], [1.0], [7.0], [7.0]]), c, real, c).tolist()
      [0.5, 0.0]
    """

    def spread(features: Float[np.ndarray, "n d"], c: Int[np.ndarray, " n"], label: np.integer) -> float:
        mine = features[c == label].astype(np.float64)
        return float(pdist(mine).mean()) if len(mine) > 1 else 0.0

    real = {label: spread(real_features, real_c, label) for label in np.unique(c)}
    return np.array([spread(features, c, label) / scale for label, scale in real.items() if scale > 0.0])
