"""What latents carry, against quadrature, float64, and cases where the answer is known."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import member, of_digits, stacked
from scipy import integrate, special, stats

from cvae_jax.conditions import Label, Vector
from cvae_jax.data.examples import Examples, on_device
from cvae_jax.evaluation import latents
from cvae_jax.evaluation.latents import LatentTerms
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.losses import gaussian_kl, reparameterize, standard_normal_kl
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP
from cvae_jax.nn.latent import Gaussian
from cvae_jax.priors import Conditional, Flow, Standard
from cvae_jax.runs.run import Run
from cvae_jax.training.config import Config
from experiments.reports import results

KEY = jax.random.key(5)
information = jax.jit(latents.information)
latent_terms = jax.jit(latents.latent_terms, static_argnums=0)


def gaussians(n, latent_dim, *, spread=1.0, logvar=-1.0):
    rng = np.random.default_rng(0)
    mean = rng.normal(0, spread, (n, latent_dim))
    return Gaussian(*(jnp.asarray(a, jnp.float32) for a in (mean, rng.normal(logvar, 0.5, mean.shape))))


def draws(key, q):
    return jax.vmap(reparameterize)(jax.random.split(key, q.mean.shape[0]), q.mean, q.logvar)


# Information


def in_float64(z, q, groups=None):
    z, mean, logvar = (np.asarray(a, np.float64) for a in (z, *q))
    same = np.ones((len(z), len(z)), bool) if groups is None else np.equal.outer(groups, groups)
    each = stats.norm.logpdf(z[:, None], mean[None], np.exp(0.5 * logvar)[None]).sum(axis=2)
    mixture = special.logsumexp(np.where(same, each, -np.inf), axis=1) - np.log(same.sum(axis=1))
    return np.diag(each) - mixture


@pytest.mark.parametrize("n", [1, 49, 50, 51, 120])
def test_information_is_that_of_scipy(n):
    q = gaussians(n, 3)
    z = draws(KEY, q)
    np.testing.assert_allclose(information(z, q), in_float64(z, q), rtol=1e-5, atol=2e-6)


def test_narrow_posteriors_keep_their_digits():
    q = gaussians(
        120, 2, spread=0.03, logvar=-8.0
    )  # as wide as the distance between them, where most cancels
    z = draws(KEY, q)
    expected = in_float64(z, q)
    assert 1 < expected.mean() < math.log(120) - 0.5
    np.testing.assert_allclose(information(z, q), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("centre", "spread", "logvar", "latent_dim"),
    [(10.0, 0.003, -12.0, 1), (10.0, 0.003, -12.0, 2), (-300.0, 0.1, -6.0, 1), (1.0, 1e-4, -18.0, 1)],
)
def test_information_does_not_depend_on_where_the_means_lie(centre, spread, logvar, latent_dim):
    rng = np.random.default_rng(0)
    mean = centre + rng.normal(0, spread, (359, latent_dim))
    q = Gaussian(jnp.asarray(mean, jnp.float32), jnp.full(mean.shape, logvar, jnp.float32))
    z = draws(KEY, q)
    expected = in_float64(z, q)
    assert 0.2 < expected.mean() < math.log(359) - 0.1
    np.testing.assert_allclose(information(z, q), expected, atol=2e-5)


def test_neighbours_within_wide_spread_means_are_told_apart():
    """Centring would not do: the means are spread by 1, and pairs of them have a distance of 2e-4."""
    centres = np.random.default_rng(0).normal(0, 1, (60, 1))
    mean = jnp.asarray(np.concatenate([centres - 1e-4, centres + 1e-4]), jnp.float32)
    q = Gaussian(mean, jnp.full(mean.shape, -18.0))
    z = draws(KEY, q)
    expected = in_float64(z, q)
    assert math.log(60) < expected.mean() < math.log(120) - 0.1
    np.testing.assert_allclose(information(z, q), expected, atol=2e-5)


def test_two_narrow_posteriors_hold_what_quadrature_finds():
    mean, scale = np.array([1 - 1e-4, 1 + 1e-4]), np.exp(-9.0)

    def aggregate(z):
        return np.mean(stats.norm.pdf(z, mean, scale))

    def integrand(z):
        own = stats.norm.pdf(z, mean[0], scale)
        return own * (stats.norm.logpdf(z, mean[0], scale) - np.log(aggregate(z)))

    expected, _ = integrate.quad(integrand, mean[0] - 8 * scale, mean[0] + 8 * scale)
    q = Gaussian(jnp.asarray(mean[:, None], jnp.float32), jnp.full((2, 1), -18.0))
    repeats = 20_000
    nats = jax.jit(jax.vmap(lambda key: latents.information(draws(key, q), q)))(
        jax.random.split(KEY, repeats)
    )
    assert 0.1 < expected < math.log(2)
    assert float(jnp.mean(nats)) == pytest.approx(
        expected, abs=4 * float(jnp.std(nats)) / math.sqrt(2 * repeats)
    )


def test_memory_does_not_grow_with_the_latents():
    few, many = (
        jax.jit(latents.information)
        .lower(jnp.zeros((2000, z)), Gaussian(jnp.zeros((2000, z)), jnp.zeros((2000, z))))
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for z in (2, 64)
    )
    transposed = 3 * 2000 * 64 * 4
    assert many < few + 2 * transposed < 2000**2 * 4


def test_groups_are_mixtures_of_their_own():
    q, groups = gaussians(120, 3), np.arange(120) % 7
    z = draws(KEY, q)
    nats = information(z, q, jnp.asarray(groups))
    np.testing.assert_allclose(nats, in_float64(z, q, groups), rtol=1e-5, atol=2e-6)
    alone = information(z[groups == 3], Gaussian(*(a[groups == 3] for a in q)))
    np.testing.assert_allclose(nats[groups == 3], alone, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(information(z, q, jnp.arange(120)), 0.0, atol=1e-6)


def test_posteriors_far_apart_name_their_example_and_equal_ones_say_nothing():
    n, z = 60, jnp.arange(60.0)[:, None] * 100
    distinct = information(z, Gaussian(z, jnp.zeros_like(z)))
    np.testing.assert_allclose(distinct, math.log(n), rtol=1e-6)
    same = Gaussian(jnp.full((n, 4), 0.3), jnp.full((n, 4), -2.0))
    np.testing.assert_allclose(information(draws(KEY, same), same), 0.0, atol=1e-5)


@pytest.mark.parametrize("logvar", [-300.0, -100.0, -20.0, -5.0, 0.0, 5.0, 100.0])
def test_no_draw_says_more_than_the_number_of_examples(logvar):
    q = gaussians(100, 6, logvar=logvar)
    each = information(draws(KEY, q), q)
    assert bool(jnp.all(jnp.isfinite(each)))
    assert float(each.max()) <= math.log(100) + 1e-6


def test_both_parts_of_the_rate_are_those_of_quadrature():
    q = gaussians(5, 1, logvar=-0.5)
    rates = [float(standard_normal_kl(m, v)) for m, v in zip(*q, strict=True)]
    repeats = 4000
    nats = jax.jit(jax.vmap(lambda key: latents.information(draws(key, q), q)))(
        jax.random.split(KEY, repeats)
    )
    (metrics,) = latents.summarize(
        LatentTerms(nats.reshape(1, -1), jnp.var(q.mean, axis=0)[None]), [np.mean(rates)]
    )
    mean, scale = np.asarray(q.mean[:, 0], np.float64), np.exp(0.5 * np.asarray(q.logvar[:, 0], np.float64))

    def aggregate(z):
        return np.mean(stats.norm.pdf(z, mean, scale))

    kl, _ = integrate.quad(lambda z: aggregate(z) * np.log(aggregate(z) / stats.norm.pdf(z)), -8, 8)
    error = 4 * float(jnp.std(nats)) / math.sqrt(5 * repeats)
    assert error < 0.02
    assert metrics["aggregate_kl"] == pytest.approx(kl, abs=error)
    assert metrics["mutual_information"] == pytest.approx(np.mean(rates) - kl, abs=error)


def test_the_conditional_parts_of_the_rate_are_those_of_quadrature():
    """Two classes of 3 and 2 posteriors under priors of their own: each divergence by integration."""
    q, c = gaussians(5, 1, logvar=-0.5), np.array([0, 1, 0, 1, 0])
    prior = Gaussian(jnp.array([[0.5], [-1.0]]), jnp.array([[0.3], [-0.4]]))
    rates = jax.vmap(gaussian_kl)(*q, *(a[c] for a in prior))
    repeats = 4000
    each = jax.jit(
        jax.vmap(lambda z: (latents.information(z, q), latents.information(z, q, jnp.asarray(c))))
    )(jax.vmap(lambda key: draws(key, q))(jax.random.split(KEY, repeats)))
    terms = LatentTerms(each[0].reshape(1, -1), jnp.zeros((1, 1)), each[1].reshape(1, -1))
    (metrics,) = latents.summarize(terms, [float(jnp.mean(rates))], one_prior=False)
    mean, scale = np.asarray(q.mean[:, 0], np.float64), np.exp(0.5 * np.asarray(q.logvar[:, 0], np.float64))

    def mixture(z, rows):
        return np.mean(stats.norm.pdf(z, mean[rows], scale[rows]))

    def divergence(p, log_q):
        return integrate.quad(lambda z: p(z) * (np.log(p(z)) - log_q(z)), -8, 8)[0]

    to_prior, of_label = 0.0, 0.0
    for label in (0, 1):
        within = partial(mixture, rows=c == label)
        middle, deviation = float(prior.mean[label, 0]), math.exp(0.5 * float(prior.logvar[label, 0]))
        share = np.mean(c == label)
        to_prior += share * divergence(within, partial(stats.norm.logpdf, loc=middle, scale=deviation))
        of_label += share * divergence(within, lambda z: np.log(mixture(z, np.arange(5))))
    error = 4 * float(jnp.std(terms.information)) / math.sqrt(5 * repeats)
    assert error < 0.02
    assert "aggregate_kl" not in metrics
    assert metrics["conditional_aggregate_kl"] == pytest.approx(to_prior, abs=error)
    assert metrics["label_information"] == pytest.approx(of_label, abs=error)
    assert metrics["conditional_mutual_information"] == pytest.approx(
        float(jnp.mean(rates)) - to_prior, abs=error
    )


def test_the_conditional_parts_add_up():
    rng = np.random.default_rng(0)
    nats = rng.uniform(0, 3, (2, 2, 9)).astype(np.float32)
    terms = LatentTerms(nats[0], np.ones((2, 1)), nats[1])
    for m, rate in zip(latents.summarize(terms, [5.0, 7.0]), (5.0, 7.0), strict=True):
        parts = m["conditional_mutual_information"], m["conditional_aggregate_kl"], m["label_information"]
        assert parts[0] + parts[1] == pytest.approx(rate, rel=1e-15)
        assert parts[0] + parts[2] == pytest.approx(m["mutual_information"], rel=1e-15)


def test_the_parts_add_up_to_the_rate():
    rng = np.random.default_rng(0)
    terms = LatentTerms(rng.uniform(0, 3, (2, 9)).astype(np.float32), np.array([[0.5, 0.01], [0.011, 0.02]]))
    for metrics, rate, units in zip(latents.summarize(terms, [5.0, 7.0]), (5.0, 7.0), (1, 2), strict=True):
        assert metrics["mutual_information"] + metrics["aggregate_kl"] == pytest.approx(rate, rel=1e-15)
        assert metrics["active_units"] == units
    assert set(latents.summarize(terms, [5.0, 7.0], one_prior=False)[0]) == {
        "mutual_information",
        "active_units",
    }


# Of a model


@pytest.fixture(scope="module")
def members():
    """A model, and the parameters of members with 5 latents and 3."""
    model = of_digits(5, hidden=(16,))
    return model, stacked(model, (5, 3), noise=0.1)


@pytest.fixture(scope="module")
def test_split(digits):
    return on_device(digits.test, digits.x_max)


@pytest.fixture(scope="module")
def together(members, test_split):
    return latents.members_latent_terms(*members, test_split)


def test_the_whole_split_counts(members, together, test_split):
    model, params = members
    assert together.information.shape == (2, 359)
    x, c = test_split.take(jnp.arange(359))
    q = jax.jit(model.encode)(member(params, 1), x, c)
    means, labels = np.asarray(q.mean), np.asarray(c)
    within = np.concatenate([means[labels == k] - means[labels == k].mean(axis=0) for k in np.unique(labels)])
    np.testing.assert_allclose(together.variance[1], np.mean(within**2, axis=0), rtol=1e-4)
    rate = float(jnp.mean(jax.vmap(standard_normal_kl)(q.mean, q.logvar)))
    (metrics,) = latents.summarize(jax.tree.map(lambda a: a[1:], together), [rate])
    assert 0 < metrics["mutual_information"] < math.log(359)
    assert 0 < metrics["aggregate_kl"] < rate


def test_members_together_are_members_in_turn(members, together, test_split):
    model, params = members
    for i in range(2):
        own = jax.tree.map(lambda a, i=i: a[i : i + 1], params)
        alone = latents.members_latent_terms(model, own, test_split)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-5)


def test_masked_latents_say_nothing(members, together, test_split):
    model, params = members
    inner = dict(params["params"])
    inner["to_latents"] = {k: v.at[1, ..., 3:].set(50.0) for k, v in inner["to_latents"].items()}
    changed = latents.members_latent_terms(model, params | {"params": inner}, test_split)
    for a, b in zip(changed, together, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(together.variance[1, 3:], 0.0)
    assert float(together.variance[1, :3].min()) > 0


def test_of_a_larger_split_a_part_is_drawn(members, test_split, monkeypatch):
    model, params = members
    monkeypatch.setattr(latents, "MAX_EXAMPLES", 40)
    terms = jax.jit(latents.latent_terms, static_argnums=0)(model, member(params, 1), test_split, KEY)
    assert terms.information.shape == (40,)
    assert float(terms.information.max()) <= math.log(40) + 1e-6
    assert len(np.unique(terms.information)) == 40


# Active units


def terms_of(model, params_of=lambda params: params, c=None):
    """The terms of a small model on noise, and the posterior means."""
    c = jnp.arange(200) % 4 if c is None else c
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(200, 8, 8, 1)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0))
    params |= {
        "params": params_of(
            jax.tree.map(
                lambda a: a + 0.05 * jnp.sin(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape),
                params["params"],
            )
        )
    }
    terms = latent_terms(model, params, Examples(x, c, jnp.float32(1)), KEY)
    return terms, jax.jit(model.encode)(params, x, c).mean


def small(prior, condition=Label(4), **fields):  # noqa: B008
    return CVAE(MLP(hidden=(16,)), Bernoulli(), prior, condition, shape=(8, 8, 1), capacity=3, **fields)


def blind(params):
    """The same variables, of an encoder that does not look at x."""
    params = jax.tree.map(lambda a: a, params)
    first = params["encoder"]["Dense_0"]
    first["kernel"] = jnp.zeros_like(first["kernel"])
    return params


@pytest.mark.parametrize("prior", [Standard(), Conditional(), Flow()])
def test_a_latent_that_repeats_the_label_is_not_active(prior):
    terms, means = terms_of(small(prior), blind)
    assert float(jnp.var(means, axis=0).min()) > latents.ACTIVE_VARIANCE
    assert float(terms.variance.max()) < 1e-9
    np.testing.assert_allclose(terms.conditional_information, 0.0, atol=1e-5)
    assert float(jnp.mean(terms.information)) > 0.01
    seeing, _ = terms_of(small(prior))
    assert float(seeing.variance.min()) > latents.ACTIVE_VARIANCE


def test_a_latent_that_repeats_another_condition_is_not_active():
    """The posterior of a GSNN is the prior itself."""
    c = jnp.asarray(np.random.default_rng(1).normal(size=(200, 3)), jnp.float32)
    terms, means = terms_of(small(Conditional(), Vector(3), posterior="prior"), c=c)
    assert float(jnp.var(means, axis=0).min()) > latents.ACTIVE_VARIANCE
    assert float(terms.variance.max()) < 1e-9
    assert terms.conditional_information is None
    seeing, _ = terms_of(small(Conditional(), Vector(3)), c=c)
    assert float(seeing.variance.min()) > latents.ACTIVE_VARIANCE


def test_active_units_do_not_depend_on_the_scale_that_a_prior_gives_them():
    """Posterior and prior narrower by e⁻⁵ alike are the same model, but for the names of its latents."""

    def narrow(params):
        maps = (params["to_latents"], params["prior"]["to_latents"])
        for of_latents in maps:
            of_latents |= {k: a * math.exp(-5) for k, a in of_latents.items() if k.startswith("mean")}
            of_latents["logvar_bias"] = of_latents["logvar_bias"] - 10.0
        return params

    model = small(Conditional())
    (wide, means), (thin, thin_means) = terms_of(model), terms_of(model, narrow)
    np.testing.assert_allclose(thin_means, means * math.exp(-5), rtol=1e-4)
    np.testing.assert_allclose(thin.variance, wide.variance, rtol=1e-3)
    np.testing.assert_allclose(thin.information, wide.information, rtol=1e-3, atol=1e-4)


def test_without_two_examples_of_a_class_no_latent_is_said_to_be_idle():
    variance = latents.variance_within(jnp.ones((3, 2)), jnp.arange(3), 4)
    (metrics,) = latents.summarize(LatentTerms(np.zeros((1, 3)), np.asarray(variance)[None]), [1.0])
    assert metrics["active_units"] is None


# Warnings


def warnings(capsys, *tests, kind="train"):
    run = Run(kind, (Config(latent_dim=8),) * len(tests))
    results.warn_of_collapse(
        run, {i: {"active_units": units, "rate": rate} for i, (units, rate) in enumerate(tests)}
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_collapsed_posterior_is_named(capsys):
    assert warnings(capsys, (8, 12.0)) == []
    for case in ((0, 0.3), (8, 0.05)):
        (line,) = warnings(capsys, case)
        assert line.startswith(f"warning: posterior collapse ({case[0]} of 8 active, rate {case[1]:.2f}): ")
    assert warnings(capsys, (3, 12.0)) == ["warning: idle latents (3 of 8 active, rate 12.00)"]


def test_a_sweep_names_its_members(capsys):
    tests = [(8, 12.0), (0, 0.0), (7, 9.0), *[(0, 0.01)] * 9]
    collapsed, idle = warnings(capsys, *tests, kind="sweep")
    assert "member 1: 0 of 8 active, rate 0.00, member 3: 0 of 8" in collapsed
    assert "and 5 more)" in collapsed
    assert idle == "warning: idle latents (member 2: 7 of 8 active, rate 9.00)"
