"""Likelihoods are densities: they integrate or sum to 1, and their means and draws are their own."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from cvae_jax.likelihoods import (
    ContinuousBernoulli,
    GaussianLearned,
    GaussianOptimal,
    GaussianOutput,
    LogisticMixture,
    fit_logvar,
    fitted_logvar,
)
from cvae_jax.losses import (
    LogisticMixtureParameters,
    bernoulli_log_likelihood,
    continuous_bernoulli_log_likelihood,
    gaussian_log_likelihood,
    logistic_mixture_log_likelihood,
    optimal_logvar,
)

# The continuous Bernoulli

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
    mean = ContinuousBernoulli().mean(jnp.float32(logit))
    np.testing.assert_allclose(mean, expected, atol=2e-5)


@pytest.mark.parametrize("logit", [0.0, 1e-4, -0.5, 3.0, -20.0])
def test_draws_follow_the_density(logit):
    draws = ContinuousBernoulli().sample(jax.random.key(0), jnp.full(20_000, logit, jnp.float32))
    assert ((draws >= 0) & (draws <= 1)).all()

    def distribution(x):
        return np.expm1(logit * x) / np.expm1(logit) if logit else x

    assert stats.kstest(np.asarray(draws, np.float64), distribution).pvalue > 0.01


@pytest.mark.parametrize("logit", [-1e4, -89.0, 0.0, 89.0, 1e4])
def test_extreme_logits_have_finite_values_gradients_means_and_draws(logit):
    family = ContinuousBernoulli()
    logits = jnp.float32(logit)
    for x in (0.0, 0.5, 1.0):
        value, gradient = jax.value_and_grad(family.log_prob)(logits, jnp.float32(x))
        assert jnp.isfinite(value)
        # d/dl log p = x - mean
        np.testing.assert_allclose(gradient, x - family.mean(logits), atol=1e-6)
    assert 0 <= family.mean(logits) <= 1
    assert 0 <= family.sample(jax.random.key(1), logits) <= 1


# The Gaussian of one sigma


@pytest.mark.parametrize("logvar", [-9.0, 0.0, 3.0])
def test_a_gaussian_of_one_sigma_is_that_of_scipy(logvar):
    rng = np.random.default_rng(0)
    mean, x = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    output = GaussianOutput(jnp.asarray(mean), jnp.float32(logvar))
    family = GaussianLearned(0.1)
    expected = stats.norm(mean.astype(np.float64), np.exp(logvar / 2)).logpdf(x).sum()
    np.testing.assert_allclose(family.log_prob(output, jnp.asarray(x)), expected, rtol=1e-5)
    np.testing.assert_array_equal(family.mean(output), mean)
    draws = jax.vmap(family.sample, (0, None))(jax.random.split(jax.random.key(0), 2000), output)
    np.testing.assert_allclose((draws - mean).std(), np.exp(logvar / 2), rtol=0.02)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * np.exp(logvar / 2) / np.sqrt(2000))


@pytest.mark.parametrize("logvar", [-60.0, 60.0])
def test_an_extreme_sigma_has_finite_values_and_gradients(logvar):
    family = GaussianLearned(0.1)
    output = GaussianOutput(jnp.full((2, 2, 1), 3.0), jnp.float32(logvar))
    value, gradient = jax.value_and_grad(family.log_prob)(output, jnp.zeros((2, 2, 1)))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


def test_the_optimal_sigma_is_that_of_numpy():
    rng = np.random.default_rng(1)
    mean, x = (jnp.asarray(a, jnp.float32) for a in rng.normal(size=(2, 6, 4, 4, 1)))
    logvar = optimal_logvar(mean, x)
    np.testing.assert_allclose(
        logvar, np.log(np.mean(np.square(np.asarray(x - mean, np.float64)))), rtol=1e-5
    )

    def total(logvar):
        return gaussian_log_likelihood(mean, x, logvar)

    np.testing.assert_allclose(jax.grad(total)(logvar), 0.0, atol=1e-4)
    assert total(logvar) > max(total(logvar - 0.05), total(logvar + 0.05))


def test_the_gradient_through_the_optimal_sigma_is_that_of_a_constant_one():
    rng = np.random.default_rng(2)
    mean, x = (jnp.asarray(a, jnp.float32) for a in rng.normal(size=(2, 6, 4, 4, 1)))
    family = GaussianOptimal()
    outputs = GaussianOutput(mean, jnp.zeros(6))

    def mean_of_batch(mean, stop):
        fitted = fit_logvar(outputs._replace(mean=mean), x)
        fitted = fitted._replace(logvar=jax.lax.stop_gradient(fitted.logvar) if stop else fitted.logvar)
        return jnp.mean(family.log_probs(fitted, x))

    (value, through), (same, held) = (
        jax.value_and_grad(partial(mean_of_batch, stop=stop))(mean) for stop in (False, True)
    )
    np.testing.assert_array_equal(value, same)
    np.testing.assert_allclose(through, held, atol=1e-7)
    logvar = optimal_logvar(mean, x)
    np.testing.assert_allclose(fitted_logvar(-value, 16), logvar, atol=1e-6)


@pytest.mark.parametrize("error", [1e-10, 1e-6, 0.0])
def test_the_fitted_sigma_has_its_floor_also_where_the_fit_is_perfect(error):
    mean = jnp.full((3, 4, 4, 1), 0.5)
    x = mean + jnp.sqrt(jnp.float32(error))
    family = GaussianOptimal()
    log_likelihood = family.log_probs(fit_logvar(GaussianOutput(mean, jnp.zeros(3)), x), x)
    np.testing.assert_allclose(fitted_logvar(-jnp.mean(log_likelihood), 16), np.log(1e-6), rtol=1e-5)


def test_a_perfect_fit_has_finite_values_and_gradients():
    x = jnp.full((3, 2, 2, 1), 0.5)
    family = GaussianOptimal()

    def total(mean):
        return jnp.sum(family.log_probs(fit_logvar(GaussianOutput(mean, jnp.zeros(3)), x), x))

    value, gradient = jax.value_and_grad(total)(x)
    assert jnp.isfinite(value)
    np.testing.assert_array_equal(gradient, 0.0)


# The discretized mixture of logistics


def mixture(seed, channels, components=3, pixels=(), scale=-2.0):
    """Parameters drawn at random, as arrays of numpy."""
    rng = np.random.default_rng(seed)
    pairs = channels * (channels - 1) // 2
    return LogisticMixtureParameters(
        rng.normal(size=(*pixels, components)).astype(np.float32),
        rng.normal(0.0, 0.5, (*pixels, channels, components)).astype(np.float32),
        rng.normal(scale, 0.7, (*pixels, channels, components)).astype(np.float32),
        rng.normal(size=(*pixels, pairs, components)).astype(np.float32),
    )


def as_output(parameters):
    """The mixture as a decoder lays it out, a pixel's parameters one after another."""
    logits, means, log_scales, couplings = parameters
    parts = np.concatenate([logits[..., None, :], means, log_scales, couplings], axis=-2)
    return jnp.asarray(parts.reshape(*parts.shape[:-2], -1))


def all_images(levels, channels):
    """Every value of one pixel, from 0 to 1, shape (levels^channels, channels)."""
    return np.array(list(itertools.product(range(levels), repeat=channels)), np.float32) / (levels - 1)


def by_scipy(parameters, x, levels):
    """Log-probability of one pixel in float64."""
    logits, means, log_scales, couplings = (np.asarray(a, np.float64) for a in parameters)
    y, joint = 2.0 * np.asarray(x, np.float64) - 1.0, special.log_softmax(logits)
    for i in range(len(y)):
        shift = sum(np.tanh(couplings[i * (i - 1) // 2 + j]) * y[j] for j in range(i))
        law = stats.logistic(means[i] + shift, np.exp(log_scales[i]))
        above = 1.0 if y[i] > 1 - 1 / levels else law.cdf(y[i] + 1 / (levels - 1))
        below = 0.0 if y[i] < -1 + 1 / levels else law.cdf(y[i] - 1 / (levels - 1))
        joint = joint + np.log(above - below)
    return special.logsumexp(joint)


@partial(jax.jit, static_argnames="levels")
def _log_probs(output, x, levels):
    return jax.vmap(LogisticMixture(3, levels).log_prob, (None, 0))(output, x)


def log_probs(parameters, x, levels):
    """Of every image of one pixel in x, under one mixture."""
    return _log_probs(as_output(parameters), jnp.asarray(x), levels)


@pytest.mark.parametrize(("levels", "channels"), [(256, 1), (2, 1), (17, 1), (6, 3), (5, 2)])
@pytest.mark.parametrize("scale", [-6.0, -2.0, 3.0])
def test_the_probabilities_of_all_levels_sum_to_one(levels, channels, scale):
    for seed in range(3):
        values = log_probs(mixture(seed, channels, scale=scale), all_images(levels, channels), levels)
        np.testing.assert_allclose(np.exp(np.asarray(values, np.float64)).sum(), 1.0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mixture_is_that_of_scipy(channels):
    levels, parameters = 256, mixture(4, channels)
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.integers(0, 256, (40, channels)), [[0] * channels], [[255] * channels]])
    x = (x / np.float32(255)).astype(np.float32)
    expected = [by_scipy(parameters, each, levels) for each in x]
    np.testing.assert_allclose(log_probs(parameters, x, levels), expected, rtol=1e-4)


def test_an_image_is_the_sum_of_its_pixels():
    parameters = mixture(6, 3, pixels=(2, 4))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 3)) / np.float32(255), jnp.float32)
    whole = logistic_mixture_log_likelihood(
        LogisticMixtureParameters(*map(jnp.asarray, parameters)), x, levels=256
    )
    family = LogisticMixture(3, 256)
    assert family.channels(3) == as_output(parameters).shape[-1] == 30
    np.testing.assert_allclose(family.log_prob(as_output(parameters), x), whole, rtol=1e-6)
    each = [
        by_scipy(LogisticMixtureParameters(*(a[i] for a in parameters)), x[i], 256) for i in np.ndindex(2, 4)
    ]
    np.testing.assert_allclose(whole, sum(each), rtol=1e-5)


def test_channels_that_do_not_match_are_refused():
    parameters = LogisticMixtureParameters(*map(jnp.asarray, mixture(0, 1)))
    with pytest.raises(ValueError, match=r"expected equal shapes, got means \(1,\), x \(3,\)"):
        logistic_mixture_log_likelihood(parameters, jnp.zeros(3), levels=256)


@jax.jit
def value_gradient_mean_and_draw(output, x):
    family = LogisticMixture(3, 256)
    mean, draw = family.mean(output), family.sample(jax.random.key(0), output)
    return *jax.value_and_grad(family.log_prob)(output, x), mean, draw


@pytest.mark.parametrize("size", [-1e4, -90.0, 90.0, 1e4])
@pytest.mark.parametrize("field", range(4))
def test_extreme_mixtures_have_finite_values_gradients_means_and_draws(field, size):
    parameters = [np.zeros_like(a) for a in mixture(0, 3, pixels=(2,))]
    # All but one component, so that logits differ.
    parameters[field][..., 1:] = size
    output = as_output(LogisticMixtureParameters(*parameters))
    for x in (0.0, 100 / 255, 1.0):
        value, gradient, *images = value_gradient_mean_and_draw(output, jnp.full((2, 3), x))
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
        assert all(((image >= 0) & (image <= 1)).all() for image in images)


@pytest.mark.parametrize(("levels", "channels"), [(17, 1), (3, 3)])
def test_draws_of_a_mixture_have_its_probabilities(levels, channels):
    parameters = mixture(7, channels, scale=-0.5)
    family = LogisticMixture(3, levels)
    n = 20_000
    # Independent pixels: one image of n of them.
    output = jnp.broadcast_to(as_output(parameters), (n, as_output(parameters).shape[-1]))
    level = np.asarray(family.sample(jax.random.key(0), output)) * (levels - 1)
    np.testing.assert_allclose(level, np.round(level), atol=1e-4)
    cell = np.round(level).astype(int) @ levels ** np.arange(channels)[::-1]
    counts = np.bincount(cell, minlength=levels**channels)
    expected = n * np.exp(np.asarray(log_probs(parameters, all_images(levels, channels), levels), np.float64))
    # Cells that are all but empty count as one.
    seldom = expected <= max(5, np.sort(expected)[1])
    table = [np.append(a[~seldom], a[seldom].sum()) for a in (counts, expected)]
    assert stats.chisquare(table[0], table[1] * n / table[1].sum()).pvalue > 0.01


@pytest.mark.parametrize("scale", [-5.0, -2.0, 0.0])
def test_the_mean_of_a_grey_mixture_is_that_of_its_levels(scale):
    for levels, tolerance in ((256, 0.5 / 255), (17, 0.5 / 16)):
        parameters, x = mixture(8, 1, scale=scale), all_images(levels, 1)
        p = np.exp(np.asarray(log_probs(parameters, x, levels), np.float64))
        mean = LogisticMixture(3, levels).mean(as_output(parameters))
        assert np.abs(mean - p @ x).max() < tolerance


def test_the_mean_of_a_colour_mixture_is_that_of_its_draws():
    # Narrow enough for the ends to take little.
    parameters = mixture(9, 3, pixels=(5,), scale=-3.0)
    parameters = parameters._replace(means=0.5 * parameters.means, couplings=0.5 * parameters.couplings)
    family = LogisticMixture(3, 256)
    sample = jax.jit(jax.vmap(family.sample, (0, None)))
    draws = sample(jax.random.split(jax.random.key(1), 20_000), as_output(parameters))
    error = 5 * np.asarray(draws).std(axis=0) / np.sqrt(len(draws)) + 0.5 / 255
    assert (np.abs(draws.mean(axis=0) - family.mean(as_output(parameters))) < error).all()
