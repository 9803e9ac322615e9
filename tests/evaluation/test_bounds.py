"""Bounds of trained models: below the likelihood where it has a closed form, in their order where it has none."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cvae_jax.config import Config, Member
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.draws import draw
from cvae_jax.evaluation import bounds as evaluation
from cvae_jax.hparams import hparams
from cvae_jax.likelihoods import families
from cvae_jax.losses import reparameterize
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives import importance, registry
from cvae_jax.training import loader, population

SIGMA, PIXELS, LATENTS, CLASSES, N = 0.5, 16, 3, 2, 60
USED = 2
COUNTS = (1, 5, 50, 500)
CONFIG = Config(likelihood="gaussian", sigma=SIGMA, binarize="none", batch_size=20)


class LinearGaussian(nn.Module):
    """x = W z + b_c + σ·noise, so that p(x|c) = N(b_c, W Wᵀ + σ² I); the last latent is masked."""

    kind = None
    config: Config = CONFIG
    shape: tuple[int, int, int] = (4, 4, 1)

    @property
    def likelihood(self):
        return families.likelihood(self.config)

    def setup(self):
        self.loading = self.param("loading", nn.initializers.normal(0.3), (LATENTS, PIXELS))
        self.offset = self.param("offset", nn.initializers.zeros, (CLASSES, PIXELS))
        self.inverse = self.param("inverse", nn.initializers.normal(0.1), (PIXELS, LATENTS))
        self.logvar = self.param("logvar", nn.initializers.zeros, (LATENTS,))

    def encode(self, x, c, mask):
        mean = (x.reshape(-1, PIXELS) - self.offset[c]) @ self.inverse
        logvar = jnp.broadcast_to(self.logvar, mean.shape)
        return Gaussian(jnp.where(mask, mean, 0.0), jnp.where(mask, logvar, 0.0))

    def decode(self, z, c, mask):
        return (jnp.where(mask, z, 0.0) @ self.loading + self.offset[c]).reshape(-1, *self.shape)

    def __call__(self, x, c, mask, key):
        q = self.encode(x, c, mask)
        return q, self.decode(jax.vmap(reparameterize)(jax.random.split(key, x.shape[0]), *q), c, mask)


@pytest.fixture(scope="module")
def trained():
    """The model, its parameters after some training, the settings, and test examples."""
    rng = np.random.default_rng(0)
    loading, offset = rng.normal(0, 0.7, (LATENTS, PIXELS)), rng.normal(0, 1, (CLASSES, PIXELS))

    def split(n):
        c = np.arange(n, dtype=np.int32) % CLASSES
        x = rng.normal(size=(n, LATENTS)) @ loading + offset[c] + SIGMA * rng.normal(size=(n, PIXELS))
        return Split(x.reshape(n, 4, 4, 1).astype(np.float32), c)

    dataset = Dataset("linear", split(200), split(N), split(N), 1.0, ("a", "b"))
    model = LinearGaussian()
    h = hparams(Member(latent_dim=USED, learning_rate=2e-2), capacity=LATENTS, steps_per_epoch=10)
    train = jax.jit(population.make_train(model, num_steps=300))
    params = train(h, loader.training_data(CONFIG, dataset)).params
    return model, params, h, evaluation.on_device(dataset.test, 1.0)


@pytest.fixture(scope="module")
def exact(trained):
    """log p(x|c) of every test example, nats."""
    _, params, _, examples = trained
    inner = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    loading = inner["loading"][:USED]
    noise = stats.multivariate_normal(np.zeros(PIXELS), loading.T @ loading + SIGMA**2 * np.eye(PIXELS))
    return noise.logpdf(np.asarray(examples.x, np.float64).reshape(N, PIXELS) - inner["offset"][examples.c])


def nll(trained, key, num_samples):
    model, params, h, examples = trained
    return np.asarray(
        evaluation.importance_nll(model, params, examples, h.latent_mask, key, num_samples=num_samples)
    )


def test_training_found_the_data(trained, exact):
    model, params, h, examples = trained
    start = model.init(jax.random.key(0), examples.x, examples.c, h.latent_mask, h.key)
    terms = [evaluation.elbo_terms(model, p, examples, h.latent_mask, h.key) for p in (start, params)]
    before, after = (-float(jnp.mean(each.distortion + each.rate)) for each in terms)
    assert after > before + 10
    assert exact.mean() - 5 < after < exact.mean()


def test_many_draws_find_the_likelihood_of_every_example(trained, exact):
    estimate = nll(trained, jax.random.key(1), 5000)
    assert np.abs(estimate + exact).max() < 0.05
    assert abs(np.mean(estimate) + exact.mean()) < 0.005


def test_every_bound_lies_under_the_likelihood_and_rises_with_the_draws(trained, exact):
    model, params, h, examples = trained
    keys = jax.random.split(jax.random.key(2), (8, N))
    bounds = {}
    for count in COUNTS:

        @jax.jit
        def losses(keys, count=count):
            return importance.importance_weighted_loss(
                model,
                params,
                examples.x,
                examples.c,
                keys,
                h,
                num_samples=count,
                doubly_reparameterized=False,
            ).loss

        bounds[count] = -np.stack([losses(some) for some in keys])
    gaps = [exact - bounds[count].mean(axis=0) for count in COUNTS]
    means = [gap.mean() for gap in gaps]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.1
    error = np.sqrt(bounds[COUNTS[-1]].var(axis=0, ddof=1).mean() / (8 * N))
    assert error < 0.005
    assert means[-1] > -3 * error
    elbo = jax.jit(
        lambda keys: registry.negative_beta_elbo(model, params, examples.x, examples.c, keys, h).loss
    )
    closed_form = -np.stack([elbo(some) for some in keys])
    assert closed_form.mean() < exact.mean()
    error = (closed_form - bounds[1]).std() / np.sqrt(closed_form.size)
    assert abs(closed_form.mean() - bounds[1].mean()) < 4 * error


# Digits


@pytest.fixture(scope="module")
def digits_model(make_sweep, digits):
    """A model of digits after some training, its parameters, mask, and test examples."""
    model, h, data = make_sweep(Member(latent_dim=3), hidden=(64,))
    h = jax.tree.map(lambda a: a[0], h)
    params = jax.jit(population.make_train(model, num_steps=400))(h, data).params
    examples = evaluation.on_device(digits.test.take(np.arange(50)), digits.x_max)
    return model, params, h, examples


def test_bounds_on_digits_rise_towards_the_estimate_of_many_draws(digits_model):
    bounds = [-nll(digits_model, jax.random.key(count), count).mean() for count in (*COUNTS, 5000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[1] - 0.1
    assert bounds[-1] - bounds[-2] < 0.1


def test_one_draw_is_the_elbo_under_that_draw(digits_model):
    model, params, h, examples = digits_model
    key, rows = jax.random.key(4), jnp.arange(50)
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), 0))(rows)
    x, c = examples.take(rows)
    q, z, log_likelihood, _ = jax.jit(draw, static_argnums=0)(model, params, x, c, keys, h.latent_mask)
    mean, scale = (np.asarray(a, np.float64) for a in (q.mean, jnp.exp(0.5 * q.logvar)))
    z = np.asarray(z, np.float64)
    kl = (stats.norm.logpdf(z, mean, scale) - stats.norm.logpdf(z)).sum(axis=1)
    np.testing.assert_allclose(-nll(digits_model, key, 1), log_likelihood - kl, rtol=1e-5)
