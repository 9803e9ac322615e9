"""Training under each likelihood: members equal their solo runs, a fitted sigma is calibrated, bits are counted."""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.config import Config, Member
from cvae_jax.data import reading
from cvae_jax.draws import draw
from cvae_jax.errors import DataError, SettingError
from cvae_jax.evaluation import bounds, sampling
from cvae_jax.evaluation.bounds import ElboTerms
from cvae_jax.likelihoods.families import GaussianOutput
from cvae_jax.model import decode
from cvae_jax.objectives import registry
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.step import Batch
from experiments import loop, results, workdir
from experiments.workdir import Run

FAMILIES = ("gaussian_learned", "gaussian_optimal", "logistic_mixture")
MEMBERS = (Member(latent_dim=3, beta=2.0, learning_rate=3e-3), Member(latent_dim=5, seed=1))


def train(make_sweep, name, *members):
    """Sums of the loss after 1, 5 and 20 steps, the members, and what trained them."""
    model, h, examples = make_sweep(*members, likelihood=name, binarize="none", num_components=2)
    population, losses = sweep.init(model, h), []
    for num_steps in (1, 4, 15):
        population = sweep.run_steps(model, population, h, examples, jnp.int32(num_steps))
        losses.append(np.asarray(population.members.sums.loss))
    return np.stack(losses), jax.tree.map(np.asarray, population.members), (model, h, examples)


@pytest.fixture(scope="module", params=FAMILIES)
def together(request, make_sweep):
    return request.param, *train(make_sweep, request.param, *MEMBERS)


def test_a_member_equals_its_solo_run(make_sweep, together):
    name, losses, members, _ = together
    assert (members.diverged_step == -1).all()
    here = sweep.as_alone(jax.tree.map(lambda leaf: leaf[0], members), MEMBERS[0]).params
    alone_losses, alone, _ = train(make_sweep, name, MEMBERS[0])
    np.testing.assert_allclose(losses[:, 0], alone_losses[:, 0], rtol=1e-5)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(here), jax.tree.leaves(alone.params), strict=True
    ):
        # How far Adam may go in 20 steps, for biases that start at 0 and have gone nowhere yet.
        reach = 20 * MEMBERS[0].learning_rate * math.sqrt(a.size)
        bound = 1e-4 * max(np.linalg.norm(b), reach)
        assert np.linalg.norm(a - b[0]) <= bound, jax.tree_util.keystr(path)


def test_digits_are_learned_evaluated_and_drawn(digits, together):
    name, losses, members, (model, h, _) = together
    steps = np.diff(np.concatenate([np.zeros((1, 2)), losses]), axis=0) / [[1], [4], [15]]
    assert (steps[2] < steps[0]).all()
    test = bounds.on_device(digits.test, digits.x_max)
    terms = bounds.members_elbo_terms(model, jax.tree.map(jnp.asarray, members.params), test, h.latent_mask)
    assert terms.rate.shape == (2, 359)
    assert np.isfinite(terms.distortion).all()
    params, mask = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), (members.params, h.latent_mask))
    few = test.replace(x=test.x[:20], c=test.c[:20])
    nll = bounds.importance_nll(model, params, few, mask, jax.random.key(0), num_samples=30, chunk=10)
    # A bound of 30 draws is tighter than of one, on average.
    assert nll.mean() < (terms.distortion + terms.rate)[0, :20].mean()
    images = sampling.generate(model, params, jax.random.key(1), jnp.arange(10), mask)
    assert images.shape == (10, 8, 8, 1)
    if name != "logistic_mixture":
        logvar = members.params["fitted" if name == "gaussian_optimal" else "params"]["logvar"]
        assert logvar.shape == (2,)
        assert logvar[0] != logvar[1]
        assert (logvar != model.likelihood.logvar).all()


# The fitted sigma


@pytest.fixture(scope="module")
def optimal(make_sweep):
    """A model, its member's settings and first state, four batches, and its jitted step."""
    model, h, _ = make_sweep(Member(latent_dim=4), likelihood="gaussian_optimal", binarize="none")
    h = jax.tree.map(lambda leaf: leaf[0], h)
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 8, 1)).astype(np.float32)
    batches = [Batch(jnp.asarray(each), jnp.arange(8, dtype=jnp.int32)) for each in x]
    step = jax.jit(partial(training.train_step, model, objective=registry.negative_beta_elbo))
    return model, h, jax.jit(partial(training.init, model))(h), batches, step


@partial(jax.jit, static_argnames="model")
def squared_errors(model, params, batch, keys, mask):
    """Of every example, at the z that training draws."""
    q = model.apply(params, batch.x, batch.c, mask, method="encode")
    noise = jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(q.mean.shape[1])))(
        keys
    )
    noise = jax.vmap(jax.vmap(jax.random.normal))(noise)
    output = decode(model, params, q.mean + jnp.exp(0.5 * q.logvar) * noise, batch.c, mask)
    return jnp.mean(jnp.square(batch.x - output.mean), axis=(1, 2, 3))


def test_the_variance_kept_is_the_mean_of_the_batches_own(optimal):
    model, h, state, batches, step = optimal
    errors = []
    for t, batch in enumerate(batches):
        keys = training.example_keys(h.key, jnp.int32(t), 8)
        errors.append(squared_errors(model, state.params, batch, keys, h.latent_mask).mean())
        before = state
        state = step(state, batch, h, jnp.int32(t))
        np.testing.assert_allclose(
            state.sums.distortion - before.sums.distortion,
            32 * (1 + np.log(2 * np.pi * errors[-1])),
            rtol=1e-4,
        )
        np.testing.assert_allclose(np.exp(state.params["fitted"]["logvar"]), np.mean(errors), rtol=1e-5)
    # After many steps it forgets, a hundredth at a time.
    later = step(state, batches[0], h, jnp.int32(1000)).params["fitted"]["logvar"]
    keys = training.example_keys(h.key, jnp.int32(1000), 8)
    error = squared_errors(model, state.params, batches[0], keys, h.latent_mask).mean()
    np.testing.assert_allclose(np.exp(later), 0.99 * np.mean(errors) + 0.01 * error, rtol=1e-5)


def test_the_variance_kept_has_no_gradient_and_no_decay(optimal):
    _, h, state, batches, step = optimal
    state = step(state, batches[0], h, jnp.int32(0))
    decayed = step(state, batches[1], h.replace(weight_decay=jnp.float32(100.0)), jnp.int32(1))
    plain = step(state, batches[1], h, jnp.int32(1))
    np.testing.assert_array_equal(decayed.params["fitted"]["logvar"], plain.params["fitted"]["logvar"])
    assert set(plain.opt_state) == {"params"}
    assert "logvar" not in plain.params["params"]


def test_a_member_that_diverges_keeps_its_sigma(optimal):
    _, h, state, batches, step = optimal
    state = step(state, batches[0], h, jnp.int32(0))
    broken = batches[1]._replace(x=batches[1].x.at[0, 0, 0, 0].set(jnp.nan))
    failed = step(state, broken, h, jnp.int32(1))
    assert failed.diverged_step == 1
    later = step(failed, batches[2], h, jnp.int32(2))
    for after in (failed, later):
        jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_evaluation_fits_nothing_to_what_it_evaluates(optimal):
    model, h, state, batches, step = optimal
    params = step(state, batches[0], h, jnp.int32(0)).params
    batch, mask = batches[1], h.latent_mask
    keys = training.example_keys(h.key, jnp.int32(0), 8)
    run = jax.jit(draw, static_argnums=0)
    fitting = model.clone(fits_batch=True)
    evaluated, fitted = (
        run(m, params, batch.x, batch.c, keys, mask).log_likelihood for m in (model, fitting)
    )
    errors = squared_errors(model, params, batch, keys, mask)
    logvar = params["fitted"]["logvar"]
    expected = -0.5 * 64 * (errors / np.exp(logvar) + logvar + np.log(2 * np.pi))
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4)
    # The batch's own sigma makes the batch likelier, and any example's value the others' affair.
    assert fitted.sum() > evaluated.sum()
    other = batch._replace(x=batch.x.at[1:].set(1 - batch.x[1:]))
    again = run(model, params, other.x, other.c, keys, mask).log_likelihood
    np.testing.assert_allclose(again[0], evaluated[0], rtol=1e-6)
    assert run(fitting, params, other.x, other.c, keys, mask).log_likelihood[0] != fitted[0]


@pytest.mark.parametrize(
    "loss",
    [
        registry.free_bits_loss,
        registry.capacity_loss,
        partial(registry.total_correlation_loss, num_examples=100, stratified=True),
        partial(registry.moment_matching_loss, of_aggregate=True),
    ],
)
def test_every_objective_of_one_draw_fits_sigma_alike(optimal, loss):
    model, h, state, batches, _ = optimal
    model = model.clone(fits_batch=True)
    keys = training.example_keys(h.key, jnp.int32(0), 8)
    h = h.replace(free_bits=jnp.float32(0.5), kl_target=jnp.float32(3.0))
    here, elbo = (
        jax.jit(partial(f, model))(state.params, *batches[0][:2], keys, h)
        for f in (loss, registry.negative_beta_elbo)
    )
    np.testing.assert_allclose(here.distortion, elbo.distortion, rtol=1e-6)
    assert np.isfinite(here.loss).all()


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_objectives_of_many_draws_refuse_a_fitted_sigma(objective):
    with pytest.raises(SettingError, match=f"objective is '{objective}'.*gaussian_optimal.*gaussian_learned"):
        Config(likelihood="gaussian_optimal", binarize="none", objective=objective)


# A learned sigma


def test_a_learned_sigma_starts_where_it_is_set_and_falls_with_the_error(make_sweep):
    model, h, _ = make_sweep(
        Member(latent_dim=4, learning_rate=0.05), likelihood="gaussian_learned", binarize="none", sigma=0.3
    )
    h = jax.tree.map(lambda leaf: leaf[0], h)
    state = jax.jit(partial(training.init, model))(h)
    np.testing.assert_allclose(state.params["params"]["logvar"], 2 * np.log(0.3), rtol=1e-6)
    # Far too wide: the first update takes it down by the learning rate.
    wide = {"params": state.params["params"] | {"logvar": jnp.float32(3.0)}}
    step = jax.jit(partial(training.train_step, model, objective=registry.negative_beta_elbo))
    batch = Batch(jnp.full((8, 8, 8, 1), 0.5), jnp.arange(8, dtype=jnp.int32))
    after = step(state.replace(params=wide), batch, h, jnp.int32(0)).params["params"]["logvar"]
    np.testing.assert_allclose(after, 2.95, rtol=1e-4)


@pytest.mark.parametrize("name", ["gaussian_learned", "logistic_mixture"])
def test_draws_by_the_dozen_work_under_every_output(make_sweep, name):
    model, h, _ = make_sweep(
        Member(latent_dim=4), likelihood=name, binarize="none", objective="dreg", num_samples=3
    )
    h = jax.tree.map(lambda leaf: leaf[0], h)
    state = jax.jit(partial(training.init, model))(h)
    batch = Batch(jnp.full((4, 8, 8, 1), 0.5), jnp.arange(4, dtype=jnp.int32))
    keys = training.example_keys(h.key, jnp.int32(0), 4)
    terms = jax.jit(partial(registry.objective(model.config, 100), model))(
        state.params, batch.x, batch.c, keys, h
    )
    assert terms.loss.shape == (4,)
    assert np.isfinite(terms.loss).all()


# Whole levels and bits


def test_a_model_of_digits_counts_seventeen_levels(make_sweep, digits):
    model, *_ = make_sweep(Member(latent_dim=2), likelihood="logistic_mixture", binarize="none")
    assert model.levels == digits.levels == 17


def test_the_decoder_says_what_a_mixture_needs(make_sweep):
    model, h, _ = make_sweep(
        Member(latent_dim=2), likelihood="logistic_mixture", binarize="none", network="conv"
    )
    shapes = jax.eval_shape(lambda h: training.init(model, jax.tree.map(lambda leaf: leaf[0], h)).params, h)
    output = jax.eval_shape(
        lambda p: decode(model, p, jnp.zeros((3, 2)), jnp.zeros(3, jnp.int32), jnp.ones(2, bool)), shapes
    )
    assert output.shape == (3, 8, 8, 15)


def test_parameters_of_other_likelihoods_are_the_same(make_sweep):
    def names(name):
        model, h, _ = make_sweep(Member(latent_dim=2), likelihood=name, binarize="none")
        params = jax.eval_shape(lambda h: sweep.init(model, h).members.params, h)
        return {
            jax.tree_util.keystr(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(params)
        }

    plain = names("bernoulli")
    assert names("gaussian") == plain
    assert names("gaussian_learned") == plain | {"['params']['logvar']": (1,)}
    assert names("gaussian_optimal") == plain | {"['fitted']['logvar']": (1,)}


@pytest.mark.parametrize("name", FAMILIES)
def test_binary_pixels_are_refused(name):
    with pytest.raises(SettingError, match=f"expected none with the {name} likelihood"):
        Config(likelihood=name, binarize="dynamic")


def test_a_mixture_of_none_is_refused():
    with pytest.raises(SettingError, match="num_components is 0, expected a whole number ≥ 1"):
        Config(num_components=0)


def test_floating_pixels_are_refused_under_the_mixture(tmp_path):
    file = tmp_path / "grey.npz"
    rng = np.random.default_rng(0)
    np.savez(file, x_train=rng.uniform(size=(40, 8, 8)).astype(np.float32), c_train=np.arange(40) % 2)
    config = Config(dataset=str(file), likelihood="logistic_mixture", binarize="none", batch_size=8)
    with pytest.raises(DataError, match="x_train is float32, expected uint8 under the logistic_mixture"):
        reading.load(config, data_dir=None, cache_dir=tmp_path)


def test_bits_are_counted_per_number():
    terms = ElboTerms(jnp.array([[80.0, 90.0]]), jnp.array([[20.0, 30.0]]))
    (metrics,) = bounds.summarize(terms, dims=64)
    np.testing.assert_allclose(metrics["bits_per_dim"], 110 / (64 * math.log(2)), rtol=1e-6)
    assert "bits_per_dim" not in bounds.summarize(terms)[0]


@pytest.mark.parametrize(("name", "counts"), [("logistic_mixture", True), ("gaussian_learned", False)])
def test_results_count_bits_where_pixels_are_whole_levels(tmp_path, cache_dir, name, counts):
    run = Run(
        kind="train",
        config=Config(likelihood=name, binarize="none", num_components=2),
        members=(Member(latent_dim=2),),
        members_per_program=1,
        data_dir=None,
        checkpoint_every=1,
    )
    session = loop.open_session(run, Path(cache_dir))
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
    model, h, _ = make_sweep(Member(latent_dim=2), likelihood="gaussian_learned", binarize="none")
    params = jax.eval_shape(lambda h: training.init(model, jax.tree.map(lambda leaf: leaf[0], h)).params, h)
    output = jax.eval_shape(
        lambda p: decode(model, p, jnp.zeros((3, 2)), jnp.zeros(3, jnp.int32), jnp.ones(2, bool)), params
    )
    assert isinstance(output, GaussianOutput)
    assert (output.mean.shape, output.logvar.shape) == ((3, 8, 8, 1), (3,))
