"""Objectives against their formulas, written once more in numpy or without the tricks."""

import dataclasses
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cvae_jax import losses
from cvae_jax.conditions.kinds import Label
from cvae_jax.config import Config, Member
from cvae_jax.errors import SettingError
from cvae_jax.hparams import hparams
from cvae_jax.likelihoods import families
from cvae_jax.losses import reparameterize
from cvae_jax.model import CVAE, Gaussian, decode, encode
from cvae_jax.objectives import importance, registry
from cvae_jax.training import population

B, Z, USED = 4, 3, 2
NUM_EXAMPLES = 50
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (B, 8, 8, 1)), jnp.float32)
C = jnp.arange(B)
KEYS = jax.random.split(jax.random.key(1), B)


@cache
def build(**config):
    model = CVAE(Config(**config), shape=(8, 8, 1), condition=Label(10), capacity=Z)
    params = jax.jit(model.init)(jax.random.key(0), X, C, jnp.ones(Z, bool), jax.random.key(2))
    # The initial posterior is all but the prior: move it.
    params = jax.tree.map(
        lambda leaf: leaf + 0.02 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )
    return model, params


def settings(latent_dim=USED, **member):
    return hparams(Member(latent_dim=latent_dim, **member), capacity=Z, steps_per_epoch=10)


def terms(model, params, h, keys=KEYS):
    return compiled(model)(params, X, C, keys, h)


@cache
def compiled(model):
    return jax.jit(partial(registry.objective(model.config, NUM_EXAMPLES), model))


def kl_per_latent(model, params, h):
    q = encode(model, params, X, C, h.latent_mask)
    mean, variance = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.logvar, np.float64))
    return 0.5 * (mean**2 + variance - 1 - np.log(variance))


# Schedules


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("linear", {0: 0.0, 1: 0.4, 5: 2.0, 9: 3.6, 10: 4.0, 11: 4.0, 1000: 4.0}),
        ("cosine", {0: 0.0, 5: 2.0, 2: 2 - 2 * np.cos(0.2 * np.pi), 10: 4.0, 15: 4.0}),
        ("cyclical", {0: 0.0, 1: 0.8, 5: 4.0, 9: 4.0, 10: 0.0, 11: 0.8, 25: 4.0}),
    ],
)
def test_beta_follows_its_schedule(schedule, values):
    h = settings(beta=4.0, warmup_epochs=1.0)
    for step, value in values.items():
        beta = registry.annealed(Config(schedule=schedule), h, jnp.int32(step)).beta
        np.testing.assert_allclose(beta, value, rtol=1e-5, atol=1e-6)


def test_the_warm_up_begins_after_the_condition():
    h = settings(beta=4.0, warmup_epochs=1.0, condition_first_epochs=2.0)
    betas = [float(registry.annealed(Config(), h, jnp.int32(step)).beta) for step in (0, 20, 25, 30, 40)]
    np.testing.assert_allclose(betas, [0, 0, 2, 4, 4], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "cyclical"])
def test_without_a_warm_up_beta_starts_at_its_value(schedule):
    for step in (0, 1, 7):
        assert registry.annealed(Config(schedule=schedule), settings(beta=4.0), jnp.int32(step)).beta == 4.0


def test_the_schedule_of_capacity_raises_its_target_alone():
    h = settings(beta=4.0, kl_target=20.0, warmup_epochs=1.0)
    at_step = registry.annealed(Config(objective="capacity"), h, jnp.int32(5))
    assert (float(at_step.kl_target), float(at_step.beta)) == (10.0, 4.0)


# Free bits and capacity


def test_free_bits_are_floors_of_the_batch_means_and_no_part_of_the_rate():
    model, params = build(objective="free_bits")
    kl = kl_per_latent(model, params, settings())[:, :USED]
    means = kl.mean(axis=0)
    floor = means.mean()  # between the two latents
    assert means.min() < floor < means.max()
    result = terms(model, params, settings(beta=3.0, free_bits=float(floor)))
    expected = np.mean(result.distortion) + 3.0 * np.maximum(means, floor).sum()
    np.testing.assert_allclose(np.mean(result.loss), expected, rtol=1e-5)
    np.testing.assert_allclose(result.rate, kl.sum(axis=1), rtol=1e-4)


def test_a_latent_below_its_floor_has_no_gradient_from_the_rate():
    model, params = build(objective="free_bits")

    def loss(params, free_bits):
        h = settings(beta=1000.0, free_bits=free_bits)
        return jnp.mean(registry.free_bits_loss(model, params, X, C, KEYS, h).loss)

    h = settings(beta=0.0)
    floored = jax.grad(loss)(params, 100.0)
    alone = jax.grad(lambda p: jnp.mean(registry.negative_beta_elbo(model, p, X, C, KEYS, h).loss))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), floored, alone)


def test_no_free_bits_are_the_elbo():
    model, params = build(objective="free_bits")
    elbo, _ = build()
    h = settings(beta=2.0)
    for a, b in zip(*(jax.tree.leaves(terms(m, params, h)) for m in (model, elbo)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_capacity_is_the_distance_of_the_mean_rate_to_its_target():
    model, params = build(objective="capacity")
    rate = kl_per_latent(model, params, settings()).sum(axis=1).mean()
    for target in (0.5 * rate, 2.0 * rate):
        result = terms(model, params, settings(beta=7.0, kl_target=float(target)))
        expected = np.mean(result.distortion) + 7.0 * abs(rate - target)
        np.testing.assert_allclose(np.mean(result.loss), expected, rtol=1e-5)


# Importance weighting


def log_weights(model, params, h, keys, num_samples):
    """log wⱼ of every example, by scipy, and the draws they belong to."""
    q = encode(model, params, X, C, h.latent_mask)
    keys = jax.vmap(lambda key: jax.random.split(key, num_samples))(keys)
    z = np.stack([
        np.stack([reparameterize(k, m, v) for k in row])
        for row, m, v in zip(keys, q.mean, q.logvar, strict=True)
    ])  # fmt: skip
    rows = []
    for j in range(num_samples):
        logits = np.asarray(decode(model, params, jnp.asarray(z[:, j]), C, h.latent_mask), np.float64)
        log_likelihood = stats.bernoulli.logpmf(X, 1 / (1 + np.exp(-logits))).sum(axis=(1, 2, 3))
        used = z[:, j, :USED].astype(np.float64)
        mean, scale = (np.asarray(a, np.float64)[:, :USED] for a in (q.mean, jnp.exp(0.5 * q.logvar)))
        ratio = (stats.norm.logpdf(used) - stats.norm.logpdf(used, mean, scale)).sum(axis=1)
        rows.append(log_likelihood + float(h.beta) * ratio)
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_bound_is_the_mean_of_the_weights(objective, num_samples):
    model, params = build(objective=objective, num_samples=num_samples)
    h = settings(beta=1.5)
    weights = log_weights(model, params, h, KEYS, num_samples)
    expected = np.log(np.mean(np.exp(weights - weights.max()), axis=1)) + weights.max()
    np.testing.assert_allclose(terms(model, params, h).loss, -expected, rtol=1e-5)


def test_more_draws_tighten_the_bound():
    model, params = build(objective="iwae", num_samples=1)
    many = dataclasses.replace(model, config=Config(objective="iwae", num_samples=50))
    means = [
        np.mean(
            [terms(m, params, settings(), jax.random.split(jax.random.key(i), B)).loss for i in range(20)]
        )
        for m in (model, many)
    ]
    assert means[1] < means[0] - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_dreg_leaves_the_decoder_alone_and_weighs_the_encoders_draws_anew(beta):
    h = settings(beta=beta)
    model, params = build(objective="dreg", num_samples=3)
    plain, _ = build(objective="iwae", num_samples=3)

    def gradient(model):
        return jax.grad(lambda p: jnp.mean(terms(model, p, h).loss))(params)["params"]

    def by_hand(params):
        """The estimator of the paper, for any beta, with the weights as constants."""
        frozen = jax.lax.stop_gradient(params)
        q = encode(model, params, X, C, h.latent_mask)
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(KEYS)
        z = jax.vmap(lambda keys, m, v: jax.vmap(reparameterize, (0, None, None))(keys, m, v))(keys, *q)
        fixed = jax.lax.stop_gradient(q)

        def log_weight(z):
            logits = decode(model, frozen, z, C, h.latent_mask)
            log_likelihood = jax.vmap(model.likelihood.log_prob)(logits, X)
            log_prior = -0.5 * jnp.square(z)
            log_q = -0.5 * (jnp.square(z - fixed.mean) * jnp.exp(-fixed.logvar) + fixed.logvar)
            return log_likelihood + h.beta * jnp.sum(jnp.where(h.latent_mask, log_prior - log_q, 0.0), axis=1)

        weights = jax.vmap(log_weight, 1, 1)(z)
        normalized = jax.lax.stop_gradient(jax.nn.softmax(weights, axis=1))
        factors = normalized * (1.0 - beta + beta * normalized)
        return -jnp.mean(jnp.sum(factors * weights, axis=1))

    ours, iwae, expected = gradient(model), gradient(plain), jax.grad(by_hand)(params)["params"]
    close = partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    jax.tree.map(close, ours["decoder"], iwae["decoder"])
    for part in ("encoder", "to_latents"):
        jax.tree.map(close, ours[part], expected[part])
    different = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ours["to_latents"], iwae["to_latents"])
    assert max(jax.tree.leaves(different)) > 1e-2


class TwoGaussians(nn.Module):
    """z ~ N(0, 1) or a learned Gaussian, x|z ~ N(s z, 1), q(z|x) = N(a x + b, e^v)."""

    learned_prior: bool = False

    @property
    def likelihood(self):
        return families.gaussian(1.0)

    def setup(self):
        for name, value in VALUES.items():
            setattr(self, name, self.param(name, nn.initializers.constant(value), ()))

    def encode(self, x, c, mask):
        mean = self.a * x.reshape(-1, 1) + self.b
        return Gaussian(mean, jnp.broadcast_to(self.v, mean.shape))

    def decode(self, z, c, mask):
        return self.s * z.reshape(-1, 1, 1, 1)

    def log_prior(self, z, c, mask):
        mean, logvar = (self.prior_mean, self.prior_logvar) if self.learned_prior else jnp.zeros(2)
        of_one = partial(losses.gaussian_log_likelihood, jnp.broadcast_to(mean, 1), logvar=logvar)
        return jax.vmap(jax.vmap(of_one))(z)


X_OF_TWO = 1.5
VALUES = {"a": 0.7, "b": 0.3, "v": np.log(2 / 3), "s": 1.0, "prior_mean": 0.4, "prior_logvar": -0.3}


def slopes_by_quadrature(beta, *, learned_prior):
    """Derivatives of the expected bound of two draws, by Gauss-Hermite quadrature over the noise of both."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def bound(a, b, v, s, prior_mean, prior_logvar):
        mean, scale = a * X_OF_TWO + b, np.exp(0.5 * v)
        z = mean + scale * nodes
        prior = (prior_mean, np.exp(0.5 * prior_logvar)) if learned_prior else (0.0, 1.0)
        ratio = stats.norm.logpdf(z, *prior) - stats.norm.logpdf(z, mean, scale)
        each = stats.norm.logpdf(X_OF_TWO, s * z) + beta * ratio
        pairs = np.logaddexp(each[:, None], each[None]) - np.log(2)
        return weights @ pairs @ weights

    step = 1e-5
    return {
        name: (bound(**VALUES | {name: value + step}) - bound(**VALUES | {name: value - step})) / (2 * step)
        for name, value in VALUES.items()
    }


@cache
def gradients_of_two_draws(*, learned_prior, doubly_reparameterized):
    """From β to the gradients of the bound under 20,000 pairs of draws."""
    model = TwoGaussians(learned_prior=learned_prior)
    x, c = jnp.full((1, 1, 1, 1), X_OF_TWO), jnp.zeros(1, jnp.int32)
    params = {"params": {name: jnp.float32(value) for name, value in VALUES.items()}}
    one_latent = dataclasses.replace(settings(), latent_mask=jnp.ones(1, bool))

    def bound(params, key, beta):
        h = dataclasses.replace(one_latent, beta=beta)
        return -importance.importance_weighted_loss(
            model, params, x, c, key[None], h, num_samples=2, doubly_reparameterized=doubly_reparameterized
        ).loss[0]

    keys = jax.random.split(jax.random.key(3), 20_000)
    return jax.jit(lambda beta: jax.vmap(jax.grad(bound), (None, 0, None))(params, keys, beta)["params"])


@pytest.mark.parametrize("learned_prior", [False, True])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_dreg_has_the_gradient_of_the_bound_with_less_noise(beta, learned_prior):
    slopes = slopes_by_quadrature(beta, learned_prior=learned_prior)
    iwae, dreg = (
        {
            name: np.asarray(each, np.float64)
            for name, each in gradients_of_two_draws(
                learned_prior=learned_prior, doubly_reparameterized=doubly
            )(jnp.float32(beta)).items()
        }
        for doubly in (False, True)
    )
    for name, slope in slopes.items():
        for estimates in (iwae[name], dreg[name]):
            error = estimates.std() / np.sqrt(len(estimates))
            assert error < 0.03
            assert abs(estimates.mean() - slope) <= 4 * error, name
    for name in ("a", "b", "v"):
        assert dreg[name].var() < (0.1 if beta == 1.0 else 0.5) * iwae[name].var()
    for name in ("s", "prior_mean", "prior_logvar"):
        np.testing.assert_allclose(dreg[name], iwae[name], rtol=1e-4, atol=1e-5)


# Forward mode


@pytest.mark.parametrize(
    "fields",
    [{}, pytest.param({"network": "conv"}, marks=pytest.mark.slow), {"objective": "dreg", "num_samples": 3}],
    ids=["mlp", "conv", "dreg"],
)
def test_a_derivative_along_a_direction_is_the_gradients(fields):
    model, params = build(**fields)
    h = settings(beta=0.5)
    direction = jax.tree.map(lambda a: jnp.sin(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), params)

    def loss(params):
        return jnp.mean(terms(model, params, h).loss)

    _, along = jax.jit(lambda p, d: jax.jvp(loss, (p,), (d,)))(params, direction)
    products = jax.tree.map(jnp.vdot, jax.jit(jax.grad(loss))(params), direction)
    np.testing.assert_allclose(along, sum(jax.tree.leaves(products)), rtol=1e-3)


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "iwae", "num_samples": 0}, "num_samples is 0, expected a whole number ≥ 1"),
        ({"num_samples": 5}, "num_samples is 5, expected 1 with the objective elbo"),
        ({"objective": "vae"}, "objective is 'vae', expected one of elbo, free_bits"),
        ({"schedule": "square"}, "schedule is 'square', expected one of linear"),
    ],
)
def test_settings_that_no_objective_takes_are_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        Config(**fields)


@pytest.mark.parametrize("field", ["free_bits", "kl_target"])
def test_negative_nats_are_refused(field):
    with pytest.raises(SettingError, match=f"{field} is -1.0, expected a finite number ≥ 0"):
        Member(**{field: -1.0})


# In a sweep


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"objective": "free_bits"}, marks=pytest.mark.slow),
        pytest.param({"objective": "capacity"}, marks=pytest.mark.slow),
        pytest.param({"objective": "dreg", "num_samples": 2}, marks=pytest.mark.slow),
        pytest.param({"objective": "tcvae"}, marks=pytest.mark.slow),
        pytest.param({"objective": "dipvae_ii"}, marks=pytest.mark.slow),
        pytest.param({"objective": "factorvae", "discriminator_width": 16}, marks=pytest.mark.slow),
        pytest.param({"objective": "multirate"}, marks=pytest.mark.slow),
    ],
    ids=lambda fields: fields["objective"],
)
# The first has fewer latents than the sweep has room for.
@pytest.mark.parametrize("i", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_member_equals_its_solo_run(make_sweep, fields, i):
    warmup_epochs = 0.0 if fields["objective"] == "multirate" else 0.1
    members = [
        Member(beta=2.0, latent_dim=2, free_bits=0.1, kl_target=3.0, warmup_epochs=warmup_epochs),
        Member(beta=0.5, latent_dim=4, free_bits=0.5, kl_target=9.0, tc_weight=3.0, beta_min=0.3, seed=1),
    ]

    def trained(*members):
        model, h, data = make_sweep(*members, schedule="cosine", **fields)
        return population.run_steps(model, population.init(model, h), h, data, jnp.int32(4)).members

    together, alone = trained(*members), trained(members[i])
    np.testing.assert_allclose(together.sums.loss[i], alone.sums.loss[0], rtol=1e-5)
    cut = [
        population.as_alone(jax.tree.map(lambda leaf, j=j: leaf[j], state), members[i]).params
        for state, j in ((together, i), (alone, 0))
    ]
    for a, b in zip(*map(jax.tree.leaves, cut), strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)
