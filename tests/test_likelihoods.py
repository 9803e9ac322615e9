"""The continuous Bernoulli as a density: it integrates to 1, and its mean and draws are its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from cvae_jax import likelihoods
from cvae_jax.losses import bernoulli_log_likelihood, continuous_bernoulli_log_likelihood

LOGITS = [0.0, 1e-6, -1e-3, 0.19999, 0.20001, -0.5, 3.0, -8.0, 30.0]


def density(logit):
    log_prob = jax.jit(continuous_bernoulli_log_likelihood)
    return lambda x: float(jnp.exp(log_prob(jnp.float32(logit), jnp.float32(x))))


@pytest.mark.parametrize("logit", LOGITS)
def test_it_integrates_to_one(logit):
    # Most of the mass of a large logit lies within 1/|logit| of one end.
    edge = 0.9 if logit > 0 else 0.1
    total = integrate.quad(density(logit), 0.0, 1.0, points=[edge], epsabs=1e-6, epsrel=1e-6)[0]
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@pytest.mark.parametrize("logit", LOGITS)
def test_the_normalizer_is_that_of_the_paper(logit):
    one = jnp.float32(1.0)
    ours = continuous_bernoulli_log_likelihood(jnp.float32(logit), one)
    ours -= bernoulli_log_likelihood(jnp.float32(logit), one)
    exact = np.float64(np.float32(logit))
    expected = np.log(exact / np.tanh(exact / 2)) if exact else np.log(2.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("logit", LOGITS)
def test_the_mean_is_that_of_the_density(logit):
    edge = 0.9 if logit > 0 else 0.1
    p = density(logit)
    expected = integrate.quad(lambda x: x * p(x), 0.0, 1.0, points=[edge], epsabs=1e-6, epsrel=1e-6)[0]
    mean = likelihoods.continuous_bernoulli().mean(jnp.float32(logit))
    np.testing.assert_allclose(mean, expected, atol=2e-5)


@pytest.mark.parametrize("logit", [0.0, 1e-4, -0.5, 3.0, -20.0])
def test_draws_follow_the_density(logit):
    draws = likelihoods.continuous_bernoulli().sample(jax.random.key(0), jnp.full(20_000, logit, jnp.float32))
    assert ((draws >= 0) & (draws <= 1)).all()

    def distribution(x):
        return np.expm1(logit * x) / np.expm1(logit) if logit else x

    assert stats.kstest(np.asarray(draws, np.float64), distribution).pvalue > 0.01


@pytest.mark.parametrize("logit", [-1e4, -89.0, 0.0, 89.0, 1e4])
def test_extreme_logits_have_finite_values_gradients_means_and_draws(logit):
    family = likelihoods.continuous_bernoulli()
    logits = jnp.float32(logit)
    for x in (0.0, 0.5, 1.0):
        value, gradient = jax.value_and_grad(family.log_prob)(logits, jnp.float32(x))
        assert jnp.isfinite(value)
        # d/dl log p = x - mean
        np.testing.assert_allclose(gradient, x - family.mean(logits), atol=1e-6)
    assert 0 <= family.mean(logits) <= 1
    assert 0 <= family.sample(jax.random.key(1), logits) <= 1
