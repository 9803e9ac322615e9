"""Members of a sweep are their solo runs; epochs, divergence, and the best parameters by validation."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.conditions import Label
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.data.examples import on_device
from cvae_jax.evaluation import bounds
from cvae_jax.objectives import Batch
from cvae_jax.rng import Stream, stream
from cvae_jax.training import loader
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.config import from_flat
from cvae_jax.training.hparams import stack_hparams
from cvae_jax.training.population import Population
from cvae_jax.training.schedules import Time

MEMBERS = {
    "mlp": (
        {"latent_dim": 2, "beta": 4.0, "learning_rate": 3e-3, "seed": 0},
        {"latent_dim": 5, "weight_decay": 0.1, "clip_norm": 5.0, "seed": 1},
        {"latent_dim": 5, "seed": 0, "warmup_epochs": 0.5},
    ),
    # The first, alone, is a program without dropout and averages.
    "conv": (
        {"latent_dim": 3, "beta": 2.0, "learning_rate": 3e-3},
        {"latent_dim": 6, "dropout": 0.2, "ema_decay": 0.9, "seed": 1},
    ),
}
PER_EPOCH = 41


def steps(model, population, h, data, *nums):
    for num_steps in nums:
        population = sweep.run_steps(model, population, h, data, jnp.int32(num_steps))
    return population


def member_of(tree, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]), tree)


def in_use(params, latent_dim):
    """Parameters on a member's own latents, those that a model of more capacity shares with one of less."""
    inner = dict(params["params"])
    inner["to_latents"] = {k: v[..., :latent_dim] for k, v in inner["to_latents"].items()}
    from_latents = inner["decoder"]["FromLatents_0"]
    from_latents = from_latents | {"kernel": from_latents["kernel"][:latent_dim]}
    inner["decoder"] = inner["decoder"] | {"FromLatents_0": from_latents}
    return inner


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@dataclasses.dataclass
class Trained:
    """A population after its first step, five and fifty."""

    losses: np.ndarray  # shape (4, m): sums of the loss after 1, 5, 36 and 41 steps
    members: training.TrainState


def train(make_sweep, network, *members):
    model, h, data = make_sweep(*members, network=network)
    population, losses = sweep.init(model, h), []
    for num_steps in (1, 4, 31, 5):
        population = steps(model, population, h, data, num_steps)
        losses.append(np.asarray(population.members.sums.loss))
    population = steps(model, population, h, data, 9)
    return Trained(np.stack(losses), jax.tree.map(np.asarray, population.members))


@pytest.fixture(scope="module", params=MEMBERS)
def trained(request, make_sweep):
    network = request.param
    return network, train(make_sweep, network, *MEMBERS[network])


@pytest.fixture(scope="module")
def mlp(make_sweep):
    """Model, settings and data of the mlp's members, and a function from others to their settings."""
    model, h, data = make_sweep(*MEMBERS["mlp"])

    def settings(*members):
        return stack_hparams([from_flat(batch_size=32, **each) for each in members], capacity=model.capacity)

    return model, h, data, settings


# Members and their solo runs


def test_members_equal_their_solo_runs(make_sweep, trained):
    network, together = trained
    # One is enough of the slower to compile: the one with fewer latents than the sweep has room for.
    for i, member in enumerate(MEMBERS[network][: 1 if network == "conv" else None]):
        alone = train(make_sweep, network, member)
        np.testing.assert_allclose(together.losses[0, i], alone.losses[0, 0], rtol=1e-6)
        np.testing.assert_allclose(together.losses[:, i], alone.losses[:, 0], rtol=1e-5)
        here = in_use(member_of(together.members.params, i), member["latent_dim"])
        there = in_use(member_of(alone.members.params, 0), member["latent_dim"])
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(here), jax.tree.leaves(there), strict=True
        ):
            assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b), jax.tree_util.keystr(path)


def test_a_member_is_the_same_to_the_last_bit_whatever_stands_beside_it(mlp):
    model, h, data, settings = mlp
    others = settings(
        MEMBERS["mlp"][0], {"latent_dim": 1, "seed": 7}, {"latent_dim": 3, "beta": 0.1, "seed": 8}
    )
    one, two = (steps(model, sweep.init(model, each), each, data, 20).members for each in (h, others))
    assert_same_bits(member_of(one, 0), member_of(two, 0))


@pytest.mark.parametrize("order", [(2, 1, 0), (2, 0)], ids=["another order", "fewer members"])
def test_a_member_elsewhere_in_a_population_differs_by_rounding_alone(mlp, order):
    model, h, data, _ = mlp
    here = steps(model, sweep.init(model, h), h, data, 20).members.sums.loss
    some = jax.tree.map(lambda leaf: leaf[jnp.array(order)], h)
    there = steps(model, sweep.init(model, some), some, data, 20).members.sums.loss
    np.testing.assert_allclose(there, here[jnp.array(order)], rtol=1e-6)


def test_the_loss_falls(trained):
    _, together = trained
    first, last = together.losses[1] / 5, (together.losses[3] - together.losses[2]) / 5
    assert (last < 0.8 * first).all()


def test_members_differ(trained):
    _, together = trained
    biases = together.members.params["params"]["decoder"]["FromLatents_0"]["bias"]
    for i in range(len(biases)):
        for j in range(i):
            assert (biases[i] != biases[j]).mean() > 0.9


def test_no_member_diverged(trained):
    _, together = trained
    np.testing.assert_array_equal(together.members.diverged_step, -1)


def test_seeds_differ_from_the_start(mlp):
    model, _, _, settings = mlp
    h = settings(*({"latent_dim": 5, "seed": seed} for seed in (0, 1, 0)))
    params = sweep.init(model, h).members.params["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        np.testing.assert_array_equal(leaf[0], leaf[2])
        if not jax.tree_util.keystr(path).endswith("bias']"):
            assert (leaf[0] != leaf[1]).all(), jax.tree_util.keystr(path)


# One program


def test_one_trace_serves_any_number_of_steps_and_any_settings(mlp):
    model, h, data, settings = mlp
    steps(model, sweep.init(model, h), h, data, 1)
    before = sweep.run_steps._cache_size()
    others = settings(
        *({"latent_dim": 1, "beta": 9.0, "learning_rate": 0.1, "seed": seed} for seed in (7, 8, 9))
    )
    steps(model, sweep.init(model, h), h, data, 1, 2, 7)
    steps(model, sweep.init(model, others), others, data, 3)
    assert sweep.run_steps._cache_size() == before


def test_the_result_does_not_depend_on_how_steps_are_divided(mlp):
    model, h, data, _ = mlp
    once = steps(model, sweep.init(model, h), h, data, 10)
    assert once.step == 10
    assert_same_bits(once, steps(model, sweep.init(model, h), h, data, 5, 5))
    assert_same_bits(once, steps(model, sweep.init(model, h), h, data, *[1] * 10))


def test_the_loop_makes_the_steps_of_train_step(mlp):
    model, h, data, _ = mlp
    start = sweep.init(model, h)
    rows = jax.random.permutation(jax.random.fold_in(data.order_key, 0), 1318)[:32]
    state, own = jax.tree.map(lambda leaf: leaf[1], (start.members, h))
    x, c, _ = jax.jit(loader.draw_batch, static_argnums=(0, 1))(
        from_flat(batch_size=32), model, data, rows, jnp.int32(0)
    )
    noise, shared = (
        jax.random.fold_in(stream(own.key, name), 0) for name in (Stream.NOISE, Stream.OBJECTIVE)
    )
    batch = Batch(x, c, jax.random.split(noise, 32), shared, num_examples=1318)
    time = Time(jnp.int32(0), steps_per_epoch=PER_EPOCH)
    alone = jax.jit(partial(training.train_step, model))(state, batch, own, time)
    looped = steps(model, start, h, data, 1).members
    jax.tree.map(
        lambda ours, value: np.testing.assert_allclose(ours[1], value, rtol=1e-6), looped.sums, alone.sums
    )


# Divergence


def test_a_diverging_member_leaves_the_others_alone(mlp):
    model, _, data, settings = mlp
    sane = {"latent_dim": 4}
    sweeps = []
    for learning_rate in (1e-3, 1e6):
        wild = {"latent_dim": 3, "seed": 1, "learning_rate": learning_rate}
        h = settings(sane, wild, MEMBERS["mlp"][1])
        after_30 = steps(model, sweep.init(model, h), h, data, 30)
        kept = jax.tree.map(np.asarray, after_30.members)
        after_41 = steps(model, after_30, h, data, 11)
        sweeps.append((kept, jax.tree.map(np.asarray, after_41.members)))
    (_, fine), (frozen_at_30, diverged) = sweeps
    np.testing.assert_array_equal(fine.diverged_step, [-1, -1, -1])
    np.testing.assert_array_equal(diverged.diverged_step[[0, 2]], [-1, -1])
    assert 0 <= diverged.diverged_step[1] < 30
    for i in (0, 2):
        assert_same_bits(member_of(fine, i), member_of(diverged, i))
    assert_same_bits(member_of(frozen_at_30.params, 1), member_of(diverged.params, 1))
    assert_same_bits(member_of(frozen_at_30.sums, 1), member_of(diverged.sums, 1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(diverged.params))


# Order of examples


@pytest.fixture
def visited(monkeypatch):
    """A function from a seed to the pixels and labels of three epochs' batches, shape (steps, 4).

    Each call draws the order of its epoch, or receives it.
    """
    # 22 examples whose pixel and label are their row.
    rows = np.arange(22, dtype=np.int32)
    split = Split(rows.astype(np.uint8)[:, None, None, None], rows)
    dataset = Dataset("numbered", split, split, split, x_max=1.0, condition=Label(22))

    def record(model, state, batch, hparams, time):
        seen = jnp.stack([batch.x[:, 0, 0, 0].astype(jnp.int32), batch.c])
        return dataclasses.replace(state, params=state.params.at[time.step].set(seen))

    def visit(data_seed, *, receives_order=False):
        config = from_flat(binarize="none", likelihood="gaussian", batch_size=4, data_seed=data_seed)
        model, data = sweep.build_model([config], dataset), loader.training_data(config, dataset)
        h = stack_hparams([config], capacity=config.latent_dim)
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(training.TrainState))
        start = training.TrainState(**(nothing | {"params": jnp.full((1, 15, 2, 4), -1)}))
        population = Population(jnp.int32(0), start)
        for num_steps in (5, 2, 3, 5):
            order = loader.epoch_order(data, population.step // 5) if receives_order else None
            population = sweep.run_steps(model, population, h, data, jnp.int32(num_steps), order)
        return np.asarray(population.members.params[0])

    monkeypatch.setattr(training, "train_step", record)
    return visit


def test_an_epoch_visits_each_example_at_most_once(visited):
    epochs = visited(0).reshape(3, 5, 2, 4)
    for epoch in epochs:
        assert len(np.unique(epoch[:, 1])) == 20
    assert len({tuple(epoch[:, 1].ravel()) for epoch in epochs}) == 3
    assert len({frozenset(epoch[:, 1].ravel()) for epoch in epochs}) > 1


def test_an_order_that_is_received_is_the_one_that_is_drawn(visited):
    np.testing.assert_array_equal(visited(0), visited(0, receives_order=True))


def test_pixels_stay_with_their_labels(visited):
    shown = visited(0)
    np.testing.assert_array_equal(shown[:, 0], shown[:, 1])


def test_the_order_follows_the_data_seed(visited):
    np.testing.assert_array_equal(visited(0), visited(0))
    assert (visited(0) != visited(1)).any()


def test_binarization_is_drawn_anew_at_every_step(digits):
    config = from_flat(batch_size=16)
    model = sweep.build_model([config], digits)
    draw = jax.jit(partial(loader.draw_batch, config, model))
    data = loader.training_data(config, digits)
    first, again, later = (draw(data, jnp.arange(16), jnp.int32(step))[0] for step in (3, 3, 4))
    assert set(np.unique(first)) == {0.0, 1.0}
    np.testing.assert_array_equal(first, again)
    assert (first != later).any()
    grey = digits.train.x[:16] / 16
    np.testing.assert_array_equal(first[grey == 0], 0)
    np.testing.assert_array_equal(first[grey == 1], 1)


# The end of an epoch


@pytest.fixture(scope="module")
def validation(digits):
    return on_device(digits.validation, digits.x_max)


def test_the_best_parameters_are_kept_by_validation_at_the_final_beta(mlp, validation, digits):
    model, _, data, settings = mlp
    # Trained at β ≈ 0: what decides is the final β.
    warming_up = {"latent_dim": 4, "beta": 4.0, "warmup_epochs": 1000}
    h = settings(warming_up, {"latent_dim": 4, "beta": 0.0}, warming_up)
    end_epoch = partial(
        sweep.end_epoch,
        model,
        hparams=h,
        validation=validation,
        steps_in_epoch=jnp.int32(PER_EPOCH),
        num_examples=len(digits.train),
    )
    population = sweep.init(model, h)
    fresh = jax.tree.map(np.asarray, population.members.params)
    population = steps(model, population, h, data, PER_EPOCH)
    sums, params = jax.tree.map(np.asarray, (population.members.sums, population.members.params))
    population, train_terms, terms = end_epoch(population=population)

    np.testing.assert_allclose(terms.loss, terms.distortion + h.config.objective.beta * terms.rate, rtol=1e-6)
    np.testing.assert_array_equal(population.members.best.loss, terms.loss)
    np.testing.assert_array_equal(population.members.best.epoch, [1, 1, 1])
    assert_same_bits(population.members.best.params, params)
    jax.tree.map(
        lambda mean, total: np.testing.assert_allclose(mean, total / PER_EPOCH, rtol=1e-6), train_terms, sums
    )
    assert all((total == 0).all() for total in jax.tree.leaves(population.members.sums))

    # The first parameters have the lower loss at β = 4, where training cared for the distortion alone.
    kept = jax.tree.map(np.asarray, population.members.best)
    members = population.members.replace(params=jax.tree.map(jnp.asarray, fresh))
    population, _, later = end_epoch(population=Population(jnp.int32(2 * PER_EPOCH), members))
    assert later.loss[0] < terms.loss[0]
    assert later.loss[1] > terms.loss[1]
    best = population.members.best
    np.testing.assert_array_equal(best.epoch, [2, 1, 2])
    assert_same_bits(member_of(best.params, 0), member_of(fresh, 0))
    assert_same_bits(member_of(best, 1), member_of(kept, 1))


def test_parameters_of_no_finite_loss_are_never_the_best(mlp, validation, digits):
    model, h, _, _ = mlp
    population = sweep.init(model, h)
    first = jax.tree.map(np.asarray, population.members.best)
    broken = population.members.params | {
        "params": jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), population.members.params["params"])
    }
    population = Population(jnp.int32(PER_EPOCH), population.members.replace(params=broken))
    population, _, terms = sweep.end_epoch(
        model, population, h, validation, jnp.int32(PER_EPOCH), len(digits.train)
    )
    assert np.isnan(terms.loss).all()
    assert_same_bits(population.members.best, first)


def test_summed_terms_of_validation_are_those_of_evaluation(mlp, validation, digits):
    model, h, _, _ = mlp
    population = sweep.init(model, h)
    expected = bounds.summarize(bounds.members_elbo_terms(model, population.members.params, validation))
    _, _, terms = sweep.end_epoch(model, population, h, validation, jnp.int32(PER_EPOCH), len(digits.train))
    np.testing.assert_allclose(terms.rate, [m["rate"] for m in expected], rtol=1e-5)
    np.testing.assert_allclose(terms.distortion, [m["distortion"] for m in expected], rtol=1e-5)
