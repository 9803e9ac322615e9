"""Learned priors are densities that their draws follow, and what is trained with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import (
    decode,
    draw,
    encode,
    from_noise,
    log_likelihood_of,
    log_prior,
    rate,
    sample_prior,
    to_noise,
)
from scipy import stats

from cvae_jax.conditions.kinds import Label
from cvae_jax.config import Config, Member
from cvae_jax.evaluation import bounds
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.hparams import hparams
from cvae_jax.losses import gaussian_kl
from cvae_jax.model import CVAE
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives import registry
from cvae_jax.priors.mixture import Mixture, draw_from, matched_divergence, mixture_log_density, stretched
from cvae_jax.training import population as sweep

SHAPE, Z = (8, 8, 1), 3
MASK = jnp.array([True, True, False])
LEARNED = ("conditional", "mixture", "vamp", "flow")
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(size=(4, *SHAPE)) > 0.5, jnp.float32)
C = jnp.array([0, 1, 2, 0])
KEYS = jax.random.split(jax.random.key(5), 4)


@functools.cache
def make(prior, **fields):
    config = Config(hidden=(16, 16), prior=prior, mixture_parts=6, pseudo_inputs=7, **fields)
    model = CVAE(config, SHAPE, Label(3), Z)
    params = jax.jit(model.init)(jax.random.key(0), X, C, MASK, jax.random.key(1))
    # Initial priors are all but standard: these are not.
    wave = lambda a: 0.05 * jnp.sin(jnp.arange(a.size, dtype=jnp.float32)).reshape(a.shape)  # noqa: E731
    return model, jax.tree.map(lambda a: a + wave(a), params)


def log_density(model, params, z, c):
    """log p(z|c) at many z, shape (n, 2), of one condition."""
    padded = jnp.pad(jnp.asarray(z, jnp.float32), ((0, 0), (0, 1)), constant_values=9.0)
    return np.asarray(log_prior(model, params, padded[None], jnp.full(1, c), MASK))[0]


@pytest.mark.parametrize(
    "prior", [pytest.param(p, marks=pytest.mark.slow) if p == "flow" else p for p in ("standard", *LEARNED)]
)
def test_densities_integrate_to_one(prior):
    model, params = make(prior)
    side = np.linspace(-25, 25, 501)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = np.exp(log_density(model, params, grid, 1)).sum() * (side[1] - side[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
def test_draws_follow_the_density(prior):
    """The share of draws in each quarter of the plane is what the density gives it."""
    model, params = make(prior)
    n = 20_000
    keys = jax.random.split(jax.random.key(8), n)
    drawn = np.asarray(sample_prior(model, params, keys, jnp.ones(n, jnp.int32), MASK))[:, :2]
    middle = np.median(drawn, axis=0)
    side = np.linspace(-12, 12, 401)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    mass = np.exp(log_density(model, params, grid, 1)) * (side[1] - side[0]) ** 2
    for quarter in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.mean(((drawn > middle) == quarter).all(axis=1))
        assert share == pytest.approx(mass[((grid > middle) == quarter).all(axis=1)].sum(), abs=0.02)


@pytest.mark.parametrize(
    "prior", [pytest.param(p, marks=pytest.mark.slow) if p == "flow" else p for p in LEARNED]
)
def test_noise_of_zero_mean_and_unit_variance_has_the_moments_of_the_draws(prior):
    model, params = make(prior)
    n = 200_000  # the flow's draws have a kurtosis of 14: 0.6 % of their deviation
    c = jnp.ones(n, jnp.int32)
    drawn = sample_prior(model, params, jax.random.split(jax.random.key(8), n), c, MASK)[:, :2]
    noise = jax.random.normal(jax.random.key(9), (n, Z))
    made = from_noise(model, params, noise, c, MASK)[:, :2]
    np.testing.assert_allclose(made.mean(axis=0), drawn.mean(axis=0), atol=0.04)
    np.testing.assert_allclose(made.std(axis=0), drawn.std(axis=0), rtol=0.03)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
def test_noise_is_found_again_in_what_it_made(prior):
    model, params = make(prior)
    noise = jax.random.normal(jax.random.key(9), (4, Z))
    z = from_noise(model, params, noise, C, MASK)
    found = to_noise(model, params, z, C, MASK)
    np.testing.assert_allclose(jnp.where(MASK, found, 0.0), jnp.where(MASK, noise, 0.0), atol=2e-5)


def likeliest_mean(model, params, c):
    mixture = model.apply(params, c, MASK, method=lambda m, c, mask: m.prior(m.embed(c).prior.e, mask))
    return mixture.parts.mean[:, jnp.argmax(mixture.log_weights[0])]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
def test_a_temperature_sharpens_the_choice_of_a_mixture_s_part(temperature):
    """Of weights w, part k is drawn with a share of wₖ^(1/T); of equal ones at 0 each as often."""
    weights = np.array([0.1, 0.3, 0.3, 0.3])
    parts = Gaussian(jnp.arange(4.0)[:, None], jnp.full((4, 1), -20.0))
    keys = jax.random.split(jax.random.key(5), 20_000)
    draws = jax.vmap(draw_from, (0, None, None))(keys, Mixture(jnp.log(weights), parts), temperature)
    found = np.bincount(np.rint(draws[:, 0]).astype(int), minlength=4) / len(keys)
    expected = weights ** (1 / temperature) if temperature else np.array([0.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.015)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
def test_a_temperature_scales_the_noise_of_draws(prior):
    """At 0 they are the middle of the prior, or of its likeliest part; at 1 what they are without one."""
    model, params = make(prior)
    n = 500
    keys, c = jax.random.split(jax.random.key(8), n), jnp.ones(n, jnp.int32)
    drawn = {t: np.asarray(sample_prior(model, params, keys, c, MASK, t))[:, :2] for t in (0.0, 0.5, 1.0)}
    np.testing.assert_array_equal(drawn[1.0], np.asarray(sample_prior(model, params, keys, c, MASK))[:, :2])
    middles = {
        "mixture": lambda: likeliest_mean(model, params, c[:1]),
        "vamp": lambda: model.apply(params, MASK, method=lambda m, mask: m.prior.mixture(mask).parts.mean),
    }.get(prior, lambda: from_noise(model, params, jnp.zeros((1, Z)), c[:1], MASK))()
    away = np.abs(drawn[0.0][:, None] - np.asarray(middles)[:, :2]).max(axis=2)
    assert away.min(axis=1).max() < 1e-5
    if prior not in ("flow", "mixture"):  # which is no linear map of noise, and may draw of another part
        np.testing.assert_allclose(drawn[0.5], (drawn[0.0] + drawn[1.0]) / 2, atol=1e-5)


def test_a_vamp_prior_is_the_even_mixture_of_its_parts():
    model, params = make("vamp")
    mixture = model.apply(params, MASK, method=lambda model, mask: model.prior.mixture(mask))
    np.testing.assert_allclose(np.exp(mixture.log_weights), np.full(7, 1 / 7), rtol=1e-6)
    check_mixture(model, params, mixture, c=0)


def test_a_mixture_prior_is_the_mixture_that_it_makes_of_the_condition():
    model, params = make("mixture")
    mixtures = model.apply(params, C, MASK, method=lambda m, c, mask: m.prior(m.embed(c).prior.e, mask))
    assert mixtures.parts.mean.shape == (4, 6, Z)
    np.testing.assert_allclose(np.exp(mixtures.log_weights).sum(axis=1), 1, rtol=1e-5)
    one, other = (jax.tree.map(lambda a, i=i: a[i], mixtures) for i in (0, 1))
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    assert np.ptp(one.log_weights) > 0.01
    check_mixture(model, params, one, c=0)


def check_mixture(model, params, mixture, c):
    z = RNG.normal(size=(5, 2))
    means, scales = (np.asarray(a)[:, :2] for a in (mixture.parts.mean, np.exp(0.5 * mixture.parts.logvar)))
    each = np.exp(stats.norm.logpdf(z[:, None], means, scales).sum(axis=2))
    expected = np.log(each @ np.exp(np.asarray(mixture.log_weights)))
    np.testing.assert_allclose(log_density(model, params, z, c), expected, rtol=1e-4)


@pytest.mark.parametrize("prior", LEARNED)
def test_the_rate_is_the_divergence_from_the_prior(prior):
    model, params = make(prior)
    q = encode(model, params, X, C, MASK)
    n = 4000
    keys = jax.random.split(jax.random.key(3), n)
    noise = jax.vmap(lambda key: jax.random.normal(key, q.mean.shape))(keys)
    z = q.mean + jnp.exp(0.5 * q.logvar) * noise
    rates = np.asarray(jax.vmap(lambda z: rate(model, params, q, z, C, MASK))(z))
    log_q = stats.norm.logpdf(np.asarray(z), np.asarray(q.mean), np.exp(0.5 * np.asarray(q.logvar)))[..., :2]
    log_p = np.asarray(log_prior(model, params, jnp.moveaxis(z, 0, 1), C, MASK)).T
    sampled = (log_q.sum(axis=2) - log_p).mean(axis=0)
    np.testing.assert_allclose(rates.mean(axis=0), sampled, atol=0.15)
    if prior == "conditional":
        p = model.apply(params, C, MASK, method=lambda m, c, mask: m.prior(m.embed(c).prior.e, mask))
        np.testing.assert_allclose(rates[0], jax.vmap(gaussian_kl)(*q, *p), rtol=1e-5)


# The first has fewer latents than the sweep has room for.
@pytest.mark.parametrize("i", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "prior",
    [pytest.param(p, marks=pytest.mark.slow) for p in LEARNED],
)
def test_a_member_equals_its_solo_run(make_sweep, prior, i):
    fields = {"prior": prior, "hidden": (16, 16), "mixture_parts": 3, "pseudo_inputs": 5}
    members = (Member(latent_dim=2, seed=1, condition_dropout=0.2), Member(latent_dim=4, beta=2.0))
    together, *_ = trained(make_sweep, members, **fields)
    alone, *_ = trained(make_sweep, members[i : i + 1], **fields)
    of_member = sweep.as_alone(jax.tree.map(lambda a: a[i], together.members), members[i])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[0], rtol=2e-3, atol=2e-4),
        of_member.params, alone.members.params,
    )  # fmt: skip


def trained(make_sweep, members, **fields):
    model, settings, data = make_sweep(*members, **fields)
    population = sweep.run_steps(model, sweep.init(model, settings), settings, data, jnp.int32(20))
    return population, model, settings


# Baselines and the hybrid


def test_a_gsnn_draws_from_its_prior_and_pays_no_rate():
    model, params = make("conditional", objective="gsnn")
    drawn = draw(model, params, X, C, KEYS, MASK)
    other = draw(model, params, 1 - X, C, KEYS, MASK)
    np.testing.assert_array_equal(drawn.q.mean, other.q.mean)
    np.testing.assert_array_equal(drawn.rate, 0)
    assert (drawn.q.mean[0] != drawn.q.mean[1]).any()


def test_a_deterministic_network_has_no_latents():
    model, params = make("standard", objective="nn")
    drawn = draw(model, params, X, C, KEYS, MASK)
    again = draw(model, params, X, C, KEYS[::-1], MASK)
    np.testing.assert_array_equal(drawn.log_likelihood, again.log_likelihood)
    np.testing.assert_array_equal(drawn.rate, 0)
    z = jnp.ones((4, Z))
    np.testing.assert_array_equal(decode(model, params, z, C, MASK), decode(model, params, 5 * z, C, MASK))


def test_mixtures_of_extreme_parts_have_finite_values_and_gradients():
    log_weights = jax.nn.log_softmax(jnp.array([0.0, -1e4]))
    plain = Mixture(log_weights, Gaussian(jnp.array([[0.0], [1e4]]), jnp.zeros((2, 1))))
    one, key = jnp.ones(1, bool), jax.random.key(0)
    functions = (
        lambda m: mixture_log_density(jnp.zeros(1), m, one),
        lambda m: mixture_log_density(jnp.full(1, 1e4), m, one),
        lambda m: matched_divergence(m, plain),
        lambda m: matched_divergence(plain, m),
        lambda m: jnp.sum(draw_from(key, m._replace(log_weights=log_weights[::-1]), 1.0)),
        lambda m: jnp.sum(stretched(jnp.ones(1), m)),
    )

    @jax.jit
    @jax.vmap
    def at(logvar):
        logvars = jnp.stack([jnp.zeros(1), logvar[None]])
        extreme = plain._replace(parts=plain.parts._replace(logvar=logvars))
        return [jax.value_and_grad(f)(extreme) for f in functions]

    for leaf in jax.tree.leaves(at(jnp.array([-1e4, -100.0, 100.0, 1e4]))):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_hybrid_loss_mixes_both(weight):
    model, params = make("conditional", objective="hybrid")
    h = hparams(Member(latent_dim=2, beta=0.7, cvae_weight=weight), capacity=Z, steps_per_epoch=1)
    terms = registry.objective(model.config, 4)(model, params, X, C, KEYS, h)
    of_posterior, of_prior = jnp.moveaxis(jax.vmap(jax.random.split)(KEYS), 1, 0)
    cvae = registry.negative_beta_elbo(model, params, X, C, of_posterior, h).loss
    z = sample_prior(model, params, of_prior, C, MASK)
    prediction = -log_likelihood_of(model, params, X, z, C, MASK)
    np.testing.assert_allclose(terms.loss, weight * cvae + (1 - weight) * prediction, rtol=1e-5)
    np.testing.assert_allclose(terms.parts["prediction"], prediction, rtol=1e-6)


@pytest.mark.parametrize(
    "prior", [pytest.param(p, marks=pytest.mark.slow) if p == "flow" else p for p in LEARNED]
)
def test_draws_of_prior_and_posterior_agree_on_the_likelihood(prior):
    model, params = make(prior)
    # Posterior and prior not far apart, and a decoder that z does not say much to: few draws of either suffice.
    params = jax.tree_util.tree_map_with_path(
        lambda path, a: 0.2 * a if any(p in jax.tree_util.keystr(path) for p in ("to_l", "FromL")) else a,
        params,
    )
    examples = Examples(X, C, jnp.float32(1))
    by = [
        bounds.importance_nll(
            model,
            params,
            examples,
            MASK,
            jax.random.key(1),
            num_samples=40_000,
            chunk=2000,
            proposal=proposal,
        )
        for proposal in ("prior", "posterior")
    ]
    np.testing.assert_allclose(by[0], by[1], atol=0.05)
