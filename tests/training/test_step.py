"""One member's step: the loss it lowers, its noise, its optimizer, and what happens to a loss that is not finite."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import decode

from cvae_jax.likelihoods import Bernoulli, Gaussian
from cvae_jax.objectives import Batch, Elbo
from cvae_jax.options import with_values
from cvae_jax.rng import Stream, stream
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.config import at, from_flat
from cvae_jax.training.hparams import hparams
from cvae_jax.training.schedules import Time
from cvae_jax.training.step import DIVERGED_TERMS

BATCH, PER_EPOCH = 8, 10


def settings(model, **options):
    return hparams(from_flat(**({"latent_dim": 4} | options)), capacity=model.capacity)


def example_keys(key, step, n):
    return jax.random.split(jax.random.fold_in(stream(key, Stream.NOISE), step), n)


@pytest.fixture(scope="module")
def model(make_sweep):
    return make_sweep({"latent_dim": 4})[0]


@pytest.fixture(scope="module")
def batch():
    x = np.random.default_rng(0).integers(0, 2, (BATCH, 8, 8, 1))
    return jnp.asarray(x, jnp.float32), jnp.arange(BATCH, dtype=jnp.int32)


@pytest.fixture(scope="module")
def init(model):
    return jax.jit(partial(training.init, model))


@pytest.fixture(scope="module")
def train_step(model):
    @jax.jit
    def step(state, batch, h, step):
        x, c = batch
        batch = Batch(x, c, example_keys(h.key, step, BATCH), jax.random.key(9))
        delay = sum((hook.delay() for hook in h.config.hooks), 0.0)
        return training.train_step(model, state, batch, h, Time(step, delay, steps_per_epoch=PER_EPOCH))

    return step


@pytest.fixture(scope="module")
def terms_of(model):
    """Mean terms of a batch under the noise of step 0, and the gradients of loss and distortion."""

    @jax.jit
    def compute(params, batch, key, beta):
        x, c = batch
        batch = Batch(x, c, example_keys(key, 0, BATCH), jax.random.key(9))

        def mean(name, inner):
            terms = with_values(Elbo(), beta=beta).loss(model, params | {"params": inner}, batch)
            return jnp.mean(getattr(terms, name))

        loss, gradient = jax.value_and_grad(partial(mean, "loss"))(params["params"])
        distortion, of_distortion = jax.value_and_grad(partial(mean, "distortion"))(params["params"])
        rate = mean("rate", params["params"])
        return {"loss": loss, "distortion": distortion, "rate": rate}, gradient, of_distortion

    return compute


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# The step


def test_a_step_adds_its_terms_to_the_sums(model, init, batch, train_step, terms_of):
    h = settings(model, beta=2.0)
    state = init(h)
    terms, _, _ = terms_of(state.params, batch, h.key, 2.0)
    once = train_step(state, batch, h, jnp.int32(0))
    for name, value in terms.items():
        np.testing.assert_allclose(getattr(once.sums, name), value, rtol=1e-5)
    np.testing.assert_allclose(once.sums.loss, once.sums.distortion + 2 * once.sums.rate, rtol=1e-6)
    twice = train_step(once, batch, h, jnp.int32(1))
    assert twice.sums.loss > once.sums.loss


# β


def test_a_step_uses_the_warmed_up_beta(model, init, batch, train_step):
    h = settings(model, beta=4.0, warmup_epochs=1)
    sums = train_step(init(h), batch, h, jnp.int32(5)).sums
    np.testing.assert_allclose(sums.loss, sums.distortion + 2.0 * sums.rate, rtol=1e-6)


def test_at_beta_zero_the_rate_is_not_in_the_gradient(model, init, batch, terms_of):
    h = settings(model)
    params = init(h).params
    _, without, of_distortion = terms_of(params, batch, h.key, 0.0)
    _, with_rate, _ = terms_of(params, batch, h.key, 1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), without, of_distortion)
    bias = lambda gradient: gradient["to_latents"]["logvar_bias"]  # noqa: E731
    assert (jnp.abs(bias(with_rate) - bias(without)) > 1e-3).any()


# Noise


def test_every_example_of_every_step_of_every_member_has_its_own_key(make_sweep, monkeypatch):
    def record(model, state, batch, hparams, time):
        seen = jax.random.key_data(batch.keys)
        return dataclasses.replace(state, params=state.params.at[time.step].set(seen))

    monkeypatch.setattr(training, "train_step", record)
    model, h, data = make_sweep(*({"seed": seed} for seed in range(3)), batch_size=16)
    nothing = dict.fromkeys(field.name for field in dataclasses.fields(training.TrainState))
    start = training.TrainState(**(nothing | {"params": jnp.zeros((3, 1001, 16, 2), jnp.uint32)}))
    found = sweep.Population(jnp.int32(0), start)
    for step, num_steps in ((0, 3), (1000, 1)):
        found = dataclasses.replace(found, step=jnp.int32(step))
        found = sweep.run_steps(model, found, h, data, jnp.int32(num_steps))
    rows = found.members.params[:, jnp.array([0, 1, 2, 1000])].reshape(-1, 2)
    assert len(np.unique(rows, axis=0)) == len(rows) == 3 * 4 * 16


def test_streams_of_one_key_are_distinct():
    rows = [jax.random.key_data(stream(jax.random.key(0), name)) for name in Stream]
    assert len(np.unique(rows, axis=0)) == len(Stream)


def test_noise_follows_seed_and_step(model, init, batch, train_step):
    h, other = settings(model), settings(model, seed=1)
    state = init(h)
    distortion = lambda h, step: float(train_step(state, batch, h, jnp.int32(step)).sums.distortion)  # noqa: E731
    assert distortion(h, 0) == distortion(h, 0)
    assert len({distortion(h, 0), distortion(h, 1), distortion(other, 0)}) == 3


# Divergence


def grown(params, mean_bias):
    """Parameters with a posterior mean far away, that the decoder does not look at."""
    inner = dict(params["params"])
    inner["to_latents"] = inner["to_latents"] | {"mean_bias": jnp.full(4, mean_bias)}
    inner["decoder"] = inner["decoder"] | {
        "FromLatents_0": inner["decoder"]["FromLatents_0"] | {"kernel": jnp.zeros((4, 512))}
    }
    return params | {"params": inner}


@pytest.mark.parametrize("term", DIVERGED_TERMS)
def test_what_is_not_finite_freezes_the_member_and_is_recorded(model, init, batch, train_step, term):
    h = settings(model, weight_decay=0.1)
    state = train_step(init(h), batch, h, jnp.int32(0))
    bad = batch
    if term == "distortion":
        bad = (batch[0].at[3, 2, 2, 0].set(jnp.nan), batch[1])
    elif term == "rate":
        state = state.replace(params=grown(state.params, 1e30))
    else:
        state = state.replace(params=grown(state.params, 3e18))
    failed = train_step(state, bad, h, jnp.int32(7))
    assert failed.diverged_step == 7
    assert DIVERGED_TERMS[int(failed.diverged_term)] == term
    assert_same_bits(failed.params, state.params)
    assert_same_bits(failed.sums, state.sums)
    for step in (8, 9):
        failed = train_step(failed, batch, h, jnp.int32(step))
    assert failed.diverged_step == 7
    assert DIVERGED_TERMS[int(failed.diverged_term)] == term
    assert_same_bits(failed.params, state.params)
    assert_same_bits(failed.sums, state.sums)


def test_a_finite_step_does_not_count_as_diverged(model, init, batch, train_step):
    h = settings(model)
    state = train_step(init(h), batch, h, jnp.int32(0))
    assert state.diverged_step == -1
    assert not np.array_equal(*(s.params["params"]["to_latents"]["mean_bias"] for s in (state, init(h))))


# The optimizer


@pytest.mark.parametrize("clip_norm", [0.5, np.inf])
@pytest.mark.parametrize(("weight_decay", "epsilon"), [(0.0, 1e-8), (0.3, 1e-8), (0.3, 0.1)])
def test_a_step_is_that_of_adamw_by_hand(
    model, init, batch, train_step, terms_of, clip_norm, weight_decay, epsilon
):
    h = settings(
        model, learning_rate=0.01, clip_norm=clip_norm, weight_decay=weight_decay, adam_epsilon=epsilon
    )
    state = init(h)
    _, gradient, _ = terms_of(state.params, batch, h.key, 1.0)
    norm = optax.tree.norm(gradient)
    assert norm > 1.0
    clipped = jax.tree.map(lambda g: g * min(1.0, clip_norm / norm), gradient)
    tx = optax.adamw(0.01, eps=epsilon, weight_decay=weight_decay)
    with jax.numpy_dtype_promotion("standard"):
        inner = state.params["params"]
        updates, opt_state = tx.update(clipped, tx.init(inner), inner)
    after = train_step(state, batch, h, jnp.int32(0))
    adam = after.opt_state["params"][0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
        adam.mu,
        opt_state[0].mu,
    )
    np.testing.assert_allclose(optax.tree.norm(adam.mu), 0.1 * min(norm, clip_norm), rtol=1e-5)
    # Where the gradient is more than rounding, Adam's first update is all but its sign.
    trees = (inner, updates, clipped, after.params["params"])
    for p, u, g, q in zip(*map(jax.tree.leaves, trees), strict=True):
        clear = np.abs(g) > 1e-6
        np.testing.assert_allclose((q - p)[clear], u[clear], rtol=1e-2, atol=1e-6)


def learning_rate(config, epoch):
    return at(config, Time(jnp.int32(epoch), epochs=config.epochs)).optimizer.learning_rate


def test_the_iwae_papers_learning_rate_falls_in_stages():
    passes = np.repeat(np.arange(8), 3 ** np.arange(8))
    assert len(passes) == 3280
    epochs = [0, 1, 3, 4, 12, 13, 39, 40, 120, 121, 363, 364, 1092, 1093, 3279]
    expected = 1e-3 * 10.0 ** (-passes[epochs] / 7)
    config = from_flat(learning_rate=1e-3, learning_rate_schedule="iwae")
    np.testing.assert_allclose([learning_rate(config, epoch) for epoch in epochs], expected, rtol=1e-6)
    np.testing.assert_allclose(learning_rate(config, 9999), 1e-4, rtol=1e-6)
    constant = from_flat(learning_rate=1e-3)
    assert at(constant, Time(jnp.int32(9999))).optimizer is constant.optimizer


def test_the_learning_rate_falls_along_a_cosine():
    config = from_flat(learning_rate=2e-3, learning_rate_schedule="cosine", epochs=20)
    epochs = np.array([0, 5, 10, 19, 20, 25])
    expected = 1e-3 * (1 + np.cos(np.pi * np.minimum(epochs, 20) / 20))
    rates = [learning_rate(config, epoch) for epoch in epochs]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-10)


# Likelihoods


def draws(family, output, n=40_000):
    sample = jax.jit(jax.vmap(family.sample, (0, None)))
    return np.asarray(sample(jax.random.split(jax.random.key(0), n), output), np.float64), family.mean(output)


def test_bernoulli_samples_are_binary_with_the_stated_mean():
    x, mean = draws(Bernoulli(), jnp.array([-3.0, 0.0, 1.0]))
    assert set(np.unique(x)) == {0.0, 1.0}
    p = 1 / (1 + np.exp([3.0, 0.0, -1.0]))
    np.testing.assert_allclose(mean, p, rtol=1e-6)
    assert (np.abs(x.mean(0) - p) < 4 * np.sqrt(p * (1 - p) / len(x))).all()
    assert (np.abs(np.corrcoef(x.T)[np.triu_indices(3, 1)]) < 0.02).all()


def test_gaussian_samples_have_the_stated_moments():
    output = jnp.array([-1.0, 0.0, 2.0])
    x, mean = draws(Gaussian(sigma=0.2), output)
    np.testing.assert_array_equal(mean, output)
    assert (np.abs(x.mean(0) - output) < 4 * 0.2 / np.sqrt(len(x))).all()
    np.testing.assert_allclose(x.std(0), 0.2, rtol=0.02)


@pytest.mark.parametrize("family", [Bernoulli(), Gaussian()], ids=["bernoulli", "gaussian"])
def test_log_prob_is_highest_at_the_mean(family):
    x = jnp.array([0.2, 0.9])
    output = jnp.log(x / (1 - x)) if isinstance(family, Bernoulli) else x
    np.testing.assert_allclose(family.mean(output), x, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(family.log_prob)(output, x), 0.0, atol=1e-5)


# The condition first


def test_the_decoder_learns_of_the_condition_before_it_receives_z(model, init, batch, train_step):
    h = settings(model, condition_first_epochs=0.5)  # five steps
    states = [init(h)]
    for i in range(6):
        states.append(train_step(states[-1], batch, h, jnp.int32(i)))
    params = [jax.device_get(state.params["params"]) for state in states]

    for early in params[1:6]:
        for part in ("encoder", "to_latents"):
            jax.tree.map(np.testing.assert_array_equal, early[part], params[0][part])
        kernels = (p["decoder"]["FromLatents_0"]["kernel"] for p in (early, params[0]))
        np.testing.assert_array_equal(*kernels)
        assert differ(early["decoder"], params[0]["decoder"])
    for part in ("encoder", "to_latents", "decoder"):
        assert differ(params[6][part], params[5][part])

    x, c = batch
    blind = decode(model, states[0].params, jnp.zeros((BATCH, 4)), c)
    expected = -jax.vmap(model.likelihood.log_prob)(blind, x).mean()
    np.testing.assert_allclose(states[1].sums.distortion, expected, rtol=1e-5)


def test_adam_starts_anew_when_z_comes_in(model, init, batch, train_step):
    h = settings(model, condition_first_epochs=0.5)
    fresh = init(h)
    used = dataclasses.replace(fresh, opt_state=jax.tree.map(lambda a: a + 1, fresh.opt_state))
    for step, same in ((4, False), (5, True), (6, False)):
        from_fresh, from_used = (
            train_step(state, batch, h, jnp.int32(step)).params for state in (fresh, used)
        )
        assert differ(from_fresh, from_used) != same
    # From there on it is the step of a member whose decoder received z from the start.
    plain = settings(model)
    alone = train_step(init(plain), batch, plain, jnp.int32(5)).params["params"]
    delayed = train_step(fresh, batch, h, jnp.int32(5)).params["params"]
    for x, y in zip(jax.tree.leaves(delayed), jax.tree.leaves(alone), strict=True):
        assert np.linalg.norm(x - y) <= 1e-4 * np.linalg.norm(y)


def differ(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
