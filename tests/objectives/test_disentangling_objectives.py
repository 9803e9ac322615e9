"""β-TCVAE, DIP-VAE and FactorVAE against sums written out in numpy, and what their gradients train."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import draw, init
from scipy import special, stats

from cvae_jax.conditions import Label
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.losses import reparameterize
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives import Batch, DipVaeI, DipVaeII, Elbo, FactorVae, TotalCorrelation
from cvae_jax.objectives.dipvae import covariance_penalty, latent_covariance
from cvae_jax.objectives.factorvae import Discriminator, permute_latents
from cvae_jax.objectives.tcvae import decompose_kl, log_batch_weights
from cvae_jax.priors import Standard
from cvae_jax.priors.gaussian_mixture import GaussianMixture, mixture_log_density
from cvae_jax.rng import root_key
from cvae_jax.training.config import from_flat

B, Z, USED, N = 5, 3, 2, 12
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.integers(0, 2, (B, 8, 8, 1)), jnp.float32)
C = jnp.arange(B)
KEYS = jax.random.split(jax.random.key(1), B)
MASK = jnp.arange(Z) < USED
POSTERIORS = Gaussian(
    jnp.where(MASK, jnp.asarray(RNG.normal(size=(B, Z)), jnp.float32), 0.0),
    jnp.where(MASK, jnp.asarray(RNG.normal(size=(B, Z)), jnp.float32), 0.0),
)
DRAWS = jnp.asarray(RNG.normal(size=(B, Z)), jnp.float32)


def of_capacity(capacity):
    return CVAE(MLP(), Bernoulli(), Standard(), Label(10), shape=(8, 8, 1), capacity=capacity)


MODEL = of_capacity(Z)


@cache
def build(objective=Elbo()):  # noqa: B008
    params = init(MODEL, jax.random.key(0), MASK)
    # The initial posterior is all but the prior: move it.
    moved = jax.tree.map(
        lambda leaf: leaf + 0.02 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params["params"]
    )
    return {**params, "params": moved, **objective.init(MODEL, root_key(0), MASK)}


@jax.jit
def terms_of(objective, params):
    objective = jax.tree.map(jnp.float32, objective)
    return objective.loss(MODEL, params, Batch(X, C, KEYS, jax.random.key(9), num_examples=N))


def densities():
    """q(zᵢ,ₖ|xⱼ) on the latents in use, shape (draw, posterior, latent), by scipy."""
    mean, scale = (
        np.asarray(a, np.float64)[None, :, :USED] for a in (POSTERIORS.mean, np.exp(POSTERIORS.logvar / 2))
    )
    return stats.norm.pdf(np.asarray(DRAWS, np.float64)[:, None, :USED], mean, scale)


# The decomposition of the KL


@pytest.mark.parametrize("stratified", [False, True])
def test_terms_match_sums_over_the_mixture(stratified):
    weights = np.full((B, B), 1 / (B * N))
    if stratified:
        others = B - 1
        for i in range(B):
            weights[i] = 1 / others
            weights[i, i] = 1 / N
            weights[i, (i + 1) % B] = (N - others) / (N * others)
    each = densities()
    joint = np.log((weights * each.prod(axis=2)).sum(axis=1))
    marginals = np.log((weights[:, :, None] * each).sum(axis=1)).sum(axis=1)
    own = np.log(each[np.arange(B), np.arange(B)]).sum(axis=1)
    prior = stats.norm.logpdf(np.asarray(DRAWS, np.float64)[:, :USED]).sum(axis=1)
    parts = decompose_kl(DRAWS, POSTERIORS, log_batch_weights(B, N, stratified=stratified), MASK)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(parts.mutual_information, own - joint)
    close(parts.total_correlation, joint - marginals)
    close(parts.marginal_kl, marginals - prior)
    close(sum(parts), own - prior)


@pytest.mark.parametrize(
    ("centre", "spread", "logvar"), [(10.0, 0.003, -12.0), (-300.0, 0.1, -6.0), (1.0, 1e-4, -18.0)]
)
def test_terms_do_not_cancel_wherever_the_means_lie(centre, spread, logvar):
    """Narrow posteriors far from 0, against the same sums in float64."""
    mean = centre + np.random.default_rng(0).normal(0, spread, (32, 2))
    q = Gaussian(jnp.asarray(mean, jnp.float32), jnp.full(mean.shape, logvar, jnp.float32))
    noise = jax.random.normal(jax.random.key(1), mean.shape)
    z = q.mean + jnp.exp(0.5 * q.logvar) * noise
    weights = log_batch_weights(32, 100, stratified=True)
    parts = decompose_kl(z, q, weights, jnp.ones(2, bool))
    drawn, mean, weights = (np.asarray(a, np.float64) for a in (z, q.mean, weights))
    pairs = stats.norm.logpdf(drawn[:, None], mean, np.exp(logvar / 2))
    joint = special.logsumexp(weights + pairs.sum(axis=2), axis=1)
    marginals = special.logsumexp(weights[:, :, None] + pairs, axis=1).sum(axis=1)
    own = pairs[np.arange(32), np.arange(32)].sum(axis=1)
    np.testing.assert_allclose(parts.mutual_information, own - joint, atol=1e-5)
    np.testing.assert_allclose(parts.total_correlation, joint - marginals, atol=1e-5)
    even = GaussianMixture(jnp.full(32, -np.log(32.0), jnp.float32), q)
    found = jax.vmap(mixture_log_density, (0, None, None))(z, even, jnp.ones(2, bool))
    np.testing.assert_allclose(found, special.logsumexp(pairs.sum(axis=2), axis=1) - np.log(32), atol=1e-5)


def test_terms_of_a_known_mixture_match_its_integrals():
    """Two equal posteriors of two dependent latents: all three terms by quadrature over the mixture."""
    mean, scale = 0.8, 0.6
    q = Gaussian(jnp.array([[mean, mean], [-mean, -mean]]), jnp.full((2, 2), 2 * np.log(scale)))
    grid = np.linspace(-6, 6, 801)
    one = np.stack([stats.norm.pdf(grid, m, scale) for m in (mean, -mean)])
    marginal, joint = one.mean(axis=0), np.einsum("ki,kj->ij", one, one) / 2
    step = grid[1] - grid[0]
    entropy = -np.sum(special.xlogy(joint, joint)) * step**2
    marginal_entropy = -np.sum(special.xlogy(marginal, marginal)) * step
    own_entropy = 2 * stats.norm.entropy(scale=scale)
    cross = -np.sum(marginal * stats.norm.logpdf(grid)) * step
    draws = 4000
    noise = jax.random.normal(jax.random.key(0), (draws, 2, 2))
    z = q.mean + scale * noise
    # The data are these two examples: with them as the batch, the sum over the mixture is exact.
    weights = jnp.full((2, 2), -np.log(2.0))
    parts = jax.vmap(lambda z: decompose_kl(z, q, weights, jnp.ones(2, bool)))(z)
    means = [float(jnp.mean(part)) for part in parts]
    errors = [3 * float(jnp.std(part)) / np.sqrt(2 * draws) for part in parts]
    expected = [entropy - own_entropy, 2 * marginal_entropy - entropy, 2 * (cross - marginal_entropy)]
    assert expected[1] > 0.2
    for ours, exact, error in zip(means, expected, errors, strict=True):
        assert abs(ours - exact) < error < 0.1


def test_stratified_weights_are_unbiased():
    """Averaged over every ordered batch that holds example 0, the estimate of q(z) is q(z) itself."""
    n, b = 5, 3
    density = np.random.default_rng(1).random(n)  # q(z|xₙ) at one z drawn from the posterior of example 0
    row = np.exp(np.asarray(log_batch_weights(b, n, stratified=True)[0], np.float64))
    batches = [(0, *rest) for rest in itertools.permutations(range(1, n), b - 1)]
    estimates = [row @ density[list(batch)] for batch in batches]
    np.testing.assert_allclose(np.mean(estimates), density.mean(), rtol=1e-6)


def test_tcvae_with_equal_weights_has_the_sampled_kl():
    params = build()
    terms = terms_of(TotalCorrelation(beta=2.0, mi_weight=2.0, marginal_weight=2.0), params)
    inference = draw(MODEL, params, X, C, KEYS).inference
    q, z = inference.q, inference.z
    mean, scale, z = (np.asarray(a, np.float64)[:, :USED] for a in (q.mean, jnp.exp(q.logvar / 2), z))
    sampled = (stats.norm.logpdf(z, mean, scale) - stats.norm.logpdf(z)).sum(axis=1)
    np.testing.assert_allclose(terms.loss, terms.distortion + 2.0 * sampled, rtol=1e-5)
    np.testing.assert_allclose(sum(terms.parts.values()), sampled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("logvar", [-1e4, -100.0, 100.0, 1e4])
def test_extreme_variances_have_finite_terms_and_gradients(logvar):
    q = Gaussian(POSTERIORS.mean, jnp.where(MASK, logvar, 0.0) + jnp.zeros((B, Z)))
    weights = log_batch_weights(B, N, stratified=True)

    def total(q):
        z = jax.vmap(reparameterize)(KEYS, q.mean, q.logvar)
        parts = decompose_kl(z, q, weights, MASK)
        covariance = latent_covariance(q, of_aggregate=True)
        penalty = covariance_penalty(covariance, MASK, off_diagonal=10.0, diagonal=10.0)
        return jnp.mean(sum(parts)) + penalty, parts

    (_, parts), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(q)
    for leaf in jax.tree.leaves((parts, gradient)):
        assert np.isfinite(leaf).all()


# DIP-VAE


@pytest.mark.parametrize("of_aggregate", [False, True])
def test_covariance_matches_numpy(of_aggregate):
    expected = np.cov(np.asarray(POSTERIORS.mean, np.float64), rowvar=False, ddof=0)
    if of_aggregate:
        expected += np.diag(np.exp(np.asarray(POSTERIORS.logvar, np.float64)).mean(axis=0))
    ours = latent_covariance(POSTERIORS, of_aggregate=of_aggregate)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [DipVaeI, DipVaeII])
def test_dip_penalty_matches_numpy(objective):
    params = build()
    terms = terms_of(objective(beta=3.0, dip_off_diagonal=7.0, dip_diagonal=2.0), params)
    q = draw(MODEL, params, X, C, KEYS).inference.q
    covariance = np.cov(np.asarray(q.mean, np.float64)[:, :USED], rowvar=False, ddof=0)
    if objective is DipVaeII:
        covariance += np.diag(np.exp(np.asarray(q.logvar, np.float64)[:, :USED]).mean(axis=0))
    diagonal = np.diag(covariance)
    penalty = 7.0 * np.sum((covariance - np.diag(diagonal)) ** 2) + 2.0 * np.sum((diagonal - 1) ** 2)
    np.testing.assert_allclose(terms.parts["penalty"], np.full(B, penalty), rtol=1e-4)
    np.testing.assert_allclose(terms.loss, terms.distortion + 3.0 * terms.rate + penalty, rtol=1e-5)


def test_uncorrelated_latents_of_unit_variance_cost_nothing():
    assert covariance_penalty(jnp.eye(3), jnp.ones(3, bool), off_diagonal=5.0, diagonal=5.0) == 0.0


# FactorVAE


def test_permutation_keeps_marginals_and_breaks_pairs():
    z = jnp.stack([jnp.arange(200.0), jnp.arange(200.0)], axis=1)
    shuffled = np.asarray(permute_latents(jax.random.key(0), z))
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), z)
    assert abs(np.corrcoef(shuffled.T)[0, 1]) < 0.2
    # A latent is shuffled the same whatever the capacity.
    np.testing.assert_array_equal(permute_latents(jax.random.key(0), z[:, :1]), shuffled[:, :1])


def test_each_loss_trains_its_own_network():
    params = build(FactorVae(discriminator_width=8))

    def gradient(objective, *names):
        def loss(trained):
            return jnp.mean(terms_of(objective, params | trained).loss)

        return jax.grad(loss)({name: params[name] for name in names})

    without, with_weight = (
        gradient(FactorVae(tc_weight=tc_weight, discriminator_width=8), "params", "discriminator")
        for tc_weight in (0.0, 50.0)
    )
    plain = gradient(Elbo(), "params")
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), without["params"], plain["params"]
    )
    # The discriminator learns the same whatever weight the autoencoder gives its answer.
    jax.tree.map(np.testing.assert_array_equal, without["discriminator"], with_weight["discriminator"])
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(without["discriminator"])) > 1e-3
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), without["params"], with_weight["params"])
    assert max(jax.tree.leaves(moved["encoder"])) > 1e-4
    assert max(jax.tree.leaves(moved["decoder"])) < 1e-6


def test_factorvae_loss_is_the_sum_of_its_terms():
    objective = FactorVae(beta=2.0, tc_weight=3.0, discriminator_width=8)
    params = build(objective)
    terms = terms_of(objective, params)
    z = draw(MODEL, params, X, C, KEYS).inference.z
    logit = Discriminator(8).apply({"params": params["discriminator"]}, z, MASK)
    np.testing.assert_allclose(terms.parts["total_correlation"], logit, rtol=1e-4, atol=1e-6)
    expected = terms.distortion + 2.0 * terms.rate + 3.0 * terms.parts["total_correlation"]
    np.testing.assert_allclose(terms.loss, expected, rtol=1e-5)


def test_the_discriminators_start_is_the_solo_runs():
    objective = FactorVae(discriminator_width=8)
    one = objective.init(of_capacity(USED), root_key(0), jnp.ones(USED, bool))["discriminator"]
    other = objective.init(MODEL, root_key(0), MASK)["discriminator"]
    z = jnp.asarray(RNG.normal(size=(4, Z)), jnp.float32)
    alone = Discriminator(8).apply({"params": one}, z[:, :USED], jnp.ones(USED, bool))
    np.testing.assert_allclose(Discriminator(8).apply({"params": other}, z, MASK), alone, rtol=1e-5)


# Bad input


@pytest.mark.parametrize("name", ["tcvae", "dipvae_i", "dipvae_ii", "factorvae"])
def test_one_example_is_no_batch_to_compare(name):
    with pytest.raises(SettingError, match=f"batch_size is 1, expected ≥ 2 with the objective {name}"):
        from_flat(objective=name, batch_size=1)
