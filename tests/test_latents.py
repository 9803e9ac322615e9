"""What latents carry, against quadrature, float64, and cases where the answer is known."""

import math
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from cvae_jax import evaluation, latents, sweep
from cvae_jax.config import Config, Member
from cvae_jax.cvae import Gaussian, encode
from cvae_jax.latents import LatentTerms
from cvae_jax.losses import reparameterize, standard_normal_kl
from experiments import results
from experiments.workdir import Run

KEY = jax.random.key(5)
information = jax.jit(latents.information)


def gaussians(n, latent_dim, *, spread=1.0, logvar=-1.0):
    rng = np.random.default_rng(0)
    mean = rng.normal(0, spread, (n, latent_dim))
    return Gaussian(*(jnp.asarray(a, jnp.float32) for a in (mean, rng.normal(logvar, 0.5, mean.shape))))


def draws(key, q):
    return jax.vmap(reparameterize)(jax.random.split(key, q.mean.shape[0]), q.mean, q.logvar)


# Information


def in_float64(z, q):
    z, mean, scale = (np.asarray(a, np.float64) for a in (z, q.mean, jnp.exp(0.5 * q.logvar)))
    each = stats.norm.logpdf(z[:, None], mean[None], scale[None]).sum(axis=2)
    return np.diag(each) - special.logsumexp(each, axis=1) + math.log(len(z))


@pytest.mark.parametrize("n", [1, 49, 50, 51, 120])
def test_information_is_that_of_scipy(n):
    q = gaussians(n, 3)
    z = draws(KEY, q)
    np.testing.assert_allclose(information(z, q), in_float64(z, q), rtol=1e-5, atol=2e-6)


def test_narrow_posteriors_keep_their_digits():
    q = gaussians(120, 2, spread=0.03, logvar=-8.0)  # as wide as they lie apart, where most cancels
    z = draws(KEY, q)
    expected = in_float64(z, q)
    assert 1 < expected.mean() < math.log(120) - 0.5
    np.testing.assert_allclose(information(z, q), expected, atol=1e-4)


def test_posteriors_far_apart_name_their_example_and_equal_ones_say_nothing():
    n, z = 60, jnp.arange(60.0)[:, None] * 100
    apart = information(z, Gaussian(z, jnp.zeros_like(z)))
    np.testing.assert_allclose(apart, math.log(n), rtol=1e-6)
    same = Gaussian(jnp.full((n, 4), 0.3), jnp.full((n, 4), -2.0))
    np.testing.assert_allclose(information(draws(KEY, same), same), 0.0, atol=1e-5)


@pytest.mark.parametrize("logvar", [-20.0, -5.0, 0.0, 5.0])
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
def members(make_sweep):
    """A model, two members' parameters with biases drawn at random, and their masks: 5 latents and 3."""
    model, h, _ = make_sweep(Member(latent_dim=5), Member(latent_dim=3, seed=1), hidden=(16,))
    params = sweep.init(model, h).members.params
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, 0.1, a.shape), jnp.float32), params)
    return model, params, h.latent_mask


@pytest.fixture(scope="module")
def test_split(digits):
    return evaluation.on_device(digits.test, digits.x_max)


@pytest.fixture(scope="module")
def together(members, test_split):
    model, params, masks = members
    return latents.members_latent_terms(model, params, test_split, masks)


def member(members, i):
    model, params, masks = members
    return model, jax.tree.map(itemgetter(i), params), masks[i]


def test_the_whole_split_counts(members, together, test_split):
    model, params, mask = member(members, 1)
    assert together.information.shape == (2, 359)
    x, c = test_split.take(jnp.arange(359))
    q = jax.jit(encode, static_argnums=0)(model, params, x, c, mask)
    np.testing.assert_allclose(together.variance[1], np.var(q.mean, axis=0), rtol=1e-4)
    rate = float(jnp.mean(jax.vmap(standard_normal_kl)(q.mean, q.logvar)))
    (metrics,) = latents.summarize(jax.tree.map(lambda a: a[1:], together), [rate])
    assert 0 < metrics["mutual_information"] < math.log(359)
    assert 0 < metrics["aggregate_kl"] < rate


def test_members_together_are_members_in_turn(members, together, test_split):
    model, params, masks = members
    for i in range(2):
        own = jax.tree.map(lambda a, i=i: a[i : i + 1], (params, masks))
        alone = latents.members_latent_terms(model, own[0], test_split, own[1])
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-5)


def test_masked_latents_say_nothing(members, together, test_split):
    model, params, masks = members
    inner = dict(params["params"])
    inner["to_latents"] = {k: v.at[1, ..., 3:].set(50.0) for k, v in inner["to_latents"].items()}
    changed = latents.members_latent_terms(model, {"params": inner}, test_split, masks)
    for a, b in zip(changed, together, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(together.variance[1, 3:], 0.0)
    assert float(together.variance[1, :3].min()) > 0


def test_of_a_larger_split_a_part_is_drawn(members, test_split, monkeypatch):
    model, params, mask = member(members, 1)
    monkeypatch.setattr(latents, "MAX_EXAMPLES", 40)
    terms = jax.jit(latents.latent_terms, static_argnums=0)(model, params, test_split, mask, KEY)
    assert terms.information.shape == (40,)
    assert float(terms.information.max()) <= math.log(40) + 1e-6
    assert len(np.unique(terms.information)) == 40


# Warnings


def warnings(capsys, *tests, kind="train"):
    run = Run(
        kind=kind, config=Config(), members=(Member(latent_dim=8),) * len(tests),
        members_per_program=1, data_dir=None, checkpoint_every=10,
    )  # fmt: skip
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
