"""Errors of reconstructions, in units that do not depend on the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data.examples import Examples
from cvae_jax.evaluation.sampling import reconstruct
from cvae_jax.model import Model
from cvae_jax.rng import evaluation_key

if TYPE_CHECKING:
    from jaxtyping import Float, PyTree

_IMAGES_AT_ONCE = 250
# scikit-image's default, used for images at least twice as wide.
_WINDOW = 7
_LEAST_WINDOW = 3
# The variance of rounding to 8 bits, in units where white is 1: the least error that an 8-bit image can show.
_ROUNDING = 1.0 / (12.0 * 255.0**2)


class ReconstructionErrors(NamedTuple):
    """Errors of n reconstructions.

    Attributes:
      mse: mean squared error over the pixels, shape (n,).
      psnr: peak signal-to-noise ratio, shape (n,), decibels, at most 58.9.
      ssim: structural similarity, shape (n,), at most 1; None for what is no image or too small for a window.
    """

    mse: Float[np.ndarray, " n"]
    psnr: Float[np.ndarray, " n"]
    ssim: Float[np.ndarray, " n"] | None


def ssim_window(height: int, width: int) -> int | None:
    """Side of the window in which structural similarity compares two images, in pixels.

    7, or for small images the largest odd number up to half the shorter side, but at least 3; None for images less than
    3 pixels wide or high.

    Example:
      >>> ssim_window(28, 28), ssim_window(8, 8), ssim_window(1, 20)
      (7, 3, None)
    """
    side = min(height, width)
    if side < _LEAST_WINDOW:
        return None
    half = side // 2
    return max(min(half - 1 + half % 2, _WINDOW), _LEAST_WINDOW)


def errors(
    x: Float[np.ndarray, " n *dims"], reconstructions: Float[np.ndarray, " n *dims"]
) -> ReconstructionErrors:
    """Errors of each reconstruction, pixels from 0 to 1.

    MSE = mean of (x − x̂)²;  PSNR = 10 log₁₀(1 / MSE), with the MSE at least that of rounding to 8 bits, so that one
    perfect image does not make the mean over images infinite;  SSIM by scikit-image, with a uniform window of side
    `ssim_window`, the mean over windows and channels.

    Args:
      x: images, shape (n, *dims), in [0, 1].
      reconstructions: of these images, the same shape.

    Returns:
      Errors, shape (n,) each.

    Example:
      >>> found = errors(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 0.1))
      >>> round(float(found.mse[0]), 6), round(float(found.psnr[0]), 6)
      (0.01, 20.0)

    References:
      Wang, Bovik, Sheikh & Simoncelli, Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.
    """
    x, reconstructions = x.astype(np.float64), reconstructions.astype(np.float64)
    mse = np.mean(np.square(x - reconstructions), axis=tuple(range(1, x.ndim)))
    ssim = _ssim(x, reconstructions) if x.ndim == 4 else None
    return ReconstructionErrors(mse, -10.0 * np.log10(np.maximum(mse, _ROUNDING)), ssim)


def _ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    from skimage.metrics import structural_similarity

    n, height, width, channels = x.shape
    window = ssim_window(height, width)
    if window is None:
        return None
    # Images are stacked vertically, because one call per image takes far longer. Windows that reach into a neighbouring
    # image are cut off below.
    of_windows: Any = structural_similarity(
        x.reshape(n * height, width, channels),
        y.reshape(n * height, width, channels),
        win_size=window,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    cut = window // 2
    inner = of_windows[1].reshape(x.shape)[:, cut : height - cut, cut : width - cut]
    return inner.mean(axis=(1, 2, 3))


def reconstruction_errors(model: Model, params: PyTree, examples: Examples) -> ReconstructionErrors:
    """Errors of the reconstruction of every example, see `sampling.reconstruct`.

    Args:
      model: the model.
      params: its parameters.
      examples: the split, n examples, compared as the model receives them: binary pixels if they are binarized.

    Returns:
      Errors, shape (n,) each; memory does not grow with n.
    """
    n = len(examples)

    def some(first: int) -> ReconstructionErrors:
        # The last row is repeated, so that all batches have one shape and one compiled program.
        rows = jnp.minimum(jnp.arange(first, first + min(n, _IMAGES_AT_ONCE)), n - 1)
        x, c = examples.take(rows)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(evaluation_key(), rows)
        images = reconstruct(model, params, x, c, keys)
        return errors(np.asarray(x)[: n - first], np.asarray(images)[: n - first])

    parts = [some(first) for first in range(0, n, _IMAGES_AT_ONCE)]
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def summarize(found: ReconstructionErrors, shape: tuple[int, ...]) -> dict[str, float | int]:
    """Means over the split.

    Args:
      found: errors of each example.
      shape: of one x.

    Returns:
      `reconstruction_mse`, `reconstruction_psnr` in decibels and, for images that are large enough,
      `reconstruction_ssim` and `ssim_window`, the side of its window in pixels.
    """
    means: dict[str, float | int] = {
        "reconstruction_mse": float(found.mse.mean()),
        "reconstruction_psnr": float(found.psnr.mean()),
    }
    if found.ssim is not None:
        window = ssim_window(shape[0], shape[1])
        assert window is not None
        means |= {"reconstruction_ssim": float(found.ssim.mean()), "ssim_window": window}
    return means
