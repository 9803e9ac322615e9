"""The losses against scipy, closed forms, Monte Carlo, and at the edges of float32."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import unchecked
from scipy import stats

from cvae_jax import losses
from cvae_jax.losses import bounded_exp, precision, standard_deviation

rng = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def test_bernoulli_matches_scipy():
    logits, x = array(3, 4), jnp.asarray(rng.integers(0, 2, (3, 4)), jnp.float32)
    expected = stats.bernoulli.logpmf(np.asarray(x), 1 / (1 + np.exp(-np.asarray(logits, np.float64)))).sum()
    np.testing.assert_allclose(losses.bernoulli_log_likelihood(logits, x), expected, rtol=1e-6)


def test_bernoulli_sums_to_one():
    logit = jnp.float32(0.7)
    total = sum(jnp.exp(losses.bernoulli_log_likelihood(logit, jnp.float32(x))) for x in (0, 1))
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_gaussian_matches_scipy(sigma):
    mean, x = array(5), array(5)
    expected = stats.norm.logpdf(np.asarray(x, np.float64), np.asarray(mean, np.float64), sigma).sum()
    actual = losses.gaussian_log_likelihood(mean, x, 2 * np.log(sigma))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_gaussian_takes_a_variance_per_pixel():
    mean, x, logvar = array(5), array(5), array(5)
    expected = stats.norm.logpdf(np.asarray(x), np.asarray(mean), np.exp(np.asarray(logvar) / 2)).sum()
    np.testing.assert_allclose(losses.gaussian_log_likelihood(mean, x, logvar), expected, rtol=1e-5)


def test_kl_is_its_monte_carlo_estimate():
    mean_q, logvar_q, mean_p, logvar_p = array(4), 0.5 * array(4), array(4), 0.5 * array(4)
    keys = jax.random.split(jax.random.key(0), 200_000)
    z = jax.vmap(losses.reparameterize, (0, None, None))(keys, mean_q, logvar_q)

    def log_density(z, mean, logvar):
        return jax.vmap(losses.gaussian_log_likelihood, (None, 0, None))(mean, z, logvar)

    for m, v, kl in (
        (mean_p, logvar_p, losses.gaussian_kl(mean_q, logvar_q, mean_p, logvar_p)),
        (jnp.zeros(4), jnp.zeros(4), losses.standard_normal_kl(mean_q, logvar_q)),
    ):
        draws = np.asarray(log_density(z, mean_q, logvar_q) - log_density(z, m, v))
        error = draws.std() / np.sqrt(len(draws))
        assert abs(draws.mean() - kl) < 4 * error


def test_kl_to_the_standard_normal_is_the_general_kl():
    mean, logvar = array(6), array(6)
    general = losses.gaussian_kl(mean, logvar, jnp.zeros(6), jnp.zeros(6))
    np.testing.assert_allclose(losses.standard_normal_kl(mean, logvar), general, rtol=1e-6)


def test_kl_keeps_its_digits_near_zero():
    logvar = jnp.full(1, 1e-3)
    exact = 0.5 * (np.expm1(np.float64(np.float32(1e-3))) - np.float64(np.float32(1e-3)))
    np.testing.assert_allclose(losses.standard_normal_kl(jnp.zeros(1), logvar), exact, rtol=1e-3)
    assert losses.standard_normal_kl(jnp.zeros(1), jnp.zeros(1)) == 0.0


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
def test_bernoulli_is_finite_at_extreme_logits(logit, x):
    value, grad = jax.value_and_grad(losses.bernoulli_log_likelihood)(jnp.full(3, logit), jnp.full(3, x))
    np.testing.assert_allclose(value, -3 * abs(logit) * (1 - x if logit > 0 else x), rtol=1e-6)
    np.testing.assert_allclose(grad, x - (logit > 0), atol=1e-6)


def test_bernoulli_gradient_is_the_residual():
    logits, x = array(20), jnp.asarray(rng.uniform(size=20), jnp.float32)
    grad = jax.grad(losses.bernoulli_log_likelihood)(logits, x)
    np.testing.assert_allclose(grad, x - jax.nn.sigmoid(logits), atol=1e-6)
    np.testing.assert_allclose(jax.grad(losses.bernoulli_log_likelihood)(jnp.zeros(1), jnp.zeros(1)), -0.5)


@pytest.mark.parametrize("logvar", [-50.0, 50.0])
@pytest.mark.parametrize("logvar_p", [-50.0, 50.0])
def test_everything_is_finite_at_extreme_variances(logvar, logvar_p):
    mean, v, v_p = jnp.array([-1.0, 2.0]), jnp.full(2, logvar), jnp.full(2, logvar_p)
    key = jax.random.key(0)
    functions = {
        "standard_normal_kl": lambda m, v: losses.standard_normal_kl(m, v),
        "gaussian_kl": lambda m, v: losses.gaussian_kl(m, v, -m, v_p),
        "gaussian_kl prior": lambda m, v: losses.gaussian_kl(-m, v_p, m, v),
        "gaussian_log_likelihood": lambda m, v: losses.gaussian_log_likelihood(m, -m, v),
        "reparameterize": lambda m, v: jnp.sum(losses.reparameterize(key, m, v)),
    }
    for name, f in functions.items():
        value, grads = jax.value_and_grad(f, (0, 1))(mean, v)
        assert np.isfinite(value), name
        assert all(np.isfinite(g).all() for g in grads), name


MEANS = (0.0, 1.0, -1e4)
LOGVARS = (-1e4, -100.0, -89.0, 0.0, 89.0, 100.0, 1e4)
MIXTURE = losses.LogisticMixtureParameters(
    jnp.zeros(2), jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((0, 2))
)
# Functions of scalars, and the values that each argument takes.
EXTREMES = {
    "standard_normal_kl": (lambda m, v: losses.standard_normal_kl(m[None], v[None]), (MEANS, LOGVARS)),
    "gaussian_kl": (
        lambda m, v, m_p, v_p: losses.gaussian_kl(m[None], v[None], m_p[None], v_p[None]),
        (MEANS, LOGVARS, MEANS, LOGVARS),
    ),
    "gaussian": (losses.gaussian_log_likelihood, (MEANS, MEANS, LOGVARS)),
    "bernoulli": (losses.bernoulli_log_likelihood, ((*LOGVARS, -1e30, 1e30), (0.0, 0.5, 1.0))),
    "continuous_bernoulli": (
        losses.continuous_bernoulli_log_likelihood,
        ((*LOGVARS, -1e30, 1e30), (0.0, 0.5, 1.0)),
    ),
    "logistic_mixture": (
        lambda logit, mean, log_scale, x: losses.logistic_mixture_log_likelihood(
            MIXTURE._replace(
                logits=MIXTURE.logits.at[0].set(logit),
                means=jnp.full((1, 2), mean),
                log_scales=jnp.full((1, 2), log_scale),
            ),
            x[None],
            levels=256,
        ),
        (LOGVARS, (*MEANS, 1e30), LOGVARS, (0.0, 0.5, 1.0)),
    ),
    # A draw, and its density under its own Gaussian and under the standard one: a sampled rate.
    "sampled rate": (
        lambda m, v: (
            lambda z: (
                losses.gaussian_log_likelihood(m[None], z, v[None])
                - losses.gaussian_log_likelihood(jnp.zeros(1), z, 0.0)
            )
        )(losses.reparameterize(jax.random.key(0), m[None], v[None])),
        (MEANS, LOGVARS),
    ),
    "beta_elbo": (losses.beta_elbo, ((-1e30, 0.0), (0.0, 1e30), (0.0, 1e4))),
    "importance_weighted_bound": (
        lambda a, b: losses.importance_weighted_bound(jnp.stack([a, b])),
        ((-1e30, 0.0, 1e30), (-1e30, 0.0, 1e30)),
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_but_finite_inputs_have_finite_values_and_gradients(name):
    f, values = EXTREMES[name]
    cases = jnp.asarray(list(itertools.product(*values)), jnp.float32)
    every = tuple(range(len(values)))
    results, gradients = jax.jit(jax.vmap(jax.value_and_grad(f, every)))(*cases.T)
    wrong = ~np.isfinite(np.stack([results, *gradients], axis=1)).all(axis=1)
    assert not wrong.any(), cases[wrong][:3]


def test_the_kl_of_equal_means_is_zero_in_the_means_however_narrow_the_prior():
    # ½ (e^d − 1 − d) of the variances alone, of a d where float32 still holds e^d.
    value = losses.gaussian_kl(*(jnp.full(1, a) for a in (0.0, -60.0, 0.0, -100.0)))
    np.testing.assert_allclose(value, 0.5 * (np.exp(40.0) - 41.0), rtol=1e-5)
    assert np.isfinite(losses.gaussian_kl(*(jnp.full(1, a) for a in (0.0, 0.0, 0.0, -100.0))))


def test_exponentials_are_exact_up_to_where_they_are_continued():
    a = jnp.linspace(-100.0, 30.0, 131)
    np.testing.assert_array_equal(bounded_exp(a, 30.0), jnp.exp(a))
    np.testing.assert_array_equal(precision(jnp.array([-50.0, 3.0])), jnp.exp(jnp.array([50.0, -3.0])))
    np.testing.assert_array_equal(
        standard_deviation(jnp.array([60.0, -3.0])), jnp.exp(jnp.array([30.0, -1.5]))
    )
    np.testing.assert_allclose(bounded_exp(jnp.float32(12.0), 10.0), 3.0 * np.exp(10.0), rtol=1e-6)


def test_a_prior_too_narrow_still_pulls():
    grad = jax.grad(losses.gaussian_kl, 1)(jnp.zeros(1), jnp.full(1, 50.0), jnp.zeros(1), jnp.full(1, -50.0))
    assert grad[0] > 1e30


CASES = {
    "standard_normal_kl": (losses.standard_normal_kl, (array(7, 4), array(7, 4))),
    "gaussian_kl": (losses.gaussian_kl, tuple(array(7, 4) for _ in range(4))),
    "bernoulli": (losses.bernoulli_log_likelihood, (array(7, 2, 3), jnp.abs(jnp.sign(array(7, 2, 3))))),
    "gaussian": (lambda m, x: losses.gaussian_log_likelihood(m, x, 0.3), (array(7, 2, 3), array(7, 2, 3))),
}


@pytest.mark.parametrize("name", CASES)
def test_jit_is_eager_and_vmap_is_a_loop(name):
    f, batch = CASES[name]
    loop = jnp.stack([f(*example) for example in zip(*batch, strict=True)])
    np.testing.assert_allclose(jax.vmap(f)(*batch), loop, rtol=2e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(*batch), loop, rtol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_unequal_shapes_are_refused(name):
    f, (first, *rest) = CASES[name]
    with unchecked(), pytest.raises(ValueError, match="expected equal shapes"):
        f(first[0][:1], *(a[0] for a in rest))


def test_reparameterize_has_the_moments_it_is_given():
    keys = jax.random.split(jax.random.key(1), 100_000)
    z = jax.vmap(losses.reparameterize, (0, None, None))(
        keys, jnp.array([1.0, -2.0]), jnp.log(jnp.array([4.0, 0.25]))
    )
    np.testing.assert_allclose(z.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(z.var(0), [4.0, 0.25], rtol=0.02)
    assert abs(np.corrcoef(np.asarray(z).T)[0, 1]) < 0.01


def test_elbo_and_beta_elbo():
    log_likelihood, kl = array(5), jnp.abs(array(5))
    np.testing.assert_array_equal(losses.elbo(log_likelihood, kl), log_likelihood - kl)
    np.testing.assert_array_equal(losses.beta_elbo(log_likelihood, kl, 1.0), losses.elbo(log_likelihood, kl))
    np.testing.assert_allclose(losses.beta_elbo(log_likelihood, kl, 4.0), log_likelihood - 4 * kl, rtol=1e-6)
