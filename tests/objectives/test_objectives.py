"""Objectives against their formulas, written once more in numpy or without the tricks."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import decode, encode, init
from scipy import stats

from cvae_jax import losses
from cvae_jax.conditions import Label
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import Bernoulli, Gaussian
from cvae_jax.losses import reparameterize
from cvae_jax.model import CVAE, FlatModel, Inference
from cvae_jax.networks import MLP, Conv
from cvae_jax.nn.latent import Gaussian as Posterior
from cvae_jax.objectives import Batch, Capacity, Dreg, Elbo, FreeBits, Iwae
from cvae_jax.options import with_values
from cvae_jax.priors import Standard
from cvae_jax.training import population
from cvae_jax.training.config import at, from_flat
from cvae_jax.training.schedules import Time

B, Z, USED = 4, 3, 2
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (B, 8, 8, 1)), jnp.float32)
C = jnp.arange(B)
KEYS = jax.random.split(jax.random.key(1), B)


@cache
def build(network=MLP()):  # noqa: B008
    model = CVAE(network, Bernoulli(), Standard(), Label(10), shape=(8, 8, 1), capacity=Z)
    params = init(model, jax.random.key(0), jnp.arange(Z) < USED)
    # The initial posterior is all but the prior: move it.
    moved = jax.tree.map(
        lambda leaf: leaf + 0.02 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params["params"]
    )
    return model, params | {"params": moved}


@partial(jax.jit, static_argnums=0)
def terms(model, params, objective, keys=KEYS):
    objective = jax.tree.map(jnp.float32, objective)
    return objective.loss(model, params, Batch(X, C, keys, jax.random.key(9), num_examples=50))


def kl_per_latent(model, params):
    q = encode(model, params, X, C)
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
    config = from_flat(beta=4.0, warmup_epochs=1.0, schedule=schedule)
    for step, value in values.items():
        np.testing.assert_allclose(beta_at(config, step), value, rtol=1e-5, atol=1e-6)


def beta_at(config, step, delay=0.0):
    return at(config, Time(jnp.int32(step), delay, steps_per_epoch=10)).objective.beta


def test_the_warm_up_begins_after_the_condition():
    config = from_flat(beta=4.0, warmup_epochs=1.0, condition_first_epochs=2.0)
    (delay,) = (hook.delay() for hook in config.hooks)
    betas = [float(beta_at(config, step, delay)) for step in (0, 20, 25, 30, 40)]
    np.testing.assert_allclose(betas, [0, 0, 2, 4, 4], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "cyclical"])
def test_without_a_warm_up_beta_starts_at_its_value(schedule):
    for step in (0, 1, 7):
        assert beta_at(from_flat(beta=4.0, schedule=schedule), step) == 4.0


def test_the_schedule_of_capacity_raises_its_target_alone():
    config = from_flat(objective="capacity", beta=4.0, kl_target=20.0, warmup_epochs=1.0)
    at_step = at(config, Time(jnp.int32(5), steps_per_epoch=10)).objective
    assert (float(at_step.kl_target), float(at_step.beta)) == (10.0, 4.0)


# Free bits and capacity


def test_free_bits_are_floors_of_the_batch_means_and_no_part_of_the_rate():
    model, params = build()
    kl = kl_per_latent(model, params)[:, :USED]
    means = kl.mean(axis=0)
    floor = means.mean()  # between the two latents
    assert means.min() < floor < means.max()
    result = terms(model, params, FreeBits(beta=3.0, free_bits=float(floor)))
    expected = np.mean(result.distortion) + 3.0 * np.maximum(means, floor).sum()
    np.testing.assert_allclose(np.mean(result.loss), expected, rtol=1e-5)
    np.testing.assert_allclose(result.rate, kl.sum(axis=1), rtol=1e-4)


def gradient(model, params, objective):
    """Of the mean loss, in the collection `params`."""
    return jax.grad(lambda inner: jnp.mean(terms(model, params | {"params": inner}, objective).loss))(
        params["params"]
    )


def test_a_latent_below_its_floor_has_no_gradient_from_the_rate():
    model, params = build()
    floored = gradient(model, params, FreeBits(beta=1000.0, free_bits=100.0))
    alone = gradient(model, params, Elbo(beta=0.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), floored, alone)


def test_no_free_bits_are_the_elbo():
    model, params = build()
    both = (terms(model, params, objective) for objective in (FreeBits(beta=2.0), Elbo(beta=2.0)))
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_capacity_is_the_distance_of_the_mean_rate_to_its_target():
    model, params = build()
    rate = kl_per_latent(model, params).sum(axis=1).mean()
    for target in (0.5 * rate, 2.0 * rate):
        result = terms(model, params, Capacity(beta=7.0, kl_target=float(target)))
        expected = np.mean(result.distortion) + 7.0 * abs(rate - target)
        np.testing.assert_allclose(np.mean(result.loss), expected, rtol=1e-5)


# Importance weighting


def log_weights(model, params, beta, keys, num_samples):
    """log wⱼ of every example, by scipy, and the draws they belong to."""
    q = encode(model, params, X, C)
    keys = jax.vmap(lambda key: jax.random.split(key, num_samples))(keys)
    z = np.stack([
        np.stack([reparameterize(k, m, v) for k in row])
        for row, m, v in zip(keys, q.mean, q.logvar, strict=True)
    ])  # fmt: skip
    rows = []
    for j in range(num_samples):
        logits = np.asarray(decode(model, params, jnp.asarray(z[:, j]), C), np.float64)
        log_likelihood = stats.bernoulli.logpmf(X, 1 / (1 + np.exp(-logits))).sum(axis=(1, 2, 3))
        used = z[:, j, :USED].astype(np.float64)
        mean, scale = (np.asarray(a, np.float64)[:, :USED] for a in (q.mean, jnp.exp(0.5 * q.logvar)))
        ratio = (stats.norm.logpdf(used) - stats.norm.logpdf(used, mean, scale)).sum(axis=1)
        rows.append(log_likelihood + beta * ratio)
    return np.stack(rows, axis=1)


@pytest.mark.parametrize("objective", [Iwae, Dreg])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_bound_is_the_mean_of_the_weights(objective, num_samples):
    model, params = build()
    weights = log_weights(model, params, 1.5, KEYS, num_samples)
    expected = np.log(np.mean(np.exp(weights - weights.max()), axis=1)) + weights.max()
    result = terms(model, params, objective(beta=1.5, num_samples=num_samples))
    np.testing.assert_allclose(result.loss, -expected, rtol=1e-5)


def test_more_draws_tighten_the_bound():
    model, params = build()
    means = [
        np.mean([
            terms(model, params, Iwae(num_samples=k), jax.random.split(jax.random.key(i), B)).loss
            for i in range(20)
        ])
        for k in (1, 50)
    ]  # fmt: skip
    assert means[1] < means[0] - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_dreg_leaves_the_decoder_alone_and_weighs_the_encoders_draws_anew(beta):
    model, params = build()
    mask = model.latent_mask(params)

    def by_hand(inner):
        """The estimator of the paper, for any beta, with the weights as constants."""
        frozen = jax.lax.stop_gradient(params | {"params": inner})
        q = encode(model, params | {"params": inner}, X, C)
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(KEYS)
        z = jax.vmap(lambda keys, m, v: jax.vmap(reparameterize, (0, None, None))(keys, m, v))(keys, *q)
        fixed = jax.lax.stop_gradient(q)

        def log_weight(z):
            logits = decode(model, frozen, z, C)
            log_likelihood = jax.vmap(model.likelihood.log_prob)(logits, X)
            log_prior = -0.5 * jnp.square(z)
            log_q = -0.5 * (jnp.square(z - fixed.mean) * jnp.exp(-fixed.logvar) + fixed.logvar)
            return log_likelihood + beta * jnp.sum(jnp.where(mask, log_prior - log_q, 0.0), axis=1)

        weights = jax.vmap(log_weight, 1, 1)(z)
        normalized = jax.lax.stop_gradient(jax.nn.softmax(weights, axis=1))
        factors = normalized * (1.0 - beta + beta * normalized)
        return -jnp.mean(jnp.sum(factors * weights, axis=1))

    ours, iwae = (gradient(model, params, each(beta=beta, num_samples=3)) for each in (Dreg, Iwae))
    expected = jax.grad(by_hand)(params["params"])
    close = partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    jax.tree.map(close, ours["decoder"], iwae["decoder"])
    for part in ("encoder", "to_latents"):
        jax.tree.map(close, ours[part], expected[part])
    different = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ours["to_latents"], iwae["to_latents"])
    assert max(jax.tree.leaves(different)) > 1e-2


@dataclasses.dataclass(frozen=True)
class TwoGaussians(FlatModel):
    """z ~ N(0, 1) or a learned Gaussian, x|z ~ N(s z, 1), q(z|x) = N(a x + b, e^v)."""

    learned_prior: bool = False

    flat_latents = True
    likelihood, condition, shape, capacity = Gaussian(1.0), None, (1, 1, 1), 1

    def embed(self, params, c):
        return c

    def encode(self, params, x, c):
        mean = params["a"] * x.reshape(-1, 1) + params["b"]
        return Posterior(mean, jnp.broadcast_to(params["v"], mean.shape))

    def infer(self, params, x, c, keys):
        q = self.encode(params, x, c)
        z = jax.vmap(reparameterize)(keys, q.mean, q.logvar)
        log_q = jax.vmap(losses.gaussian_log_likelihood)(q.mean, z, q.logvar)
        log_p = self.log_prior(params, z, c)
        return Inference(z, (log_q - log_p)[:, None], log_q, log_p, q)

    def decode(self, params, z, c):
        return params["s"] * z.reshape(-1, 1, 1, 1)

    def log_prob(self, outputs, x):
        return self.likelihood.log_probs(outputs, x)

    def log_prior(self, params, z, c):
        mean, logvar = (params["prior_mean"], params["prior_logvar"]) if self.learned_prior else jnp.zeros(2)
        of_one = partial(losses.gaussian_log_likelihood, jnp.broadcast_to(mean, 1), logvar=logvar)
        return jax.vmap(of_one)(z)

    def latent_mask(self, params):
        return jnp.ones(1, bool)


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
    params = {name: jnp.float32(value) for name, value in VALUES.items()}
    objective = (Dreg if doubly_reparameterized else Iwae)(num_samples=2)

    def bound(params, key, beta):
        batch = Batch(x, c, key[None], key)
        return -with_values(objective, beta=beta).loss(model, params, batch).loss[0]

    keys = jax.random.split(jax.random.key(3), 20_000)
    return jax.jit(lambda beta: jax.vmap(jax.grad(bound), (None, 0, None))(params, keys, beta))


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
    ("network", "objective"),
    [
        (MLP(), Elbo(beta=0.5)),
        pytest.param(Conv(), Elbo(beta=0.5), marks=pytest.mark.slow),
        (MLP(), Dreg(beta=0.5, num_samples=3)),
    ],
    ids=["mlp", "conv", "dreg"],
)
def test_a_derivative_along_a_direction_is_the_gradients(network, objective):
    model, params = build(network)
    inner = params["params"]
    direction = jax.tree.map(lambda a: jnp.sin(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), inner)

    def loss(inner):
        return jnp.mean(terms(model, params | {"params": inner}, objective).loss)

    _, along = jax.jit(lambda p, d: jax.jvp(loss, (p,), (d,)))(inner, direction)
    products = jax.tree.map(jnp.vdot, jax.jit(jax.grad(loss))(inner), direction)
    np.testing.assert_allclose(along, sum(jax.tree.leaves(products)), rtol=1e-3)


# Bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "iwae", "num_samples": 0}, "num_samples is 0, expected a whole number ≥ 1"),
        ({"num_samples": 5}, "num_samples is 5, expected none with the objective elbo: .* iwae or dreg"),
        ({"objective": "vae"}, "objective is 'vae', expected one of elbo, free_bits"),
        ({"schedule": "square"}, "schedule is 'square', expected one of linear"),
    ],
)
def test_settings_that_no_objective_takes_are_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**fields)


@pytest.mark.parametrize(("objective", "field"), [("free_bits", "free_bits"), ("capacity", "kl_target")])
def test_negative_nats_are_refused(objective, field):
    with pytest.raises(SettingError, match=f"{field} is -1.0, expected a finite number ≥ 0"):
        from_flat(objective=objective, **{field: -1.0})


# In a sweep


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ({"objective": "free_bits"}, {"free_bits": 0.1}, {"free_bits": 0.5}),
        ({"objective": "capacity"}, {"kl_target": 3.0}, {"kl_target": 9.0}),
        ({"objective": "dreg", "num_samples": 2}, {}, {}),
        ({"objective": "tcvae"}, {}, {}),
        ({"objective": "dipvae_ii"}, {}, {}),
        ({"objective": "factorvae", "discriminator_width": 16}, {}, {"tc_weight": 3.0}),
        ({"objective": "multirate"}, {}, {"beta_min": 0.3}),
    ],
    ids=lambda value: value.get("objective", ""),
)
# The first has fewer latents than the sweep has room for.
@pytest.mark.parametrize("i", [0, 1])
def test_a_member_equals_its_solo_run(make_sweep, fields, first, second, i):
    warmup_epochs = 0.0 if fields["objective"] == "multirate" else 0.1
    members = [
        {"beta": 2.0, "latent_dim": 2, "warmup_epochs": warmup_epochs} | first,
        {"beta": 0.5, "latent_dim": 4, "seed": 1} | second,
    ]
    shared = {"schedule": "cosine", "batch_size": 32} | fields

    def trained(*members):
        model, h, data = make_sweep(*members, **shared)
        return population.run_steps(model, population.init(model, h), h, data, jnp.int32(4)).members

    together, alone = trained(*members), trained(members[i])
    np.testing.assert_allclose(together.sums.loss[i], alone.sums.loss[0], rtol=1e-5)
    configs = [from_flat(**shared, **each) for each in members]
    cut = [
        population.solo_state(jax.tree.map(lambda leaf, j=j: leaf[j], state), of, j).params
        for state, of, j in ((together, configs, i), (alone, configs[i : i + 1], 0))
    ]
    for a, b in zip(*map(jax.tree.leaves, cut), strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(np.float32(a) - np.float32(b)) <= 1e-4 * np.linalg.norm(np.float32(b))
