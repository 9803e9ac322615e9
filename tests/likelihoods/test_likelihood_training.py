"""Training under each likelihood: members equal their solo runs, a fitted sigma is calibrated, bits are counted."""

import dataclasses
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import load

from cvae_jax.data.examples import on_device
from cvae_jax.draws import draw
from cvae_jax.errors import DataError, SettingError
from cvae_jax.evaluation import bounds, sampling
from cvae_jax.evaluation.bounds import ElboTerms
from cvae_jax.likelihoods import GaussianOutput, LogisticMixture, fit_logvar
from cvae_jax.objectives import Capacity, DipVaeII, Elbo, FreeBits, TotalCorrelation
from cvae_jax.objectives.base import Batch
from cvae_jax.options import with_values
from cvae_jax.rng import Stream, stream
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import open_session
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.config import from_flat
from cvae_jax.training.schedules import Time
from experiments.reports import results, workdir

FAMILIES = ("gaussian_learned", "gaussian_optimal", "logistic_mixture")
MEMBERS = ({"latent_dim": 3, "beta": 2.0, "learning_rate": 3e-3}, {"latent_dim": 5, "seed": 1})


def options_of(name):
    return {"likelihood": name} | ({"num_components": 2} if name == "logistic_mixture" else {})


def train(make_sweep, name, *members):
    """Sums of the loss after 1, 5 and 20 steps, the members, and what trained them."""
    model, h, data = make_sweep(*members, **options_of(name))
    population, losses = sweep.init(model, h), []
    for num_steps in (1, 4, 15):
        population = sweep.run_steps(model, population, h, data, jnp.int32(num_steps))
        losses.append(np.asarray(population.members.sums.loss))
    return np.stack(losses), jax.tree.map(np.asarray, population.members), (model, h, data)


@pytest.fixture(
    scope="module",
    params=[FAMILIES[0], *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES[1:])],
)
def together(request, make_sweep):
    return request.param, *train(make_sweep, request.param, *MEMBERS)


def test_a_member_equals_its_solo_run(make_sweep, together):
    name, losses, members, _ = together
    assert (members.diverged_step == -1).all()
    configs = [from_flat(**options_of(name), **each) for each in MEMBERS]
    here = sweep.solo_state(jax.tree.map(lambda leaf: leaf[0], members), configs, 0).params
    alone_losses, alone, _ = train(make_sweep, name, MEMBERS[0])
    np.testing.assert_allclose(losses[:, 0], alone_losses[:, 0], rtol=1e-5)
    there = jax.tree.map(lambda leaf: leaf[0], alone.params)
    np.testing.assert_array_equal(here.pop("latents")["mask"], there.pop("latents")["mask"])
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(here), jax.tree.leaves(there), strict=True):
        # How far Adam may go in 20 steps, for biases that start at 0 and have gone nowhere yet.
        reach = 20 * MEMBERS[0]["learning_rate"] * math.sqrt(a.size)
        bound = 1e-4 * max(np.linalg.norm(b), reach)
        assert np.linalg.norm(a - b) <= bound, jax.tree_util.keystr(path)


def test_digits_are_learned_evaluated_and_drawn(digits, together):
    name, losses, members, (model, *_) = together
    steps = np.diff(np.concatenate([np.zeros((1, 2)), losses]), axis=0) / [[1], [4], [15]]
    assert (steps[2] < steps[0]).all()
    test = on_device(digits.test, digits.x_max)
    params = jax.tree.map(jnp.asarray, members.params)
    terms = bounds.members_elbo_terms(model, params, test)
    assert terms.rate.shape == (2, 359)
    assert np.isfinite(terms.distortion).all()
    params = jax.tree.map(lambda leaf: leaf[0], params)
    few = test.replace(x=test.x[:20], c=test.c[:20])
    nll = bounds.importance_nll(model, params, few, jax.random.key(0), num_samples=30, chunk=10)
    # A bound of 30 draws is tighter than of one, on average.
    assert nll.mean() < (terms.distortion + terms.rate)[0, :20].mean()
    images = sampling.generate(model, params, jax.random.key(1), jnp.arange(10))
    assert images.shape == (10, 8, 8, 1)
    if name != "logistic_mixture":
        logvar = members.params["fitted" if name == "gaussian_optimal" else "params"]["logvar"]
        assert logvar.shape == (2,)
        assert logvar[0] != logvar[1]
        assert (logvar != model.likelihood.initial_logvar).all()


# The fitted sigma


def batch_of(h, x, c, step):
    """A batch with the keys of a step."""
    noise = jax.random.fold_in(stream(h.key, Stream.NOISE), step)
    return Batch(x, c, jax.random.split(noise, len(x)), jax.random.key(0))


@pytest.fixture(scope="module")
def optimal(make_sweep):
    """A model, its member's settings and first state, four x with their labels, and its jitted step."""
    model, h, _ = make_sweep({"latent_dim": 4}, likelihood="gaussian_optimal")
    h = jax.tree.map(lambda leaf: leaf[0], h)
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 8, 1)).astype(np.float32)

    @jax.jit
    def step(state, x, h, t):
        batch = batch_of(h, x, jnp.arange(8, dtype=jnp.int32), t)
        return training.train_step(model, state, batch, h, Time(t))

    return model, h, jax.jit(partial(training.init, model))(h), jnp.asarray(x), step


@partial(jax.jit, static_argnames="model")
def squared_errors(model, params, h, x, t):
    """Of every example, at the z that a step draws."""
    batch = batch_of(h, x, jnp.arange(8, dtype=jnp.int32), t)
    q = model.encode(params, batch.x, batch.c)
    noise = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(q.mean.shape[1])))(
        batch.keys
    )
    noise = jax.vmap(jax.vmap(jax.random.normal))(noise)
    output = model.decode(params, q.mean + jnp.exp(0.5 * q.logvar) * noise, batch.c)
    return jnp.mean(jnp.square(batch.x - output.mean), axis=(1, 2, 3))


@partial(jax.jit, static_argnames=("model", "fits"))
def log_likelihoods(model, params, h, x, fits):
    """Of every example, at the z of step 0, under the model's sigma or one that is fitted to x."""
    batch = batch_of(h, x, jnp.arange(8, dtype=jnp.int32), jnp.int32(0))
    drawn = draw(model, params, batch.x, batch.c, batch.keys)
    if not fits:
        return drawn.log_likelihood
    return model.log_prob(fit_logvar(model.decode(params, drawn.inference.z, batch.c), batch.x), batch.x)


def test_the_variance_kept_is_the_mean_of_the_batches_own(optimal):
    model, h, state, batches, step = optimal
    errors = []
    for t, x in enumerate(batches):
        errors.append(squared_errors(model, state.params, h, x, jnp.int32(t)).mean())
        before = state
        state = step(state, x, h, jnp.int32(t))
        np.testing.assert_allclose(
            state.sums.distortion - before.sums.distortion,
            32 * (1 + np.log(2 * np.pi * errors[-1])),
            rtol=1e-4,
        )
        np.testing.assert_allclose(np.exp(state.params["fitted"]["logvar"]), np.mean(errors), rtol=1e-5)
    # After many steps it forgets, a hundredth at a time.
    later = step(state, batches[0], h, jnp.int32(1000)).params["fitted"]["logvar"]
    error = squared_errors(model, state.params, h, batches[0], jnp.int32(1000)).mean()
    np.testing.assert_allclose(np.exp(later), 0.99 * np.mean(errors) + 0.01 * error, rtol=1e-5)


def test_the_variance_kept_has_no_gradient_and_no_decay(optimal):
    _, h, state, batches, step = optimal
    state = step(state, batches[0], h, jnp.int32(0))
    optimizer = with_values(h.config.optimizer, weight_decay=jnp.float32(100.0))
    decayed_h = h.replace(config=with_values(h.config, optimizer=optimizer))
    decayed = step(state, batches[1], decayed_h, jnp.int32(1))
    plain = step(state, batches[1], h, jnp.int32(1))
    np.testing.assert_array_equal(decayed.params["fitted"]["logvar"], plain.params["fitted"]["logvar"])
    leaves = zip(*(jax.tree.leaves(each.params["params"]) for each in (decayed, plain)), strict=True)
    assert any((a != b).any() for a, b in leaves)
    assert set(plain.opt_state) == {"params"}
    assert "logvar" not in plain.params["params"]


def test_a_member_that_diverges_keeps_its_sigma(optimal):
    _, h, state, batches, step = optimal
    state = step(state, batches[0], h, jnp.int32(0))
    failed = step(state, batches[1].at[0, 0, 0, 0].set(jnp.nan), h, jnp.int32(1))
    assert failed.diverged_step == 1
    later = step(failed, batches[2], h, jnp.int32(2))
    for after in (failed, later):
        jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_evaluation_fits_nothing_to_what_it_evaluates(optimal):
    model, h, state, batches, step = optimal
    params = step(state, batches[0], h, jnp.int32(0)).params
    x = batches[1]
    evaluated, fitted = (log_likelihoods(model, params, h, x, fits) for fits in (False, True))
    errors = squared_errors(model, params, h, x, jnp.int32(0))
    logvar = params["fitted"]["logvar"]
    expected = -0.5 * 64 * (errors / np.exp(logvar) + logvar + np.log(2 * np.pi))
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4)
    # The batch's own sigma makes the batch likelier, and any example's value the others' affair.
    assert fitted.sum() > evaluated.sum()
    other = x.at[1:].set(1 - x[1:])
    again = log_likelihoods(model, params, h, other, False)
    np.testing.assert_allclose(again[0], evaluated[0], rtol=1e-6)
    assert log_likelihoods(model, params, h, other, True)[0] != fitted[0]


@pytest.mark.parametrize(
    "objective",
    [FreeBits(free_bits=0.5), Capacity(kl_target=3.0), TotalCorrelation(), DipVaeII()],
    ids=lambda objective: type(objective).__name__,
)
def test_every_objective_of_one_draw_fits_sigma_alike(optimal, objective):
    model, h, state, batches, _ = optimal
    batch = batch_of(h, batches[0], jnp.arange(8, dtype=jnp.int32), jnp.int32(0)).replace(num_examples=100)
    (hook,) = h.config.all_hooks
    changed, _ = hook.prepare(model, batch, jax.random.key(0), Time(jnp.int32(0)))
    here, elbo = (jax.jit(partial(each.loss, changed))(state.params, batch) for each in (objective, Elbo()))
    np.testing.assert_allclose(here.distortion, elbo.distortion, rtol=1e-6)
    assert np.isfinite(here.loss).all()


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_objectives_of_many_draws_refuse_a_fitted_sigma(objective):
    with pytest.raises(
        SettingError,
        match=f"likelihood is 'gaussian_optimal', expected .*gaussian_learned.* the objective {objective}",
    ):
        from_flat(likelihood="gaussian_optimal", objective=objective)


# A learned sigma


def test_a_learned_sigma_starts_where_it_is_set_and_falls_with_the_error(make_sweep):
    model, h, _ = make_sweep(
        {"latent_dim": 4, "learning_rate": 0.05}, likelihood="gaussian_learned", sigma=0.3
    )
    h = jax.tree.map(lambda leaf: leaf[0], h)
    state = jax.jit(partial(training.init, model))(h)
    np.testing.assert_allclose(state.params["params"]["logvar"], 2 * np.log(0.3), rtol=1e-6)
    # Far too wide: the first update takes it down by the learning rate.
    wide = {"params": state.params["params"] | {"logvar": jnp.float32(3.0)}}
    state = dataclasses.replace(state, params=state.params | wide)
    batch = batch_of(h, jnp.full((8, 8, 8, 1), 0.5), jnp.arange(8, dtype=jnp.int32), jnp.int32(0))
    step = jax.jit(partial(training.train_step, model))
    after = step(state, batch, h, Time(jnp.int32(0))).params["params"]["logvar"]
    np.testing.assert_allclose(after, 2.95, rtol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param("gaussian_learned", marks=pytest.mark.slow), "logistic_mixture"]
)
def test_draws_by_the_dozen_work_under_every_output(make_sweep, name):
    model, h, _ = make_sweep({"latent_dim": 4}, objective="dreg", num_samples=3, likelihood=name)
    h = jax.tree.map(lambda leaf: leaf[0], h)
    state = jax.jit(partial(training.init, model))(h)
    batch = batch_of(h, jnp.full((4, 8, 8, 1), 0.5), jnp.arange(4, dtype=jnp.int32), jnp.int32(0))
    terms = jax.jit(lambda params, batch: h.config.objective.loss(model, params, batch))(state.params, batch)
    assert terms.loss.shape == (4,)
    assert np.isfinite(terms.loss).all()


# Whole levels and bits


def test_a_model_of_digits_counts_seventeen_levels(make_sweep, digits):
    model, *_ = make_sweep({"latent_dim": 2}, likelihood="logistic_mixture")
    assert model.likelihood.levels == digits.levels == 17


def shapes_of(make_sweep, **shared):
    """A model, and the shapes of its parameters and of its output for three examples."""
    model, *_ = make_sweep({"latent_dim": 2}, **shared)
    params = jax.eval_shape(model.init, jax.random.key(0))
    return model, params, jax.eval_shape(model.decode, params, jnp.zeros((3, 2)), jnp.zeros(3, jnp.int32))


def test_the_decoder_has_as_many_outputs_as_a_mixture_needs(make_sweep):
    *_, output = shapes_of(make_sweep, likelihood="logistic_mixture", network="conv")
    assert output.shape == (3, 8, 8, 15)


def test_parameters_of_other_likelihoods_are_the_same(make_sweep):
    def names(name):
        _, params, _ = shapes_of(make_sweep, likelihood=name)
        return {
            jax.tree_util.keystr(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(params)
        }

    plain = names("bernoulli")
    assert names("gaussian") == plain
    assert names("gaussian_learned") == plain | {"['params']['logvar']": ()}
    assert names("gaussian_optimal") == plain | {"['fitted']['logvar']": ()}


@pytest.mark.parametrize("name", FAMILIES)
def test_binary_pixels_are_refused(name):
    with pytest.raises(SettingError, match=f"expected none with the {name} likelihood"):
        from_flat(likelihood=name, binarize="dynamic")


def test_a_mixture_of_none_is_refused():
    with pytest.raises(SettingError, match="num_components is 0, expected a whole number ≥ 1"):
        LogisticMixture(num_components=0)


def test_floating_pixels_are_refused_under_the_mixture(tmp_path):
    file = tmp_path / "grey.npz"
    rng = np.random.default_rng(0)
    np.savez(file, x_train=rng.uniform(size=(40, 8, 8)).astype(np.float32), c_train=np.arange(40) % 2)
    with pytest.raises(
        DataError, match="expected whole numbers from 0 to 255, such as uint8, under the logistic_mixture"
    ):
        load(file, likelihood="logistic_mixture")


def test_bits_are_counted_per_number():
    terms = ElboTerms(jnp.array([[80.0, 90.0]]), jnp.array([[20.0, 30.0]]))
    (metrics,) = bounds.summarize(terms, dims=64)
    np.testing.assert_allclose(metrics["bits_per_dim"], 110 / (64 * math.log(2)), rtol=1e-6)
    assert "bits_per_dim" not in bounds.summarize(terms)[0]


@pytest.mark.parametrize(
    ("name", "counts"),
    [pytest.param("logistic_mixture", True, marks=pytest.mark.slow), ("gaussian_learned", False)],
)
def test_results_count_bits_where_pixels_are_whole_levels(tmp_path, cache_dir, name, counts):
    run = Run("train", (from_flat(**options_of(name), latent_dim=2),))
    session = open_session(run, Path(cache_dir))
    (part,) = session.parts
    best = sweep.init(session.model, part.hparams).members.best
    metrics = results.split_metrics(session, part, best, [])
    for (each,) in metrics.values():
        assert ("bits_per_dim" in each) == counts
        if counts:
            np.testing.assert_allclose(each["bits_per_dim"], -each["elbo"] / (64 * math.log(2)))
    line = workdir.test_line({"test": metrics["test"][0]})
    assert line.endswith("bits per dimension" if counts else "nats")


def test_an_output_of_many_numbers_is_a_pytree(make_sweep):
    *_, output = shapes_of(make_sweep, likelihood="gaussian_learned")
    assert isinstance(output, GaussianOutput)
    assert (output.mean.shape, output.logvar.shape) == ((3, 8, 8, 1), (3,))
