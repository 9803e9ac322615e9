"""A model of two levels of latents, from outside the package: trained, evaluated and sampled by the library."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import cvae_jax as cj
from cvae_jax.conditions import Label
from cvae_jax.data.examples import Examples
from cvae_jax.errors import SettingError
from cvae_jax.evaluation import bounds, latents, posteriors, sampling
from cvae_jax.likelihoods import Gaussian
from cvae_jax.losses import gaussian_kl, gaussian_log_density, reparameterize
from cvae_jax.model import Inference, Model
from cvae_jax.networks import Network
from cvae_jax.objectives import OBJECTIVES
from cvae_jax.runs.description import few_examples
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import model_of, trained_member
from cvae_jax.training import memory
from cvae_jax.training import population as sweep
from cvae_jax.training.config import from_flat
from cvae_jax.training.hparams import stack_hparams
from experiments.reports import results

SIGMA, TOP, LOW, PIXELS, CLASSES = 0.3, 2, 3, 64, 10
KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class TwoLevels(Model):
    """top ~ N(0, I), low ~ N(A top, I), x ~ N(B low + mean of the class, σ² I); all maps of q are linear, too."""

    shape: tuple[int, int, int] = (8, 8, 1)
    condition: Label = Label(CLASSES)
    capacity: int = 1
    flat_latents = False
    likelihood = Gaussian(SIGMA)

    def init(self, key, latent_mask):
        keys = jax.random.split(key, 6)
        sizes = {
            "A": (TOP, LOW), "B": (LOW, PIXELS), "x_to_top": (PIXELS, TOP), "x_to_low": (PIXELS, LOW),
            "top_to_low": (TOP, LOW), "class_means": (CLASSES, PIXELS),
        }  # fmt: skip
        weights = {
            name: 0.1 * jax.random.normal(key, size)
            for (name, size), key in zip(sizes.items(), keys, strict=True)
        }
        return {"params": weights | {"top_logvar": jnp.zeros(TOP), "low_logvar": jnp.zeros(LOW)}}

    def embed(self, params, c):
        return c if jnp.issubdtype(c.dtype, jnp.floating) else params["params"]["class_means"][c]

    def infer(self, params, x, c, keys):
        p = params["params"]
        residual = x.reshape(-1, PIXELS) - self.embed(params, c)
        top_keys, low_keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(keys)

        def draw(keys, mean, logvar):
            logvar = jnp.broadcast_to(logvar, mean.shape)
            z = jax.vmap(reparameterize)(keys, mean, logvar)
            return z, logvar, jnp.sum(gaussian_log_density(mean, z, logvar), axis=1)

        top_mean = residual @ p["x_to_top"]
        top, top_logvar, log_q_top = draw(top_keys, top_mean, p["top_logvar"])
        low_mean = residual @ p["x_to_low"] + top @ p["top_to_low"]
        low, low_logvar, log_q_low = draw(low_keys, low_mean, p["low_logvar"])
        prior_mean = top @ p["A"]
        zero = jnp.zeros(())
        log_p = jnp.sum(gaussian_log_density(zero, top, zero), axis=1)
        log_p += jnp.sum(gaussian_log_density(prior_mean, low, zero), axis=1)
        kl = jax.vmap(gaussian_kl)
        kl_top = kl(top_mean, top_logvar, jnp.zeros_like(top), jnp.zeros_like(top))
        kl_low = kl(low_mean, low_logvar, prior_mean, jnp.zeros_like(low))
        return Inference((top, low), (kl_top[:, None], kl_low[:, None]), log_q_top + log_q_low, log_p)

    def decode(self, params, z, c):
        means = z[1] @ params["params"]["B"] + self.embed(params, c)
        return means.reshape(-1, *self.shape)

    def log_prob(self, outputs, x):
        return self.likelihood.log_probs(outputs, x)

    def mean(self, outputs):
        return outputs

    def generate(self, params, c, keys, temperature=1.0):
        noise = temperature * jax.vmap(lambda key: jax.random.normal(key, (TOP + LOW,)))(keys)
        top = noise[:, :TOP]
        return top, top @ params["params"]["A"] + noise[:, TOP:]


@dataclasses.dataclass(frozen=True)
class Ladder(Network):
    """Makes a model of two levels of what else would be a CVAE."""

    def adapted(self, model):
        return TwoLevels(model.shape, model.condition, model.capacity)


MODEL = TwoLevels()


def covariance(params, noise=SIGMA):
    """Of x given the class."""
    a, b = (np.asarray(params["params"][name], np.float64) for name in "AB")
    return b.T @ (a.T @ a + np.eye(LOW)) @ b + noise**2 * np.eye(PIXELS)


def settings(**options):
    shared = {"network": Ladder(), "likelihood": Gaussian(SIGMA), "batch_size": 64, "learning_rate": 1e-2}
    return from_flat(**(shared | {"latent_dim": 1} | options))


@pytest.fixture(scope="module")
def data(make_sweep):
    return make_sweep({"likelihood": "gaussian"})[2]


@pytest.fixture(scope="module")
def validation(data):
    return Examples(data.examples.x[-200:], data.examples.c[-200:], data.examples.x_max)


@pytest.fixture(scope="module")
def trained(data):
    """A function from settings of members to their population after some steps."""

    def train(*members, num_steps=600):
        h = stack_hparams(members, capacity=1)
        population = sweep.init(MODEL, h)
        for _ in range(num_steps // 20):
            population = sweep.run_steps(MODEL, population, h, data, jnp.int32(20))
        return population, h

    return train


@pytest.fixture(scope="module")
def fitted(trained):
    """Parameters of two members, of the ELBO and with a higher β."""
    return trained(settings(), settings(beta=4.0, ema_decay=0.9))


def test_it_learns_by_the_elbo(fitted, data):
    population, _ = fitted
    fresh = sweep.init(MODEL, stack_hparams([settings()], capacity=1)).members.params
    params = jax.tree.map(lambda a: a[:1], population.members.params)
    before, after = (
        bounds.summarize(bounds.members_elbo_terms(MODEL, each, data.examples))[0] for each in (fresh, params)
    )
    assert after["elbo"] > before["elbo"] + 20
    assert after["rate"] > 1


def test_validation_and_the_best_parameters_are_of_the_bound(fitted, validation):
    population, h = fitted
    population = jax.tree.map(jnp.copy, population)
    expected = bounds.members_elbo_terms(MODEL, population.members.params, validation)
    population, train_terms, terms = sweep.end_epoch(
        MODEL, population, h, validation, jnp.int32(20), len(validation)
    )
    np.testing.assert_allclose(terms.rate[0], np.mean(expected.rate[0]), rtol=1e-5)
    np.testing.assert_allclose(terms.loss, terms.distortion + jnp.array([1.0, 4.0]) * terms.rate, rtol=1e-5)
    assert population.members.best.loss.tolist() == terms.loss.tolist()
    assert np.isfinite(train_terms.loss).all()


def test_importance_sampling_finds_the_likelihood(fitted, validation):
    params = jax.tree.map(lambda a: a[0], fitted[0].members.params)
    few = Examples(validation.x[:20], validation.c[:20], validation.x_max)
    x, c = few.take(jnp.arange(20))
    residual = np.asarray(x.reshape(20, PIXELS) - params["params"]["class_means"][c], np.float64)
    exact = -stats.multivariate_normal(np.zeros(PIXELS), covariance(params)).logpdf(residual)
    nll = bounds.importance_nll(MODEL, params, few, KEY, num_samples=5000)
    np.testing.assert_allclose(nll, exact, atol=0.1)
    elbo = bounds.elbo_terms(MODEL, params, few, KEY)
    assert np.mean(elbo.distortion + elbo.rate) > np.mean(exact)


@pytest.mark.slow
def test_more_draws_train_a_tighter_bound(trained, validation):
    iwae = settings(objective="iwae", num_samples=8)
    population, h = trained(iwae)
    params = jax.tree.map(lambda a: a[0], population.members.params)
    _, _, terms = sweep.end_epoch(
        MODEL, jax.tree.map(jnp.copy, population), h, validation, jnp.int32(20), len(validation)
    )
    # The loss is that of eight draws, distortion and rate are those of one.
    assert terms.loss[0] < terms.distortion[0] + terms.rate[0]
    assert np.isfinite(bounds.importance_nll(MODEL, params, validation, KEY, num_samples=20)).all()


def test_samples_have_the_moments_of_the_model(fitted):
    params = jax.tree.map(lambda a: a[0], fitted[0].members.params)
    images = np.asarray(sampling.generate(MODEL, params, KEY, jnp.full(20_000, 3)))
    flat = images.reshape(-1, PIXELS)
    np.testing.assert_allclose(flat.mean(axis=0), params["params"]["class_means"][3], atol=0.02)
    np.testing.assert_allclose(np.cov(flat.T), covariance(params, noise=0.0), atol=0.02)
    one = sampling.generate(MODEL, params, KEY, jnp.arange(2), temperature=0.0)
    np.testing.assert_allclose(one.reshape(2, -1), params["params"]["class_means"][:2], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"condition_first_epochs": 1.0, "warmup_epochs": 1.0},
        {"objective": "capacity", "kl_target": 3.0},
        {"objective": "hybrid", "prior": "conditional"},
    ],
    ids=["condition first", "capacity", "hybrid"],
)
def test_other_objectives_and_hooks_need_no_array_of_latents(trained, options):
    population, _ = trained(settings(**options), num_steps=20)
    assert population.members.diverged_step.tolist() == [-1]
    maps = population.members.params["params"]
    start = sweep.init(MODEL, stack_hparams([settings()], capacity=1)).members.params["params"]
    # Without z, nothing of the latents has a gradient.
    assert np.array_equal(maps["A"], start["A"]) == ("condition_first_epochs" in options)
    assert not np.array_equal(maps["class_means"], start["class_means"])


def test_the_plan_of_memory_knows_it():
    assert memory.member_bytes(MODEL, [settings()]) > 4 * memory.tree_bytes(MODEL.init(KEY, None))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_of_one_array_of_latents_refuse_it(digits, objective):
    needed = {"gsnn": {"prior": "conditional"}, "hybrid": {"prior": "conditional"}}.get(objective, {})
    config = from_flat(network=Ladder(), objective=objective, **needed)
    if objective in ("elbo", "capacity", "iwae", "hybrid"):
        assert sweep.build_model([config], digits) == TwoLevels(capacity=16)
    elif objective == "multirate":
        message = (
            "the objective MultiRate changes the networks of a CVAE, expected no other model, got TwoLevels"
        )
        with pytest.raises(SettingError, match=message):
            sweep.build_model([config], digits)
    else:
        message = f"the objective {objective}: expected a model with one array of latents"
        with pytest.raises(SettingError, match=message):
            sweep.build_model([config], digits)
        with pytest.raises(SettingError, match=message):
            sweep.init(MODEL, stack_hparams([config], capacity=16))


def test_evaluations_of_one_array_of_latents_refuse_it(fitted, validation):
    params = jax.tree.map(lambda a: a[0], fitted[0].members.params)
    z = jnp.zeros(TOP)
    for evaluate in (
        partial(posteriors.encode_examples, MODEL, params, validation),
        partial(latents.latent_terms, MODEL, params, validation, KEY),
        partial(sampling.traverse, MODEL, params, z, jnp.int32(0), latents=jnp.arange(TOP), values=z),
        partial(sampling.interpolate, MODEL, params, z, z, jnp.int32(0), steps=3),
    ):
        with pytest.raises(SettingError, match="expected a model with one array of latents"):
            evaluate()


def test_the_facade_trains_and_samples_it():
    x = np.random.default_rng(0).uniform(size=(60, 8, 8)).astype(np.float32)
    data = cj.from_arrays(x, np.arange(60) % 3)
    config = settings(batch_size=8, epochs=2)
    model = cj.fit(config, data)
    assert model.sample([0, 1, 2]).shape == (3, 8, 8, 1)
    metrics = model.evaluate(data, nll_samples=10)
    assert {"elbo", "rate", "distortion", "nll"} == set(metrics)
    assert metrics["elbo"] <= -metrics["nll"] + 5
    with pytest.raises(SettingError, match="the model has several levels of latents"):
        model.encode(x[:2], [0, 1])


def test_its_pictures_are_those_that_it_can_draw(fitted, digits, tmp_path):
    session = model_of(Run("train", (settings(),)), digits.description, few_examples(digits))
    trained = trained_member(session, session.parts[0], fitted[0], 0)
    names = results.write_pictures(session, trained, tmp_path)
    assert names == ["samples.png", "reconstructions.png"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
