"""The multi-rate model: gates that begin open, a β per example, one β in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import encode

from cvae_jax.errors import SettingError
from cvae_jax.evaluation import bounds
from cvae_jax.objectives import Batch, MultiRate
from cvae_jax.objectives.multirate import at_beta
from cvae_jax.training import population as sweep
from cvae_jax.training import step
from cvae_jax.training.config import from_flat


@pytest.fixture(scope="module")
def multirate(make_sweep):
    """Model and parameters of a multi-rate member after an epoch, and the data."""
    model, h, data = make_sweep({"beta": 1.0, "latent_dim": 4, "learning_rate": 3e-3}, objective="multirate")
    population = sweep.run_steps(model, sweep.init(model, h), h, data, jnp.int32(41))
    return model, jax.tree.map(lambda leaf: leaf[0], population.members.params), data


def test_gates_are_open_before_training(make_sweep):
    member = {"beta": 0.5, "latent_dim": 4}
    gated, h, data = make_sweep(member, objective="multirate")
    plain, of_plain, _ = make_sweep(member)
    h, of_plain = jax.tree.map(lambda leaf: leaf[0], (h, of_plain))
    params = step.init(gated, h).params
    x, c = data.examples.take(jnp.arange(3))
    assert float(params["setting"]["log_beta"]) == np.log(np.float32(0.5))
    q = encode(gated, params, x, c)
    expected = encode(plain, step.init(plain, of_plain).params, x, c)
    jax.tree.map(np.testing.assert_array_equal, q, expected)


def test_training_leaves_the_setting_alone_and_opens_or_shuts_gates(multirate):
    _, params, _ = multirate
    assert float(params["setting"]["log_beta"]) == 0.0
    slopes = params["params"]["encoder"]["AddCondition_0"]["gate_slope"]
    assert np.abs(slopes).max() > 1e-3


def test_each_example_has_a_beta_within_the_range(multirate):
    model, params, data = multirate
    x, c = data.examples.take(jnp.arange(64))
    keys = jax.random.split(jax.random.key(0), 64)
    terms = MultiRate().loss(model, params, Batch(x, c, keys, jax.random.key(1)))
    beta = np.asarray((terms.loss - terms.distortion) / terms.rate, np.float64)
    assert beta.min() >= 0.1 * (1 - 1e-3)
    assert beta.max() <= 10.0 * (1 + 1e-3)
    # Of 64 uniform draws, some lie in each third of the range.
    assert set(np.floor((np.log10(beta) + 1) / 2 * 3).astype(int)) >= {0, 1, 2}


def test_a_vector_of_betas_gives_each_example_its_own(multirate):
    model, params, data = multirate
    x, c = data.examples.take(jnp.arange(2))
    both = encode(model, at_beta(params, jnp.array([0.1, 10.0])), x, c)
    for i, beta in enumerate((0.1, 10.0)):
        alone = encode(model, at_beta(params, beta), x, c)
        np.testing.assert_allclose(both.mean[i], alone.mean[i], rtol=1e-4, atol=1e-5)


def test_the_rate_falls_as_beta_rises(multirate):
    model, params, data = multirate

    def rate(beta):
        return jnp.mean(
            bounds.elbo_terms(model, at_beta(params, beta), data.examples, jax.random.key(0)).rate
        )

    rates = jax.vmap(rate)(jnp.array([0.1, 1.0, 10.0]))
    assert rates[0] > rates[1] > rates[2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": 20.0}, "beta is 20.0, expected between beta_min 0.1 and beta_max 10.0"),
        ({"warmup_epochs": 1.0}, "warmup_epochs is 1.0, expected 0 with the objective multirate"),
    ],
)
def test_members_it_cannot_train_are_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        from_flat(objective="multirate", **fields)


def test_an_empty_range_is_refused():
    with pytest.raises(SettingError, match=r"beta_min is 10.0, expected less than beta_max 10.0"):
        from_flat(objective="multirate", beta_min=10.0)
