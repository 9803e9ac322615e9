"""Errors of reconstructions against scikit-image's of single images, and of a model against its own pictures."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import member, of_digits, stacked
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from cvae_jax.data.examples import on_device
from cvae_jax.evaluation import reconstruction, sampling

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (12, 9, 3), (3, 3, 1)])
def test_errors_are_those_of_each_image_alone(shape):
    x = RNG.uniform(size=(5, *shape)).astype(np.float32)
    y = np.clip(x + RNG.normal(0, 0.2, x.shape), -0.2, 1.2).astype(np.float32)
    window = reconstruction.ssim_window(*shape[:2])
    found = reconstruction.errors(x, y)
    assert found.ssim is not None
    for i, (a, b) in enumerate(zip(x.astype(float), y.astype(float), strict=True)):
        assert found.mse[i] == pytest.approx(mean_squared_error(a, b), rel=1e-12)
        assert found.psnr[i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0), rel=1e-12)
        alone = structural_similarity(a, b, win_size=window, data_range=1.0, channel_axis=-1)
        assert found.ssim[i] == pytest.approx(alone, rel=1e-10)


def test_a_perfect_reconstruction_is_as_good_as_8_bits_can_tell():
    x = RNG.uniform(size=(2, 8, 8, 1))
    found = reconstruction.errors(x, x)
    np.testing.assert_array_equal(found.mse, 0.0)
    np.testing.assert_allclose(found.ssim, 1.0, rtol=1e-12)
    rounded = reconstruction.errors(
        np.full((1, 300, 300, 1), 0.5), 0.5 + RNG.uniform(-0.5, 0.5, (1, 300, 300, 1)) / 255
    )
    np.testing.assert_allclose(found.psnr, rounded.psnr[0], atol=0.05)


@pytest.mark.parametrize(
    ("side", "window"), [(2, None), (3, 3), (4, 3), (7, 3), (8, 3), (10, 5), (14, 7), (16, 7), (64, 7)]
)
def test_the_window_fits_small_images(side, window):
    assert reconstruction.ssim_window(side, 99) == reconstruction.ssim_window(99, side) == window


def test_images_too_small_for_a_window_have_no_similarity():
    found = reconstruction.errors(np.zeros((3, 1, 20, 1)), np.full((3, 1, 20, 1), 0.1))
    assert found.ssim is None
    assert set(reconstruction.summarize(found, (1, 20, 1))) == {"reconstruction_mse", "reconstruction_psnr"}


def test_a_model_is_judged_by_the_means_of_its_decoder_at_the_means_of_its_posteriors(digits, monkeypatch):
    model = of_digits(5, hidden=(16,))
    params = member(stacked(model, (5, 3), noise=0.05), 1)
    examples = on_device(digits.test, digits.x_max)
    x, c = examples.take(jnp.arange(len(examples)))
    images = np.asarray(sampling.reconstruct(model, params, x, c), np.float64)
    found = reconstruction.reconstruction_errors(model, params, examples)
    expected = np.mean((np.asarray(x) - images) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found.mse, expected, rtol=1e-4)
    summary = reconstruction.summarize(found, digits.shape)
    assert summary["reconstruction_mse"] == pytest.approx(expected.mean(), rel=1e-5)
    assert summary["reconstruction_psnr"] == pytest.approx(np.mean(-10 * np.log10(expected)), rel=1e-5)
    assert summary["reconstruction_ssim"] == pytest.approx(np.mean(found.ssim), rel=1e-12)
    assert summary["ssim_window"] == 3
    monkeypatch.setattr(reconstruction, "_IMAGES_AT_ONCE", 100)
    parts = reconstruction.reconstruction_errors(model, params, examples)
    for whole, part in zip(found, parts, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-4)
