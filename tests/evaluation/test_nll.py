"""Importance sampling against a model whose likelihood has a closed form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cvae_jax.evaluation import bounds
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.likelihoods import families
from cvae_jax.model import Gaussian

SIGMA, PIXELS, LATENTS, N = 0.5, 6, 3, 7
# Orthogonal columns: the posterior of x = W z + noise is then diagonal. The last latent is masked.
W = np.linalg.qr(np.random.default_rng(0).normal(size=(PIXELS, LATENTS)))[0] * [1.5, 0.7, 2.0]
MASK = jnp.array([True, True, False])
KEY = jax.random.key(0)


class LinearGaussian(nn.Module):
    """x = W z + σ·noise, with its exact posterior, shifted by some standard deviations."""

    shift: float = 0.0

    @property
    def likelihood(self):
        return families.gaussian(SIGMA)

    def encode(self, x, c, mask):
        variance = jnp.where(mask, 1 / (1 + jnp.sum(W**2, axis=0) / SIGMA**2), 1.0)
        mean = variance * (x.reshape(-1, PIXELS) @ W) / SIGMA**2 + self.shift * jnp.sqrt(variance)
        return Gaussian(jnp.where(mask, mean, 0.0), jnp.broadcast_to(jnp.log(variance), mean.shape))

    def decode(self, z, c, mask):
        return (jnp.where(mask, z, 0.0) @ W.T).reshape(-1, 2, 3, 1)


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
    return bounds.importance_nll(LinearGaussian(shift), {}, examples, MASK, KEY, **kwargs)


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
