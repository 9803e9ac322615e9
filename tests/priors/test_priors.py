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
    generate,
    infer,
    init,
    log_likelihood,
    log_prior,
    to_noise,
)
from scipy import stats

from cvae_jax.conditions import Label
from cvae_jax.data.examples import Examples
from cvae_jax.evaluation import bounds
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.losses import gaussian_kl
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives import Deterministic, Elbo, Gsnn, Hybrid
from cvae_jax.objectives.base import Batch
from cvae_jax.priors import Conditional, Flow, Mixture, Standard, Vamp
from cvae_jax.priors.gaussian_mixture import (
    GaussianMixture,
    mixture_log_density,
    sample_mixture,
    unstandardize,
)
from cvae_jax.training import population as sweep
from cvae_jax.training.config import from_flat

SHAPE, Z = (8, 8, 1), 3
MASK = jnp.array([True, True, False])
LEARNED = ("conditional", "mixture", "vamp", "flow")
OF_NAME = {
    "standard": Standard(), "conditional": Conditional(), "mixture": Mixture(6), "vamp": Vamp(7), "flow": Flow(),
}  # fmt: skip
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(size=(4, *SHAPE)) > 0.5, jnp.float32)
C = jnp.array([0, 1, 2, 0])
KEYS = jax.random.split(jax.random.key(5), 4)


@functools.cache
def make(prior, objective=None):
    model = CVAE(MLP((16, 16)), Bernoulli(), OF_NAME[prior], Label(3), SHAPE, Z)
    model = model if objective is None else objective.adapted(model)
    params = init(model, jax.random.key(0), MASK)
    # Initial priors are all but standard: these are not.
    wave = lambda a: 0.05 * jnp.sin(jnp.arange(a.size, dtype=jnp.float32)).reshape(a.shape)  # noqa: E731
    return model, params | {"params": jax.tree.map(lambda a: a + wave(a), params["params"])}


@functools.partial(jax.jit, static_argnums=0)
def prior_of(model, params, c):
    """What the prior's module makes of conditions: a Gaussian or a mixture each."""
    e = model.embed(params, c).prior.e
    return model.module.apply(params, e, method=lambda module, e: module.prior(e, module.mask.value))


def log_density_at(model, params, z, c):
    """log p(z|c) at many z, shape (n, 2), of one condition."""
    padded = jnp.pad(jnp.asarray(z, jnp.float32), ((0, 0), (0, 1)), constant_values=9.0)
    return np.asarray(log_prior(model, params, padded, jnp.full(len(z), c)))


@pytest.mark.parametrize(
    "prior", [pytest.param(p, marks=pytest.mark.slow) if p == "flow" else p for p in ("standard", *LEARNED)]
)
def test_densities_integrate_to_one(prior):
    model, params = make(prior)
    side = np.linspace(-25, 25, 501)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = np.exp(log_density_at(model, params, grid, 1)).sum() * (side[1] - side[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
@pytest.mark.slow
def test_draws_follow_the_density(prior):
    """The share of draws in each quarter of the plane is what the density gives it."""
    model, params = make(prior)
    n = 20_000
    keys = jax.random.split(jax.random.key(8), n)
    drawn = np.asarray(generate(model, params, jnp.ones(n, jnp.int32), keys))[:, :2]
    middle = np.median(drawn, axis=0)
    side = np.linspace(-12, 12, 401)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    mass = np.exp(log_density_at(model, params, grid, 1)) * (side[1] - side[0]) ** 2
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
    drawn = generate(model, params, c, jax.random.split(jax.random.key(8), n))[:, :2]
    noise = jax.random.normal(jax.random.key(9), (n, Z))
    made = from_noise(model, params, noise, c)[:, :2]
    np.testing.assert_allclose(made.mean(axis=0), drawn.mean(axis=0), atol=0.04)
    np.testing.assert_allclose(made.std(axis=0), drawn.std(axis=0), rtol=0.03)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
def test_noise_is_found_again_in_what_it_made(prior):
    model, params = make(prior)
    noise = jax.random.normal(jax.random.key(9), (4, Z))
    z = from_noise(model, params, noise, C)
    found = to_noise(model, params, z, C)
    np.testing.assert_allclose(jnp.where(MASK, found, 0.0), jnp.where(MASK, noise, 0.0), atol=2e-5)


def likeliest_mean(model, params, c):
    mixture = prior_of(model, params, c)
    return mixture.parts.mean[:, jnp.argmax(mixture.log_weights[0])]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
def test_a_temperature_sharpens_the_choice_of_a_mixture_s_part(temperature):
    """Of weights w, part k is drawn with a share of wₖ^(1/T); of equal ones at 0 each as often."""
    weights = np.array([0.1, 0.3, 0.3, 0.3])
    parts = Gaussian(jnp.arange(4.0)[:, None], jnp.full((4, 1), -20.0))
    keys = jax.random.split(jax.random.key(5), 20_000)
    draws = jax.vmap(sample_mixture, (0, None, None))(
        keys, GaussianMixture(jnp.log(weights), parts), temperature
    )
    found = np.bincount(np.rint(draws[:, 0]).astype(int), minlength=4) / len(keys)
    expected = weights ** (1 / temperature) if temperature else np.array([0.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.015)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
def test_a_temperature_scales_the_noise_of_draws(prior):
    """At 0 they are the middle of the prior, or of its likeliest part; at 1 what they are without one."""
    model, params = make(prior)
    n = 500
    keys, c = jax.random.split(jax.random.key(8), n), jnp.ones(n, jnp.int32)
    drawn = {t: np.asarray(generate(model, params, c, keys, t))[:, :2] for t in (0.0, 0.5, 1.0)}
    np.testing.assert_array_equal(drawn[1.0], np.asarray(generate(model, params, c, keys))[:, :2])
    middles = {
        "mixture": lambda: likeliest_mean(model, params, c[:1]),
        "vamp": lambda: prior_of(model, params, c).parts.mean,
    }.get(prior, lambda: from_noise(model, params, jnp.zeros((1, Z)), c[:1]))()
    away = np.abs(drawn[0.0][:, None] - np.asarray(middles)[:, :2]).max(axis=2)
    assert away.min(axis=1).max() < 1e-5
    if prior not in ("flow", "mixture"):  # which is no linear map of noise, and may draw of another part
        np.testing.assert_allclose(drawn[0.5], (drawn[0.0] + drawn[1.0]) / 2, atol=1e-5)


def test_a_vamp_prior_is_the_even_mixture_of_its_parts():
    model, params = make("vamp")
    mixture = prior_of(model, params, C)
    np.testing.assert_allclose(np.exp(mixture.log_weights), np.full(7, 1 / 7), rtol=1e-6)
    check_mixture(model, params, mixture, c=0)


def test_a_mixture_prior_is_the_mixture_that_it_makes_of_the_condition():
    model, params = make("mixture")
    mixtures = prior_of(model, params, C)
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
    np.testing.assert_allclose(log_density_at(model, params, z, c), expected, rtol=1e-4)


@pytest.mark.parametrize("prior", LEARNED)
def test_the_rate_is_the_divergence_from_the_prior(prior):
    model, params = make(prior)
    q = encode(model, params, X, C)
    keys = jax.random.split(jax.random.key(3), (4000, 4))
    drawn = jax.vmap(lambda keys: infer(model, params, X, C, keys))(keys)
    np.testing.assert_array_equal(drawn.q.mean[0], q.mean)
    rates = np.asarray(jax.vmap(lambda inference: inference.rate)(drawn))
    z = np.asarray(drawn.z)
    log_q = stats.norm.logpdf(z, np.asarray(q.mean), np.exp(0.5 * np.asarray(q.logvar)))[..., :2].sum(axis=2)
    np.testing.assert_allclose(drawn.log_q, log_q, rtol=1e-4, atol=1e-4)
    log_p = np.asarray(jax.vmap(lambda z: log_prior(model, params, z, C))(drawn.z))
    np.testing.assert_allclose(drawn.log_p, log_p, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rates.mean(axis=0), (log_q - log_p).mean(axis=0), atol=0.15)
    if prior == "conditional":
        p = prior_of(model, params, C)
        np.testing.assert_allclose(rates[0], jax.vmap(gaussian_kl)(*q, *p), rtol=1e-5)


@pytest.mark.parametrize("prior", ["standard", *LEARNED])
def test_the_kl_is_per_latent_where_it_has_a_closed_form(prior):
    """Else it is log q − log p of the draw; latents that are not in use add nothing."""
    model, params = make(prior)
    drawn = infer(model, params, X, C, KEYS)
    if prior in ("standard", "conditional"):
        assert drawn.kl.shape == (4, Z)
        np.testing.assert_array_equal(drawn.kl[:, 2], 0.0)
        assert (np.asarray(drawn.kl)[:, :2] > 0).all()
    else:
        np.testing.assert_allclose(drawn.kl, (drawn.log_q - drawn.log_p)[:, None], rtol=1e-5, atol=1e-5)


# The first has fewer latents than the sweep has room for.
@pytest.mark.parametrize("i", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "prior",
    [pytest.param(p, marks=pytest.mark.slow) for p in LEARNED],
)
def test_a_member_equals_its_solo_run(make_sweep, prior, i):
    shared = {"prior": prior, "hidden": (16, 16)}
    shared |= {"mixture": {"mixture_parts": 3}, "vamp": {"pseudo_inputs": 5}}.get(prior, {})
    members = ({"latent_dim": 2, "seed": 1, "condition_dropout": 0.2}, {"latent_dim": 4, "beta": 2.0})
    together = trained(make_sweep, members, shared)
    alone = trained(make_sweep, members[i : i + 1], shared)
    state = jax.tree.map(lambda a: a[i], together.members)
    of_member = sweep.solo_state(state, [from_flat(**shared, **each) for each in members], i)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[0], rtol=2e-3, atol=2e-4),
        of_member.params, alone.members.params,
    )  # fmt: skip


def trained(make_sweep, members, shared):
    model, settings, data = make_sweep(*members, **shared)
    return sweep.run_steps(model, sweep.init(model, settings), settings, data, jnp.int32(20))


# Baselines and the hybrid


def test_a_gsnn_draws_from_its_prior_and_pays_no_rate():
    model, params = make("conditional", Gsnn())
    drawn = draw(model, params, X, C, KEYS)
    other = draw(model, params, 1 - X, C, KEYS)
    np.testing.assert_array_equal(drawn.inference.q.mean, other.inference.q.mean)
    np.testing.assert_array_equal(drawn.rate, 0)
    assert (drawn.inference.q.mean[0] != drawn.inference.q.mean[1]).any()


def test_a_deterministic_network_has_no_latents():
    model, params = make("standard", Deterministic())
    drawn = draw(model, params, X, C, KEYS)
    again = draw(model, params, X, C, KEYS[::-1])
    np.testing.assert_array_equal(drawn.log_likelihood, again.log_likelihood)
    np.testing.assert_array_equal(drawn.rate, 0)
    z = jnp.ones((4, Z))
    np.testing.assert_array_equal(decode(model, params, z, C), decode(model, params, 5 * z, C))


def test_mixtures_of_extreme_parts_have_finite_values_and_gradients():
    log_weights = jax.nn.log_softmax(jnp.array([0.0, -1e4]))
    plain = GaussianMixture(log_weights, Gaussian(jnp.array([[0.0], [1e4]]), jnp.zeros((2, 1))))
    one, key = jnp.ones(1, bool), jax.random.key(0)
    functions = (
        lambda m: mixture_log_density(jnp.zeros(1), m, one),
        lambda m: mixture_log_density(jnp.full(1, 1e4), m, one),
        lambda m: jnp.sum(sample_mixture(key, m._replace(log_weights=log_weights[::-1]), 1.0)),
        lambda m: jnp.sum(unstandardize(jnp.ones(1), m)),
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
    model, params = make("conditional")
    terms = Hybrid(beta=0.7, cvae_weight=weight).loss(model, params, Batch(X, C, KEYS, jax.random.key(0)))
    of_posterior, of_prior = jnp.moveaxis(jax.vmap(jax.random.split)(KEYS), 1, 0)
    cvae = Elbo(beta=0.7).loss(model, params, Batch(X, C, of_posterior, jax.random.key(0))).loss
    z = generate(model, params, C, of_prior)
    prediction = -log_likelihood(model, params, X, z, C)
    np.testing.assert_allclose(terms.loss, weight * cvae + (1 - weight) * prediction, rtol=1e-5)
    np.testing.assert_allclose(terms.parts["prediction"], prediction, rtol=1e-6)


@pytest.mark.parametrize(
    "prior", [pytest.param(p, marks=pytest.mark.slow) if p == "flow" else p for p in LEARNED]
)
def test_draws_of_prior_and_posterior_agree_on_the_likelihood(prior):
    model, params = make(prior)
    # Posterior and prior are close, and z changes the output little: few draws of either suffice.
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
            jax.random.key(1),
            num_samples=40_000,
            chunk=2000,
            proposal=proposal,
        )
        for proposal in ("prior", "posterior")
    ]
    np.testing.assert_allclose(by[0], by[1], atol=0.05)
