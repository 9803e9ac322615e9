"""Members and batches spread over two devices give what one device gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.objectives import Elbo
from cvae_jax.training import devices, memory
from cvae_jax.training import population as sweep
from cvae_jax.training.config import from_flat

pytestmark = pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")


def trained(make_sweep, members, mesh, steps=5, size=None, **fields):
    repeated = [*members, *[members[-1]] * ((size or len(members)) - len(members))]
    model, hparams, data = make_sweep(*repeated, **fields)
    if mesh is not None:
        hparams, data = devices.by_member(hparams, mesh), devices.replicated(data, mesh)
        data = data.replace(batch_sharding=devices.by_batch(mesh))
    population = sweep.init(model, hparams)
    if mesh is not None:
        population = devices.by_member(population, mesh)
    population = sweep.run_steps(model, population, hparams, data, jnp.int32(steps))
    params = population.members.params["params"]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(members)], params), population


def assert_close(a, b):
    """Equal to 1e-4 of each array's norm: Adam turns rounding in a tiny gradient into a step of its own."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(x - y) <= 1e-4 * np.linalg.norm(y) + 1e-7


@pytest.mark.parametrize("count", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_members_over_two_devices_equal_one(make_sweep, count):
    members = [{"beta": float(i + 1), "latent_dim": 2 + i, "seed": i} for i in range(count)]
    mesh = devices.make_mesh(count, 32)
    assert dict(mesh.shape) == {"member": 2, "batch": 1}
    alone, _ = trained(make_sweep, members, None)
    spread, population = trained(make_sweep, members, mesh, size=devices.padded(count, mesh))
    assert_close(alone, spread)
    leaf = jax.tree.leaves(population.members.params)[0]
    assert len(leaf.sharding.device_set) == 2
    assert not leaf.sharding.is_fully_replicated


def test_a_batch_over_two_devices_equals_one(make_sweep):
    mesh = devices.make_mesh(1, 32)
    assert dict(mesh.shape) == {"member": 1, "batch": 2}
    alone, _ = trained(make_sweep, [{"latent_dim": 4}], None)
    spread, _ = trained(make_sweep, [{"latent_dim": 4}], mesh)
    assert_close(alone, spread)


def test_a_batch_that_does_not_divide_stays_whole():
    assert dict(devices.make_mesh(1, 33).shape) == {"member": 1, "batch": 1}


@pytest.mark.parametrize(
    ("network", "options"),
    [
        pytest.param("mlp", {}, marks=pytest.mark.slow),
        pytest.param("conv", {}, marks=pytest.mark.slow),
        ("mlp", {"dropout": 0.1, "ema_decay": 0.9}),
    ],
)
def test_the_memory_plan_is_xlas(make_sweep, network, options):
    shared = {"network": network, "batch_size": 128, **options}

    def program_bytes(count):
        members = [{"latent_dim": 4, "seed": i} for i in range(count)]
        model, hparams, data = make_sweep(*members, **shared)
        population = jax.eval_shape(lambda h: sweep.init(model, h), hparams)
        compiled = sweep.run_steps.lower(model, population, hparams, data, jnp.int32(1)).compile()
        analysis = compiled.memory_analysis()
        return model, analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    (model, two), (_, six) = program_bytes(2), program_bytes(6)
    slope = (six - two) / 4
    assert abs(memory.member_bytes(model, [from_flat(latent_dim=4, **shared)]) / slope - 1) < 0.25


def test_parts_are_equal_and_fit(make_sweep, monkeypatch):
    model, _, _ = make_sweep({"latent_dim": 4})
    member = from_flat(latent_dim=4, batch_size=32)
    each = memory.member_bytes(model, [member])
    monkeypatch.setattr(memory, "ASSUMED_FREE_BYTES", int(10.5 * each / 0.8))
    assert memory.members_that_fit(model, [member] * 9) == 9
    assert memory.members_that_fit(model, [member] * 24) == 8  # three parts rather than 10 + 10 + 4
    monkeypatch.setattr(memory, "ASSUMED_FREE_BYTES", 1)
    assert memory.members_that_fit(model, [member] * 24) == 1


@pytest.mark.slow
def test_make_train_is_the_scripts_loop(make_sweep):
    model, hparams, data = make_sweep({"latent_dim": 4, "warmup_epochs": 1.0})
    population = sweep.init(model, hparams)
    per_epoch = len(data.examples) // 32
    for count in (per_epoch, 3):
        population = sweep.run_steps(model, population, hparams, data, jnp.int32(count))
    train = jax.jit(jax.vmap(sweep.make_train(model, num_steps=per_epoch + 3), in_axes=(0, None)))
    state = train(hparams, data)
    assert_close(state.params["params"], population.members.params["params"])


@dataclasses.dataclass(frozen=True)
class DistortionAlone(Elbo):
    """An objective of a user's own."""

    def loss(self, model, params, batch):
        terms = super().loss(model, params, batch)
        return terms._replace(loss=terms.distortion)


@pytest.mark.slow
def test_make_train_takes_an_objective(make_sweep):
    def trained(**settings):
        model, hparams, data = make_sweep({"latent_dim": 4, **settings})
        train = jax.jit(jax.vmap(sweep.make_train(model, num_steps=3), in_axes=(0, None)))
        return train(hparams, data).params["params"]

    assert_close(trained(objective=DistortionAlone(beta=3.0)), trained(beta=0.0))
