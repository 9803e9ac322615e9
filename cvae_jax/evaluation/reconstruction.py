"""How near reconstructions come to the data, in units that do not depend on the likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.evaluation.bounds import Examples
from cvae_jax.evaluation.sampling import reconstruct
from cvae_jax.model import CVAE

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, PyTree

_IMAGES_AT_ONCE = 250
# scikit-image's default, for images at least twice as wide.
_WINDOW = 7
_LEAST_WINDOW = 3
# The variance of rounding to 8 bits, in units where white is 1: no image differs less from what was drawn.
_ROUNDING = 1.0 / (12.0 * 255.0**2)


class ReconstructionErrors(NamedTuple):
    """Errors of n reconstructions.

    Attributes:
      mse: mean squared error over the pixels, shape (n,).
      psnr: peak signal-to-noise ratio, shape (n,), decibels, at most 58.9.
      ssim: structural similarity, shape (n,), at most 1; None of images too small for a window.
    """

    mse: Float[np.ndarray, " n"]
    psnr: Float[np.ndarray, " n"]
    ssim: Float[np.ndarray, " n"] | None


def ssim_window(height: int, width: int) -> int | None:
    """Side of the window within which structural similarity compares two images.

    7, or the largest odd number up to half the shorter side, but 3 at least; None for images less than 3 wide or high.

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
    x: Float[np.ndarray, "n H W C"], reconstructions: Float[np.ndarray, "n H W C"]
) -> ReconstructionErrors:
    """Errors of each reconstruction, pixels from 0 to 1.

    MSE = mean of (x − x̂)²;  PSNR = 10 log₁₀(1 / MSE), the MSE taken as at least that of rounding to 8 bits, so that one
    perfect image does not make the mean infinite;  SSIM by scikit-image, with a uniform window of `ssim_window`, mean
    over windows and channels.

    Args:
      x: images, in [0, 1].
      reconstructions: of these.

    Returns:
      An error of each kind for each image.

    Example:
      >>> found = errors(np.zeros((1, 8, 8, 1)), np.full((1, 8, 8, 1), 0.1))
      >>> round(float(found.mse[0]), 6), round(float(found.psnr[0]), 6)
      (0.01, 20.0)

    References:
      Wang, Bovik, Sheikh & Simoncelli, Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.
    """
    x, reconstructions = x.astype(np.float64), reconstructions.astype(np.float64)
    mse = np.mean(np.square(x - reconstructions), axis=(1, 2, 3))
    return ReconstructionErrors(mse, -10.0 * np.log10(np.maximum(mse, _ROUNDING)), _ssim(x, reconstructions))


def _ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    from skimage.metrics import structural_similarity

    n, height, width, channels = x.shape
    window = ssim_window(height, width)
    if window is None:
        return None
    # One image on top of the next, as one call for each takes far longer: windows that reach into a neighbour are cut.
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


def reconstruction_errors(
    model: CVAE, params: PyTree, examples: Examples, latent_mask: Bool[Array, " z"]
) -> ReconstructionErrors:
    """Errors of the reconstruction of every example: the mean of p(x|z,c) at the mean of q(z|x,c), without noise.

    Args:
      model: the model.
      params: its variables.
      examples: the split, n examples, compared as the model sees them: binary pixels where they are binarized.
      latent_mask: the latents in use, shape (z,).

    Returns:
      Errors, shape (n,) each; memory does not grow with n.
    """
    n = len(examples)

    def some(first: int) -> ReconstructionErrors:
        # The last rows are repeated, so that one program serves all.
        rows = jnp.minimum(jnp.arange(first, first + min(n, _IMAGES_AT_ONCE)), n - 1)
        x, c = examples.take(rows)
        images = reconstruct(model, params, x, c, latent_mask)
        return errors(np.asarray(x)[: n - first], np.asarray(images)[: n - first])

    parts = [some(first) for first in range(0, n, _IMAGES_AT_ONCE)]
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def summarize(found: ReconstructionErrors, shape: tuple[int, int, int]) -> dict[str, float | int]:
    """Means over the split.

    Args:
      found: errors of each example.
      shape: of an image.

    Returns:
      `reconstruction_mse`, `reconstruction_psnr` in decibels, and, where images are large enough, `reconstruction_ssim`
      and `ssim_window`, the side of its window in pixels.
    """
    means: dict[str, float | int] = {
        "reconstruction_mse": float(found.mse.mean()),
        "reconstruction_psnr": float(found.psnr.mean()),
    }
    window = ssim_window(*shape[:2])
    if found.ssim is not None and window is not None:
        means |= {"reconstruction_ssim": float(found.ssim.mean()), "ssim_window": window}
    return means
