"""Hooks: one that is absent or off changes nothing, and one from outside the package can change all that it may."""

import dataclasses
import re
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.data.examples import on_device
from cvae_jax.errors import SettingError
from cvae_jax.objectives import Batch, Elbo
from cvae_jax.options import SHARE, WEIGHT, traced
from cvae_jax.rng import Stream, stream
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.config import Scheduled, from_flat, traced_options
from cvae_jax.training.hooks import ConditionDropout, Hook, MovingAverage, UnitDropout, key_of
from cvae_jax.training.hparams import alike, hparams
from cvae_jax.training.schedules import LinearWarmup, Time

# The library's own: those of applications may be registered, too.
OPTIONS = ("condition_first_epochs", "condition_dropout", "dropout", "ema_decay")
SMALL = {"hidden": (16,), "latent_dim": 3, "batch_size": 8}
PER_EPOCH = 1318 // 8


@dataclasses.dataclass(frozen=True)
class InputNoise(Hook):
    """Add noise to x, and count the steps."""

    input_noise: float = traced(0.0, bounds=WEIGHT, help="Its standard deviation.")

    def init(self, params):
        return jnp.int32(0)

    def prepare(self, model, batch, key, time):
        noise = self.input_noise * jax.random.normal(key, batch.x.shape)
        return model, dataclasses.replace(batch, x=batch.x + noise)

    def after(self, model, params, kept, terms, time, runs):
        return params, kept + jnp.where(runs, 1, 0)


@dataclasses.dataclass(frozen=True)
class Shrunk(Hook):
    """Penalize large parameters, and evaluate those parameters times a factor."""

    shrinkage: float = traced(0.0, bounds=SHARE, help="Of the parameters in evaluation.")
    penalty: float = traced(0.0, bounds=WEIGHT, help="Weight of the sum of squares.")

    def loss(self, objective, model, params, batch, time):
        terms = objective(params, batch)
        return terms._replace(loss=terms.loss + self.penalty * squares(params["params"]))

    def evaluated(self, params, kept):
        shrunk = jax.tree.map(lambda a: (1.0 - self.shrinkage) * a, params["params"])
        return {**params, "params": shrunk}


@dataclasses.dataclass(frozen=True)
class Nothing(Hook):
    """No option, and no method of its own."""


@dataclasses.dataclass(frozen=True)
class Restart(Hook):
    """The optimizer forgets its moments before step 2."""

    def restarts(self, time):
        return time.step == 2


def squares(params):
    return sum(jnp.sum(a**2) for a in jax.tree.leaves(params))


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


@pytest.fixture(scope="module")
def train(make_sweep):
    """A function from members to their states after some steps."""

    def train(*members, num_steps=4, **shared):
        model, h, data = make_sweep(*members, **SMALL, **shared)
        population = sweep.init(model, h)
        return sweep.run_steps(model, population, h, data, jnp.int32(num_steps)).members

    return train


@pytest.fixture(scope="module")
def program(make_sweep):
    """A function from members to the text of one step's program."""

    def program(*members):
        model, h, _ = make_sweep(*members, **SMALL)
        key = jax.random.key(0)
        batch = Batch(jnp.zeros((8, 8, 8, 1)), jnp.zeros(8, jnp.int32), jax.random.split(key, 8), key)
        state = jax.eval_shape(lambda h: training.init(model, first(h)), h)
        step = jax.make_jaxpr(
            lambda state, h: training.train_step(model, state, batch, h, Time(jnp.int32(0)))
        )
        return str(step(state, first(h)))

    return program


# What is absent or off


def test_a_hook_that_is_off_for_every_member_is_not_in_the_program(program):
    without = program({}, {"seed": 1})
    for option in OPTIONS:
        assert program({option: 0.0}, {option: 0.0, "seed": 1}) == without
        assert program({option: 0.5}, {"seed": 1}) != without


def test_a_hook_without_methods_adds_nothing_to_the_program(program):
    """But for its key, which nothing reads, so that it is not compiled."""
    counts, without = (
        Counter(re.findall(r" = (\w+)", program(each))) for each in ({"hooks": (Nothing(),)}, {})
    )
    assert counts - without == {"random_fold_in": 3}
    assert counts.total() == without.total() + 3


@pytest.mark.parametrize("option", OPTIONS)
def test_a_member_without_a_hook_of_the_others_is_its_solo_run(train, option):
    members = ({"beta": 2.0}, {option: 0.5, "seed": 1})
    together, alone = train(*members), train(members[0])
    np.testing.assert_allclose(together.sums.loss[0], alone.sums.loss[0], rtol=1e-5)
    configs = alike([from_flat(**SMALL, **each) for each in members])
    here = training.evaluated(configs[0], first(together))["params"]
    there = training.evaluated(alike([from_flat(**SMALL, **members[0])])[0], first(alone))["params"]
    for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b) + 1e-7
    # The other member is another training than without the hook.
    assert np.abs(together.sums.loss[1] - train({"seed": 1}).sums.loss[0]) > 1e-3 or option == "ema_decay"


def test_members_have_the_hooks_that_any_of_them_uses_in_one_order():
    members = [
        from_flat(hooks=(UnitDropout(0.1), MovingAverage(0.9))), from_flat(dropout=0.2), from_flat(ema_decay=0.0)
    ]  # fmt: skip
    assert [member.hooks for member in alike(members)] == [
        (MovingAverage(0.9), UnitDropout(0.1)),
        (MovingAverage(0.0), UnitDropout(0.2)),
        (MovingAverage(0.0), UnitDropout(0.0)),
    ]
    with pytest.raises(
        SettingError, match="member 1 differs from member 0 in an option that shapes the program"
    ):
        alike([from_flat(hooks=(Nothing(),)), from_flat()])


# From outside the package


def test_a_hook_prepares_the_batch_with_keys_of_its_own(make_sweep):
    model, h, _ = make_sweep({"hooks": (InputNoise(0.5),)}, **SMALL)
    h = first(h)
    (hook,), key, step = h.config.hooks, jax.random.key(1), jnp.int32(3)
    x, c = jnp.full((8, 8, 8, 1), 0.5), jnp.arange(8)
    batch = Batch(x, c, jax.random.split(key, 8), key)
    state = jax.jit(partial(training.init, model))(h)
    after = jax.jit(partial(training.train_step, model))(state, batch, h, Time(step))
    noise = jax.random.normal(key_of(hook, h.key, step), x.shape)
    noisy = dataclasses.replace(batch, x=x + 0.5 * noise)
    expected = jax.jit(partial(Elbo().loss, model))(state.params, noisy)
    np.testing.assert_allclose(after.sums.loss, jnp.mean(expected.loss), rtol=1e-5)


def test_hooks_and_steps_have_keys_of_their_own():
    root = jax.random.key(0)
    hooks = (InputNoise(), Shrunk(), UnitDropout(), ConditionDropout())
    keys = [key_of(hook, root, jnp.int32(step)) for hook in hooks for step in range(3)]
    keys += [jax.random.fold_in(stream(root, name), step) for name in Stream for step in range(3)]
    named = {hook.stream for hook in hooks} - {Stream.HOOK}
    rows = {tuple(jax.random.key_data(key).tolist()) for key in keys}
    assert len(rows) == len(keys) - 3 * len(named)


def test_a_hook_changes_the_loss_and_its_gradient(train):
    penalized, plain = (train({"hooks": (Shrunk(0.5, penalty),)}, num_steps=1) for penalty in (0.1, 0.0))
    start = train({"hooks": (Shrunk(0.5, 0.1),)}, num_steps=0)
    added = float(penalized.sums.loss[0] - plain.sums.loss[0])
    np.testing.assert_allclose(added, 0.1 * squares(start.params["params"]), rtol=1e-3)
    np.testing.assert_array_equal(penalized.sums.distortion, plain.sums.distortion)
    shrinks = train({"hooks": (Shrunk(0.5, 100.0),)}, num_steps=40, learning_rate=1e-2)
    assert squares(shrinks.params["params"]) < 0.5 * squares(start.params["params"])


def test_a_hook_keeps_a_state_of_its_own_until_the_member_stops(make_sweep):
    model, h, data = make_sweep(*({"hooks": (InputNoise(0.1),), "seed": seed} for seed in range(2)), **SMALL)
    population = sweep.run_steps(model, sweep.init(model, h), h, data, jnp.int32(3))
    stopped = dataclasses.replace(population.members, stopped_epoch=jnp.array([1, -1], jnp.int32))
    population = sweep.run_steps(model, population.replace(members=stopped), h, data, jnp.int32(2))
    assert population.members.hooks[0].tolist() == [3, 5]


def test_a_hook_restarts_the_optimizer(train):
    for num_steps in (1, 2, 3, 4):
        counts = train({"hooks": (Restart(),)}, num_steps=num_steps).opt_state["params"][0].count
        assert counts.tolist() == [{1: 1, 2: 2, 3: 1, 4: 2}[num_steps]]


def test_what_a_hook_evaluates_is_validated_and_kept(make_sweep, digits):
    model, h, data = make_sweep({"hooks": (Shrunk(0.5),)}, {}, **SMALL)
    population = sweep.run_steps(model, sweep.init(model, h), h, data, jnp.int32(2))
    params = jax.tree.map(np.asarray, population.members.params)
    validation = on_device(digits.validation, digits.x_max)
    population, _, _ = sweep.end_epoch(model, population, h, validation, jnp.int32(PER_EPOCH), 1318)
    best = population.members.best.params
    assert_same_bits(best["params"], jax.tree.map(lambda a: np.stack([0.5 * a[0], a[1]]), params["params"]))
    assert_same_bits(population.members.params, params)


def test_its_options_are_traced_and_scheduled(train):
    config = from_flat(hooks=(InputNoise(0.5),))
    assert traced_options(config)["input_noise"] == 0.5
    assert hparams(config, capacity=16).config.hooks[0].input_noise.dtype == jnp.float32
    scheduled = {
        "hooks": (InputNoise(0.5),), "schedules": (Scheduled("input_noise", LinearWarmup(2 / PER_EPOCH)),)
    }  # fmt: skip
    losses = [
        [float(train(settings, num_steps=n).sums.loss[0]) for n in (1, 2)]
        for settings in ({}, scheduled, {"hooks": (InputNoise(0.5),)}, {"hooks": (InputNoise(0.25),)})
    ]
    without, with_schedule, noisy, half_noisy = losses
    # In the first of two steps of the warm-up there is no noise, in the second half of it.
    np.testing.assert_allclose(with_schedule[0], without[0], rtol=1e-6)
    assert abs(noisy[0] - without[0]) > 1e-2
    assert len({round(loss, 2) for _, loss in map(tuple, losses)}) == 4
    assert abs(with_schedule[1] - with_schedule[0] - (half_noisy[1] - half_noisy[0])) < abs(
        with_schedule[1] - with_schedule[0] - (noisy[1] - noisy[0])
    )
