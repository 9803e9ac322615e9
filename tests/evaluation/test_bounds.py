"""Bounds of trained models: below the likelihood where it has a closed form, in their order where it has none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import fitted, of_digits
from scipy import stats

from cvae_jax.data.dataset import Split
from cvae_jax.data.examples import on_device
from cvae_jax.draws import draw
from cvae_jax.evaluation import bounds as evaluation
from cvae_jax.likelihoods import Gaussian
from cvae_jax.losses import gaussian_log_density, reparameterize, standard_normal_kl_per_latent
from cvae_jax.model import Inference, Model
from cvae_jax.objectives import Elbo, Iwae
from cvae_jax.objectives.base import Batch

SIGMA, PIXELS, LATENTS, CLASSES, N = 0.5, 16, 2, 2, 60
COUNTS = (1, 5, 50, 500)


@dataclasses.dataclass(frozen=True)
class LinearGaussian(Model):
    """x = W z + b_c + σ·noise, so that p(x|c) = N(b_c, W Wᵀ + σ² I): only what a model must have."""

    likelihood, condition, flat_latents = Gaussian(SIGMA), None, True
    shape, capacity = (4, 4, 1), LATENTS

    def init(self, key):
        loading_key, inverse_key = jax.random.split(key)
        inner = {
            "loading": 0.3 * jax.random.normal(loading_key, (LATENTS, PIXELS)),
            "offset": jnp.zeros((CLASSES, PIXELS)),
            "inverse": 0.1 * jax.random.normal(inverse_key, (PIXELS, LATENTS)),
            "logvar": jnp.zeros(LATENTS),
        }
        return {"params": inner}

    def embed(self, params, c):
        return c

    def infer(self, params, x, c, keys):
        inner = params["params"]
        mean = (x.reshape(-1, PIXELS) - inner["offset"][c]) @ inner["inverse"]
        logvar = jnp.broadcast_to(inner["logvar"], mean.shape)
        z = jax.vmap(reparameterize)(keys, mean, logvar)
        log_q = jnp.sum(gaussian_log_density(mean, z, logvar), axis=1)
        log_p = jnp.sum(gaussian_log_density(jnp.zeros(()), z, jnp.zeros(())), axis=1)
        return Inference(z, jax.vmap(standard_normal_kl_per_latent)(mean, logvar), log_q, log_p)

    def decode(self, params, z, c):
        inner = params["params"]
        return (z @ inner["loading"] + inner["offset"][c]).reshape(-1, 4, 4, 1)

    def log_prob(self, outputs, x):
        return self.likelihood.log_probs(outputs, x)


@pytest.fixture(scope="module")
def trained():
    """The model, its parameters before and after some training, and test examples."""
    rng = np.random.default_rng(0)
    loading, offset = rng.normal(0, 0.7, (3, PIXELS)), rng.normal(0, 1, (CLASSES, PIXELS))

    def split(n):
        c = np.arange(n, dtype=np.int32) % CLASSES
        x = rng.normal(size=(n, 3)) @ loading + offset[c] + SIGMA * rng.normal(size=(n, PIXELS))
        return on_device(Split(x.reshape(n, 4, 4, 1).astype(np.float32), c), 1.0)

    train, test = split(200), split(N)
    model = LinearGaussian()
    start = model.init(jax.random.key(0))
    params = fitted(model, start, train, steps=300, learning_rate=2e-2, batch_size=20)
    return model, start, params, test


@pytest.fixture(scope="module")
def exact(trained):
    """log p(x|c) of every test example, nats."""
    _, _, params, examples = trained
    inner = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    loading = inner["loading"]
    noise = stats.multivariate_normal(np.zeros(PIXELS), loading.T @ loading + SIGMA**2 * np.eye(PIXELS))
    return noise.logpdf(np.asarray(examples.x, np.float64).reshape(N, PIXELS) - inner["offset"][examples.c])


def nll(trained, key, num_samples):
    model, _, params, examples = trained
    return np.asarray(evaluation.importance_nll(model, params, examples, key, num_samples=num_samples))


def test_training_found_the_data(trained, exact):
    model, start, params, examples = trained
    terms = [evaluation.elbo_terms(model, p, examples, jax.random.key(0)) for p in (start, params)]
    before, after = (-float(jnp.mean(each.distortion + each.rate)) for each in terms)
    assert after > before + 10
    assert exact.mean() - 5 < after < exact.mean()


def test_many_draws_find_the_likelihood_of_every_example(trained, exact):
    estimate = nll(trained, jax.random.key(1), 5000)
    assert np.abs(estimate + exact).max() < 0.05
    assert abs(np.mean(estimate) + exact.mean()) < 0.005


def test_every_bound_lies_under_the_likelihood_and_rises_with_the_draws(trained, exact):
    model, _, params, examples = trained
    keys = jax.random.split(jax.random.key(2), (8, N))

    def losses_of(objective):
        @jax.jit
        def losses(keys):
            batch = Batch(examples.x, examples.c, keys, jax.random.key(0))
            return objective.loss(model, params, batch).loss

        return losses

    bounds = {}
    for count in COUNTS:
        losses = losses_of(Iwae(num_samples=count))
        bounds[count] = -np.stack([losses(some) for some in keys])
    gaps = [exact - bounds[count].mean(axis=0) for count in COUNTS]
    means = [gap.mean() for gap in gaps]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.1
    error = np.sqrt(bounds[COUNTS[-1]].var(axis=0, ddof=1).mean() / (8 * N))
    assert error < 0.005
    assert means[-1] > -3 * error
    elbo = losses_of(Elbo())
    closed_form = -np.stack([elbo(some) for some in keys])
    assert closed_form.mean() < exact.mean()
    error = (closed_form - bounds[1]).std() / np.sqrt(closed_form.size)
    assert abs(closed_form.mean() - bounds[1].mean()) < 4 * error


# Digits


@pytest.fixture(scope="module")
def digits_model(digits):
    """A model of digits before and after some training, and test examples."""
    model = of_digits(3, hidden=(64,))
    start = jax.jit(model.init)(jax.random.key(0))
    train = on_device(digits.train, digits.x_max)
    binary = jax.random.bernoulli(jax.random.key(1), train.take(jnp.arange(len(train)))[0])
    train = train.replace(x=binary.astype(jnp.float32), x_max=jnp.float32(1))
    params = fitted(model, start, train, steps=400, learning_rate=1e-3)
    return model, start, params, on_device(digits.test.take(np.arange(50)), digits.x_max)


def test_bounds_on_digits_rise_towards_the_estimate_of_many_draws(digits_model):
    bounds = [-nll(digits_model, jax.random.key(1), count).mean() for count in (*COUNTS, 5000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[1] - 0.1
    assert bounds[-1] - bounds[-2] < 0.1


def test_one_draw_is_the_elbo_under_that_draw(digits_model):
    model, _, params, examples = digits_model
    key, rows = jax.random.key(4), jnp.arange(50)
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), 0))(rows)
    x, c = examples.take(rows)
    inference, log_likelihood, _ = jax.jit(draw, static_argnums=0)(model, params, x, c, keys)
    q = jax.jit(model.encode)(params, x, c)
    mean, scale = (np.asarray(a, np.float64) for a in (q.mean, jnp.exp(0.5 * q.logvar)))
    z = np.asarray(inference.z, np.float64)
    kl = (stats.norm.logpdf(z, mean, scale) - stats.norm.logpdf(z)).sum(axis=1)
    np.testing.assert_allclose(-nll(digits_model, key, 1), log_likelihood - kl, rtol=1e-5)
