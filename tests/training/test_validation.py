"""What the best parameters are chosen by: the training objective at its final settings, on a whole split."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import init

from cvae_jax.conditions import Label
from cvae_jax.data.examples import Examples, on_device
from cvae_jax.evaluation import bounds as evaluation
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.model import CVAE
from cvae_jax.objectives import OBJECTIVES, Batch
from cvae_jax.options import options_of
from cvae_jax.rng import evaluation_key
from cvae_jax.training import population as sweep
from cvae_jax.training.config import from_flat
from cvae_jax.training.hparams import hparams
from cvae_jax.training.validation import members_bounds, validate

N, NUM_EXAMPLES, Z = 7, 50, 3
EXAMPLES = Examples(
    jnp.asarray(np.random.default_rng(0).integers(0, 2, (N, 8, 8, 1)), jnp.uint8),
    jnp.arange(N) % 3,
    jnp.float32(1),
)
# Those of the objective's options that it has.
OPTIONS = {"beta": 3.0, "free_bits": 0.2, "kl_target": 2.0, "cvae_weight": 0.3, "warmup_epochs": 9.0}
# Their loss of an example depends on the others of its batch, but not on their order.
OF_A_BATCH = {
    "free_bits": {},
    "capacity": {},
    "tcvae": {"stratified": False},
    "dipvae_i": {},
    "dipvae_ii": {},
    "factorvae": {"discriminator_width": 8},
}
OF_AN_EXAMPLE = {
    "elbo": {},
    "iwae": {"num_samples": 3},
    "dreg": {"num_samples": 3},
    "hybrid": {"prior": "conditional"},
}


@cache
def build(name, batch_size, **options):
    """Model, parameters and settings of a member."""
    fields = (OF_A_BATCH | OF_AN_EXAMPLE | {"multirate": {"warmup_epochs": 0.0}})[name]
    known = {"warmup_epochs", *options_of(OBJECTIVES[name])}
    own = {option: value for option, value in OPTIONS.items() if option in known}
    config = from_flat(
        objective=name, batch_size=batch_size, hidden=(8,), latent_dim=2, **(own | fields | options)
    )
    model = config.objective.adapted(
        CVAE(config.network, Bernoulli(), config.prior, Label(3), shape=(8, 8, 1), capacity=Z)
    )
    settings = hparams(config, capacity=Z)
    params = init(model, jax.random.key(0), settings.latent_mask)
    moved = jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params["params"])
    own_variables = config.objective.init(model, settings.key, settings.latent_mask)
    return model, {**params, "params": moved, **own_variables}, settings


@cache
def compiled(model):
    return jax.jit(partial(validate, model, num_examples=NUM_EXAMPLES))


def loss_of(name, batch_size, examples=EXAMPLES, **options):
    model, params, settings = build(name, batch_size, **options)
    return float(compiled(model)(params, examples, settings).loss)


def loss_of_one_batch(model, params, examples, settings, num_examples=NUM_EXAMPLES):
    """The objective of a whole split as one batch."""
    rows = jnp.arange(len(examples))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(evaluation_key(), rows)
    batch = Batch(*examples.take(rows), keys, jax.random.key(0), num_examples=num_examples)
    return jnp.mean(settings.config.objective.loss(model, params, batch).loss)


@pytest.mark.parametrize("name", [*OF_A_BATCH, *OF_AN_EXAMPLE])
def test_a_split_no_larger_than_a_batch_is_one_batch(name):
    model, params, settings = build(name, 64)
    expected = jax.jit(partial(loss_of_one_batch, model))(params, EXAMPLES, settings)
    np.testing.assert_allclose(loss_of(name, 64), expected, rtol=1e-5)


# Seven examples are a batch of four and one of three and another; or three and one of one and two others.
@pytest.mark.parametrize("batch_size", [4, 3])
@pytest.mark.parametrize("name", OF_AN_EXAMPLE)
def test_each_example_counts_once_whatever_the_batches(name, batch_size):
    np.testing.assert_allclose(loss_of(name, batch_size), loss_of(name, 64), rtol=1e-5)


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_what_compares_a_batch_meets_batches_of_the_training_size(name):
    # The same latents are above their floors in every batch, and the batch enters the other's gradient alone.
    if name not in ("free_bits", "factorvae"):
        assert abs(loss_of(name, 4) - loss_of(name, 64)) > 1e-3
    # Of one example there is a batch, too.
    one = Examples(EXAMPLES.x[:1], EXAMPLES.c[:1], EXAMPLES.x_max)
    assert np.isfinite(loss_of(name, 4, one))


@pytest.mark.parametrize(
    "name",
    [
        "hybrid",
        "dreg",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (*OF_A_BATCH, "elbo", "iwae", "multirate")),
    ],
)
def test_distortion_and_rate_are_those_of_evaluation_whatever_the_objective(name):
    model, params, settings = build(name, 4)
    ours = compiled(model)(params, EXAMPLES, settings)
    terms = evaluation.members_elbo_terms(model, jax.tree.map(lambda a: a[None], params), EXAMPLES)
    np.testing.assert_allclose(ours.distortion, np.mean(terms.distortion), rtol=1e-5)
    np.testing.assert_allclose(ours.rate, np.mean(terms.rate), rtol=1e-5)


def test_the_bound_takes_as_many_draws_as_training_at_a_beta_of_one():
    members = [build("iwae", 4, beta=beta) for beta in (0.5, 4.0)]
    model, params, _ = members[0]
    stacked, settings = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member[1:] for member in members))
    bounds = members_bounds(model, stacked, EXAMPLES, settings)
    assert bounds[0] == bounds[1]
    np.testing.assert_allclose(bounds[0], -loss_of("iwae", 4, beta=1.0), rtol=1e-6)
    elbo = compiled(model)(params, EXAMPLES, build("elbo", 4, beta=1.0)[2])
    assert bounds[0] > -elbo.loss + 0.05


# A warm-up of β


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcvae", "dipvae_i", "dipvae_ii", "factorvae"])
def test_a_warm_up_does_not_choose_an_early_epoch(make_sweep, digits, name):
    """Six epochs at the beginning of a long warm-up to β = 30, and one of the parameters of the start."""
    member = {"beta": 30.0, "latent_dim": 4, "warmup_epochs": 1000, "learning_rate": 1e-2}
    if name == "tcvae":
        member |= {"mi_weight": 0.0, "marginal_weight": 0.0}
    model, h, data = make_sweep(member, objective=name, batch_size=256, hidden=(16,), **OF_A_BATCH[name])
    n, per_epoch = len(digits.train), len(digits.train) // 256
    validation = on_device(digits.validation, digits.x_max)
    assert len(validation) <= 256
    alone = jax.tree.map(lambda leaf: leaf[0], h)
    at_the_end = jax.jit(partial(loss_of_one_batch, model, num_examples=n))
    population, losses, bounds = sweep.init(model, h), [], []
    start = jax.tree.map(jnp.copy, population.members.params)
    for epoch in range(1, 8):
        if epoch < 7:
            population = sweep.run_steps(model, population, h, data, jnp.int32(per_epoch))
        else:
            members = population.members.replace(params=start)
            population = population.replace(step=jnp.int32(7 * per_epoch), members=members)
        params = jax.tree.map(lambda leaf: leaf[0], population.members.params)
        losses.append(float(at_the_end(params, validation, alone)))
        population, _, terms = sweep.end_epoch(model, population, h, validation, jnp.int32(per_epoch), n)
        np.testing.assert_allclose(terms.loss, losses[-1], rtol=1e-4)
        bounds.append(float(terms.distortion[0] + terms.rate[0]))
    assert population.members.best.epoch == 1 + np.argmin(losses)
    # The bound prefers parameters of the warm-up; the total correlation that they bring costs more at β = 30.
    if name == "tcvae":
        assert losses[np.argmin(bounds)] > min(losses) + 5.0
