"""The latents and factors that vary, from which scores of disentanglement are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cvae_jax.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

_SMALLEST_DEVIATION = 1e-6
# With fewer examples per value, scores that compare examples of the same value become unreliable: from 4 on, the
# FactorVAE score of the factors themselves is above 0.9.
_EXAMPLES_PER_VALUE = 4


class Varying(NamedTuple):
    """The latents and factors that vary.

    Attributes:
      codes: shape (n, u), float64, latents in an order that only depends on their values.
      factors: shape (n, g).
      latents: their indices among all latents, shape (u,).
      categorical: whether the values of a factor have no order, shape (g,).
    """

    codes: Float[np.ndarray, "n u"]
    factors: Int[np.ndarray, "n g"]
    latents: Int[np.ndarray, " u"]
    categorical: Bool[np.ndarray, " g"]


def varying(
    codes: Float[np.ndarray, "n z"], factors: Int[np.ndarray, "n f"], categorical: Sequence[int] = ()
) -> Varying:
    """Leave out latents that are constant and factors that have only one value.

    Args:
      codes: shape (n, z), floating.
      factors: shape (n, f), integer.
      categorical: the columns of factors whose values have no order.

    Returns:
      The latents and factors that vary, in float64.

    Raises:
      DataError: if codes are not finite, or no factor varies.

    Example:
      >>> varying(np.array([[2.0, 0.0, 1.0], [3.0, 0.0, 1.5]]), np.array([[0], [1]])).latents.tolist()
      [2, 0]
    """
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise DataError(
            f"codes have shape {codes.shape} and factors {factors.shape}, expected (n, z) and (n, f)"
        )
    if not np.isfinite(codes).all():
        raise DataError(
            "codes hold NaN or infinite values, expected the latents of a model that did not diverge"
        )
    varies = (factors != factors[:1]).any(axis=0)
    if not varies.any():
        raise DataError("every factor has one value only, expected one that varies")
    deviation = codes.std(axis=0)
    latents = np.flatnonzero(deviation > _SMALLEST_DEVIATION * (1.0 + np.abs(codes).max(axis=0)))
    latents = latents[np.lexsort(codes[::-1, latents])] if len(latents) else latents
    nominal = np.isin(np.arange(factors.shape[1]), categorical)
    return Varying(codes[:, latents], factors[:, varies], latents, nominal[varies])


def require_shared_values(
    factors: Int[np.ndarray, "n f"],
    columns: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Refuse factors with too many different values: more than a quarter of the number of examples.

    With so many values, scores that count how often values occur together, or that compare examples of the same value,
    are as high for noise as for a good code.

    Args:
      factors: shape (n, f), integer.
      columns: which of them to check; None for all.
      names: of all factors, for the message.

    Raises:
      DataError: if a factor takes more than n / 4 values.
    """
    n, count = factors.shape
    for j in range(count) if columns is None else columns:
        values = len(np.unique(factors[:, j]))
        if values * _EXAMPLES_PER_VALUE > max(n, _EXAMPLES_PER_VALUE):
            name = f"factor {names[j]}" if names else f"column {j} of the factors"
            raise DataError(
                f"{name} takes {values} values in {n} examples, expected at most {n // _EXAMPLES_PER_VALUE}: scores of "
                "disentanglement compare examples that share a value"
            )
