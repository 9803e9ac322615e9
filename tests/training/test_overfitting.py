"""Dropout, averaged parameters and early stopping of the members of a sweep, against each other and by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.data.examples import on_device
from cvae_jax.errors import SettingError
from cvae_jax.evaluation import bounds
from cvae_jax.model import CVAE
from cvae_jax.objectives import Batch
from cvae_jax.runs import checkpoints
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.config import from_flat
from cvae_jax.training.hooks import MovingAverage, UnitDropout, move_average
from cvae_jax.training.hparams import alike, hparams, stack_hparams
from cvae_jax.training.population import Population
from cvae_jax.training.schedules import Time

PLAIN = {"latent_dim": 3}
ALL = {
    "latent_dim": 4, "condition_first_epochs": 0.05, "dropout": 0.3, "ema_decay": 0.9, "patience": 2.0, "seed": 1
}  # fmt: skip
MEMBERS = (PLAIN, ALL, {"latent_dim": 2, "dropout": 0.3, "learning_rate": 3e-3})
PER_EPOCH = 41


def member_of(tree, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]), tree)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def average_of(members):
    """The moving average of stacked members, which is kept by the second hook by name."""
    names = [type(hook).__name__ for hook in configs(*MEMBERS)[0].hooks]
    return members.hooks[names.index("MovingAverage")]


def configs(*members):
    return alike([from_flat(batch_size=32, **member) for member in members])


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(x - y) <= 1e-4 * np.linalg.norm(y) + 1e-7


@dataclasses.dataclass
class Sweep:
    """A sweep's program, and the population after each of its first steps."""

    model: CVAE
    hparams: object
    data: object
    populations: list

    def steps(self, population, num_steps):
        population = jax.tree.map(jnp.copy, population)  # it is donated
        return sweep.run_steps(self.model, population, self.hparams, self.data, jnp.int32(num_steps))


@pytest.fixture(scope="module")
def run(make_sweep):
    """A function from members to their `Sweep` of six steps."""

    def run(*members):
        model, h, data = make_sweep(*members)
        result = Sweep(model, h, data, [sweep.init(model, h)])
        for _ in range(6):
            result.populations.append(result.steps(result.populations[-1], 1))
        return result

    return run


@pytest.fixture(scope="module")
def together(run):
    return run(*MEMBERS)


# Members


def test_a_sweep_without_dropout_and_averages_has_no_part_for_them(make_sweep):
    def program(**options):
        model, stacked, _ = make_sweep(PLAIN, PLAIN | {"seed": 1} | options)
        h = jax.tree.map(lambda leaf: leaf[0], stacked)
        state = jax.eval_shape(partial(training.init, model), h)
        key = jax.random.key(0)
        batch = Batch(jnp.zeros((32, 8, 8, 1)), jnp.zeros(32, jnp.int32), jax.random.split(key, 32), key)
        step = partial(training.train_step, model)
        text = str(jax.make_jaxpr(step)(state, batch, h, Time(jnp.int32(0))))
        return (
            text.count("random_bits"),
            len(jax.tree.leaves(state)),
            len(jax.tree.leaves(state.params["params"])),
        )

    draws, arrays, params = program()
    assert program(ema_decay=0.9)[:2] == (draws, arrays + params)
    draws_dropping, arrays_dropping, _ = program(dropout=0.1)
    assert arrays_dropping == arrays
    assert draws_dropping > draws


@pytest.mark.slow
def test_a_member_equals_its_solo_run(run, together):
    alone = run(ALL)
    for here, there in zip(together.populations, alone.populations, strict=True):
        here, there = member_of(here.members, 1), member_of(there.members, 0)
        np.testing.assert_allclose(here.sums.loss, there.sums.loss, rtol=1e-5)
    assert_close(here.params["params"], there.params["params"])
    assert_close(average_of(here), average_of(there))


def test_masks_follow_seed_and_step(together):
    """The loss of one and the same parameters differs where the masks do."""
    first = together.populations[0]

    def loss(step):
        return np.asarray(together.steps(first.replace(step=jnp.int32(step)), 1).members.sums.loss)

    assert (loss(0) == loss(0)).all()
    assert (loss(0) != loss(1)).all()


def test_one_program_serves_all_rates_decays_and_patiences(together):
    before = sweep.run_steps._cache_size()
    names = ("condition_first_epochs", "dropout", "ema_decay", "patience")
    others = [
        dict(zip(names, values, strict=True), latent_dim=2)
        for values in ((0.0, 0.9, 0.0, 1.0), (2.0, 0.0, 0.999, 7.5), (5.0, 0.1, 0.5, np.inf))
    ]
    h = stack_hparams(configs(*others), capacity=4)
    population = sweep.init(together.model, h)
    sweep.run_steps(together.model, population, h, together.data, jnp.int32(1))
    assert sweep.run_steps._cache_size() == before


# The average of the parameters


def test_the_average_is_numpys(together):
    decay = float(np.float32(0.9))
    history = [member_of(p.members.params["params"], 1) for p in together.populations[1:]]
    for t, population in enumerate(together.populations[1:], 1):
        weights = np.array([(1 - decay) * decay ** (t - s) for s in range(1, t + 1)]) / (1 - decay**t)
        expected = jax.tree.map(
            lambda *leaves, w=weights: np.tensordot(w, np.stack(leaves).astype(np.float64), 1), *history[:t]
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            member_of(average_of(population.members), 1),
            expected,
        )


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 0.9999999])
def test_a_long_average_loses_no_digits(decay):
    decay = np.float32(decay)
    move = jax.jit(move_average)
    values = np.random.default_rng(0).normal(size=300).astype(np.float32)
    average, sums, weights = jnp.float32(1e3), 0.0, 0.0
    for t, value in enumerate(values, 1):
        average = move(average, value, decay, jnp.int32(t), jnp.bool(True))
        sums, weights = float(decay) * sums + float(value), float(decay) * weights + 1.0
        np.testing.assert_allclose(average, sums / weights, rtol=1e-4, atol=2e-4)


def test_at_decay_zero_the_average_is_the_parameters(together):
    for population in together.populations:
        for i in (0, 2):
            assert_same_bits(
                member_of(average_of(population.members), i),
                member_of(population.members.params["params"], i),
            )


# The end of an epoch


@pytest.fixture(scope="module")
def end_epoch(together, digits):
    validation = on_device(digits.validation, digits.x_max)

    def end(population, hparams=together.hparams):
        population = jax.tree.map(jnp.copy, population)
        return sweep.end_epoch(
            together.model, population, hparams, validation, jnp.int32(PER_EPOCH), len(digits.train)
        )

    return end


def test_validation_and_the_best_are_of_the_average_without_dropout(together, end_epoch, digits):
    population = together.populations[-1]
    after, _, terms = end_epoch(population)
    examples = on_device(digits.validation, digits.x_max)
    members = population.members
    averaged = members.params | {"params": average_of(members)}
    expected = bounds.summarize(bounds.members_elbo_terms(together.model, averaged, examples))
    np.testing.assert_allclose(terms.rate, [e["rate"] for e in expected], rtol=1e-5)
    np.testing.assert_allclose(terms.distortion, [e["distortion"] for e in expected], rtol=1e-5)
    assert_same_bits(after.members.best.params, averaged)
    assert_same_bits(after.members.params, members.params)
    kernel = lambda params: params["params"]["decoder"]["FromLatents_0"]["kernel"]  # noqa: E731
    assert (kernel(averaged)[1] != kernel(members.params)[1]).any()


def ending_at(population, epoch, **fields):
    """A population whose best was at epoch 3, as it ends another epoch."""
    best = population.members.best.replace(loss=jnp.full(3, -1e9), epoch=jnp.full(3, 3, jnp.int32))
    return Population(jnp.int32(epoch * PER_EPOCH), population.members.replace(best=best, **fields))


def test_a_member_stops_when_its_patience_ends(together, end_epoch):
    members = configs(
        ALL | {"patience": 2.0},
        ALL | {"patience": 4.0},
        ALL | {"patience": 2.0, "condition_first_epochs": 3.0, "warmup_epochs": 2.0},
    )
    h = stack_hparams(members, capacity=4)
    first = together.populations[0]
    stopped = {
        epoch: end_epoch(ending_at(first, epoch), h)[0].members.stopped_epoch.tolist()
        for epoch in range(3, 9)
    }
    assert stopped == {
        3: [-1, -1, -1], 4: [-1, -1, -1], 5: [5, -1, -1], 6: [6, -1, -1], 7: [7, 7, 7], 8: [8, 8, 8],
    }  # fmt: skip
    # Where it stopped is kept; what diverged does not stop as well.
    fields = {
        "stopped_epoch": jnp.array([5, -1, -1], jnp.int32),
        "diverged_step": jnp.array([-1, 9, -1], jnp.int32),
    }
    after, _, _ = end_epoch(ending_at(first, 8, **fields), h)
    assert after.members.stopped_epoch.tolist() == [5, -1, 8]


def test_a_better_validation_renews_the_patience(together, end_epoch):
    better = ending_at(together.populations[0], 20)
    better = better.replace(
        members=better.members.replace(best=better.members.best.replace(loss=jnp.full(3, jnp.inf)))
    )
    after, _, _ = end_epoch(better)
    assert after.members.best.epoch.tolist() == [20, 20, 20]
    assert after.members.stopped_epoch.tolist() == [-1, -1, -1]


def test_a_stopped_member_is_frozen_and_leaves_the_others_alone(together):
    start = together.populations[3]
    stopped = start.replace(members=start.members.replace(stopped_epoch=jnp.array([-1, 1, -1], jnp.int32)))
    frozen, going = (together.steps(population, 3).members for population in (stopped, start))
    for name in ("params", "hooks", "best", "sums"):
        before, after = (member_of(getattr(members, name), 1) for members in (start.members, frozen))
        assert_same_bits(before, after)
    for i in (0, 2):
        assert_same_bits(member_of(frozen, i), member_of(going, i))
    assert frozen.diverged_step.tolist() == [-1, -1, -1]
    assert_same_bits(going, together.populations[-1].members)


def test_it_resumes_bit_for_bit(together, tmp_path):
    halfway = together.populations[3]
    halfway = halfway.replace(
        members=halfway.members.replace(stopped_epoch=jnp.array([2, -1, -1], jnp.int32))
    )
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.save(manager, halfway, {})
        manager.wait_until_finished()
        checkpoint = checkpoints.restore(manager, jax.eval_shape(lambda: halfway))
    assert_same_bits(together.steps(halfway, 3), together.steps(checkpoint.population, 3))


def test_a_member_taken_out_has_the_shapes_of_its_solo_run(make_sweep, together):
    for i, member in enumerate(MEMBERS):
        taken = sweep.solo_state(
            jax.tree.map(lambda leaf, i=i: leaf[i], together.populations[-1].members), configs(*MEMBERS), i
        )
        model, h, _ = make_sweep(member)
        alone = jax.eval_shape(partial(training.init, model), jax.tree.map(lambda leaf: leaf[0], h))
        assert jax.tree.structure(taken) == jax.tree.structure(alone)
        for here, there in zip(jax.tree.leaves(taken), jax.tree.leaves(alone), strict=True):
            assert here.shape == there.shape


# Settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0, expected a number ≥ 0 and < 1"),
        ({"dropout": -0.1}, "dropout is -0.1, expected"),
        ({"ema_decay": float("nan")}, "ema_decay is nan, expected a number ≥ 0 and < 1"),
        ({"condition_first_epochs": -1.0}, "condition_first_epochs is -1.0, expected"),
        ({"patience": 0.5}, "patience is 0.5, expected a number of epochs ≥ 1"),
        ({"patience": float("nan")}, "patience is nan, expected"),
    ],
)
def test_what_cannot_be_used_is_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**fields)


def test_a_condition_that_comes_first_must_be_there():
    with pytest.raises(SettingError, match=r"condition_first_epochs is 1.0, expected 0 without a condition"):
        from_flat(condition="none", condition_first_epochs=1.0)


def test_unused_settings_are_not_in_the_pytree():
    assert hparams(from_flat(**PLAIN), capacity=3).config.hooks == ()
    stacked = stack_hparams(configs(*MEMBERS), capacity=4)
    by_type = {type(hook): hook for hook in stacked.config.hooks}
    np.testing.assert_array_equal(by_type[UnitDropout].dropout, np.float32([0, 0.3, 0.3]))
    np.testing.assert_array_equal(by_type[MovingAverage].ema_decay, np.float32([0, 0.9, 0]))
