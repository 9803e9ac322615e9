"""Importance sampling against models whose likelihood has a closed form, with one and with two levels of latents."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cvae_jax.data.examples import Examples
from cvae_jax.errors import SettingError
from cvae_jax.evaluation import bounds, latents, posteriors, reconstruction, sampling
from cvae_jax.likelihoods import Gaussian
from cvae_jax.losses import gaussian_kl, gaussian_log_density
from cvae_jax.model import Inference, Model
from cvae_jax.rng import evaluation_key

SIGMA, PIXELS, LATENTS, N = 0.5, 6, 3, 7
# Orthogonal columns: the posterior of x = W z + noise is then diagonal. The last latent is masked.
W = np.linalg.qr(np.random.default_rng(0).normal(size=(PIXELS, LATENTS)))[0] * [1.5, 0.7, 2.0]
MASK = jnp.array([True, True, False])
KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class LinearGaussian(Model):
    """x = W z + σ·noise, with its exact posterior, shifted by some standard deviations: only what a model must have."""

    shift: float = 0.0

    condition = None
    likelihood = Gaussian(SIGMA)
    shape, capacity = (2, 3, 1), LATENTS
    flat_latents = True

    def embed(self, params, c):
        return c

    def infer(self, params, x, c, keys):
        variance = jnp.where(MASK, 1 / (1 + jnp.sum(W**2, axis=0) / SIGMA**2), 1.0)
        mean = variance * (x.reshape(-1, PIXELS) @ W) / SIGMA**2 + self.shift * jnp.sqrt(variance)
        mean, logvar = jnp.where(MASK, mean, 0.0), jnp.broadcast_to(jnp.log(variance), mean.shape)
        z = mean + jnp.exp(0.5 * logvar) * jax.vmap(lambda key: jax.random.normal(key, (LATENTS,)))(keys)
        log_q = jnp.sum(jnp.where(MASK, gaussian_log_density(mean, z, logvar), 0.0), axis=1)
        log_p = jnp.sum(jnp.where(MASK, gaussian_log_density(jnp.zeros(()), z, jnp.zeros(())), 0.0), axis=1)
        return Inference(z, (log_q - log_p)[:, None], log_q, log_p)

    def decode(self, params, z, c):
        return (jnp.where(MASK, z, 0.0) @ W.T).reshape(-1, 2, 3, 1)

    def log_prob(self, outputs, x):
        return self.likelihood.log_probs(outputs, x)


@pytest.fixture(scope="module")
def examples():
    x = np.random.default_rng(1).normal(size=(N, 2, 3, 1)).astype(np.float32)
    return Examples(jnp.asarray(x), jnp.zeros(N, jnp.int32), jnp.float32(1))


@pytest.fixture(scope="module")
def exact(examples):
    used = W[:, :2]
    density = stats.multivariate_normal(np.zeros(PIXELS), used @ used.T + SIGMA**2 * np.eye(PIXELS))
    return -density.logpdf(np.asarray(examples.x, np.float64).reshape(N, PIXELS))


@pytest.fixture(autouse=True)
def float_arithmetic():
    with jax.numpy_dtype_promotion("standard"):
        yield


def nll(examples, shift=0.0, **kwargs):
    return bounds.importance_nll(LinearGaussian(shift), {}, examples, KEY, **kwargs)


@pytest.mark.parametrize(("num_samples", "chunk"), [(1, 50), (1, 1), (7, 3), (100, 50)])
def test_under_the_exact_posterior_every_draw_gives_the_likelihood(examples, exact, num_samples, chunk):
    np.testing.assert_allclose(nll(examples, num_samples=num_samples, chunk=chunk), exact, rtol=1e-5)


def test_under_another_posterior_many_draws_find_it(examples, exact):
    few, many = (nll(examples, 1.0, num_samples=k) for k in (1, 20_000))
    assert np.abs(few - exact).max() > 0.3
    np.testing.assert_allclose(many, exact, atol=0.06)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_answer_does_not_depend_on_the_chunk(examples, chunk):
    whole = nll(examples, 1.0, num_samples=40, chunk=40)
    np.testing.assert_allclose(nll(examples, 1.0, num_samples=40, chunk=chunk), whole, rtol=1e-5)


def test_the_answer_does_not_depend_on_the_other_examples(examples):
    whole = nll(examples, 1.0, num_samples=9)
    part = nll(examples.replace(x=examples.x[:3], c=examples.c[:3]), 1.0, num_samples=9)
    np.testing.assert_allclose(part, whole[:3], rtol=1e-5)


# Two levels of latents


@dataclasses.dataclass(frozen=True)
class TwoLevels(Model):
    """z₁ ~ N(0, I), z₂ ~ N(z₁, I), x = U z₁ + V z₂ + σ·noise; q has the posterior's means and larger variances."""

    condition = None
    likelihood = Gaussian(SIGMA)
    shape, capacity = (2, 3, 1), 2
    flat_latents = False

    U, V = W[:, :2], W[:, 1:]
    VARIANCES = 0.6, 0.5

    def embed(self, params, c):
        return c

    def _marginal(self):
        together = self.U + self.V
        return together @ together.T + self.V @ self.V.T + SIGMA**2 * np.eye(PIXELS)

    def infer(self, params, x, c, keys):
        flat = x.reshape(-1, PIXELS)
        top_key, low_key = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)

        def draw(mean, variance, keys):
            noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
            logvar = jnp.full(mean.shape, np.log(variance))
            z = mean + np.sqrt(variance) * noise
            return z, logvar, jnp.sum(gaussian_log_density(mean, z, logvar), axis=1)

        to_top = (self.U + self.V).T @ np.linalg.inv(self._marginal())
        top_mean = flat @ to_top.T
        top, _, log_q_top = draw(top_mean, self.VARIANCES[0], top_key)
        given_top = self.V @ self.V.T + SIGMA**2 * np.eye(PIXELS)
        to_low = self.V.T @ np.linalg.inv(given_top)
        low_mean = top + (flat - top @ (self.U + self.V).T) @ to_low.T
        low, low_logvar, log_q_low = draw(low_mean, self.VARIANCES[1], low_key)
        zero = jnp.zeros(())
        log_p_top = jnp.sum(gaussian_log_density(zero, top, zero), axis=1)
        log_p_low = jnp.sum(gaussian_log_density(top, low, zero), axis=1)
        kl_low = jax.vmap(gaussian_kl)(low_mean, low_logvar, top, jnp.zeros_like(top))
        kl = {"top": (log_q_top - log_p_top)[:, None], "low": kl_low[:, None]}
        return Inference({"top": top, "low": low}, kl, log_q_top + log_q_low, log_p_top + log_p_low)

    def generate(self, params, c, keys, temperature=1.0):
        top, low = jax.vmap(lambda key: jax.random.normal(key, (2, 2)), out_axes=1)(keys) * temperature
        return {"top": top, "low": top + low}

    def decode(self, params, z, c):
        return (z["top"] @ self.U.T + z["low"] @ self.V.T).reshape(-1, 2, 3, 1)

    def log_prob(self, outputs, x):
        return self.likelihood.log_probs(outputs, x)

    def mean(self, outputs):
        return outputs


@pytest.fixture(scope="module")
def two_levels(examples):
    """−log p(x) of every example."""
    density = stats.multivariate_normal(np.zeros(PIXELS), TwoLevels()._marginal())
    return -density.logpdf(np.asarray(examples.x, np.float64).reshape(N, PIXELS))


@pytest.mark.parametrize("proposal", ["posterior", "prior"])
def test_draws_of_two_levels_find_the_likelihood(examples, two_levels, proposal):
    nll = partial(bounds.importance_nll, TwoLevels(), {}, examples, KEY, proposal=proposal)
    assert np.abs(nll(num_samples=1) - two_levels).max() > 0.3
    np.testing.assert_allclose(nll(num_samples=20_000), two_levels, atol=0.1)


def test_the_elbo_of_two_levels_lies_a_divergence_under_the_likelihood(examples, two_levels):
    """The means of q are those of the posterior, so that the gap is the divergence of two Gaussians of one mean."""
    keys = jax.random.split(KEY, 1000)
    terms = jax.jit(jax.vmap(lambda key: bounds.elbo_terms(TwoLevels(), {}, examples, key)))(keys)
    assert terms.rate.shape == terms.distortion.shape == (1000, N)
    bound = np.mean(np.asarray(terms.rate + terms.distortion, np.float64), axis=0)
    u, v, one = TwoLevels.U, TwoLevels.V, np.eye(2)
    of_x = np.hstack([u, v])
    exact = np.linalg.inv(np.block([[one, one], [one, 2 * one]])) + of_x.T @ of_x / SIGMA**2
    slope = one - v.T @ np.linalg.inv(v @ v.T + SIGMA**2 * np.eye(PIXELS)) @ (u + v)
    top, low = TwoLevels.VARIANCES
    q = np.block([[top * one, top * slope.T], [top * slope, top * slope @ slope.T + low * one]])
    divergence = 0.5 * (np.trace(exact @ q) - 4 - np.linalg.slogdet(exact @ q)[1])
    np.testing.assert_allclose(bound - two_levels, divergence, rtol=0.1)
    stacked = bounds.members_elbo_terms(TwoLevels(), {"unused": jnp.zeros(2)}, examples)
    np.testing.assert_array_equal(stacked.rate[0], stacked.rate[1])


def test_samples_of_two_levels_have_the_moments_of_the_model():
    images = sampling.generate(TwoLevels(), {}, KEY, jnp.zeros(20_000, jnp.int32))
    spread = TwoLevels()._marginal() - SIGMA**2 * np.eye(PIXELS)
    np.testing.assert_allclose(np.cov(images.reshape(-1, PIXELS).T), spread, atol=0.15)
    middle = sampling.generate(TwoLevels(), {}, KEY, jnp.zeros(3, jnp.int32), temperature=0.0)
    np.testing.assert_array_equal(middle, 0.0)


def test_reconstructions_of_two_levels_are_those_of_a_draw(examples):
    x, c = examples.take(jnp.arange(N))
    keys = jax.random.split(KEY, N)
    images = sampling.reconstruct(TwoLevels(), {}, x, c, keys)
    z = TwoLevels().infer({}, x, c, keys).z
    np.testing.assert_allclose(images, TwoLevels().decode({}, z, c), atol=1e-5)
    with pytest.raises(SettingError, match="keys is None, expected one per example"):
        sampling.reconstruct(TwoLevels(), {}, x, c)
    keys = jax.vmap(partial(jax.random.fold_in, evaluation_key()))(jnp.arange(N))
    images = np.asarray(sampling.reconstruct(TwoLevels(), {}, x, c, keys))
    found = reconstruction.reconstruction_errors(TwoLevels(), {}, examples)
    np.testing.assert_allclose(found.mse, reconstruction.errors(np.asarray(x), images).mse, rtol=1e-5)


def test_two_levels_have_no_latents_to_traverse_or_to_compare(examples):
    model, z = TwoLevels(), jnp.zeros(2)
    for needs_one_array in (
        partial(posteriors.encode_examples, model, {}, examples),
        partial(latents.latent_terms, model, {}, examples, KEY),
        partial(sampling.traverse, model, {}, z, jnp.int32(0), latents=jnp.arange(2), values=z),
        partial(sampling.interpolate, model, {}, z, z, jnp.int32(0), steps=3),
        partial(sampling.across_labels, model, {}, z[None], jnp.arange(2)),
    ):
        with pytest.raises(SettingError, match="expected a model with one array of latents"):
            needs_one_array()
