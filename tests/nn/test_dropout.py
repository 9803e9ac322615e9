"""Dropout of activations, and which layers of both bodies it reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.conditions import Label
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP, Conv, conv, mlp
from cvae_jax.nn.dropout import Dropout, drop
from cvae_jax.priors import Standard


def dropped(rate, shape=(64, 50), layer=0, seed=0):
    h = jnp.asarray(np.random.default_rng(1).uniform(1, 2, shape), jnp.float32)
    return h, np.asarray(drop(h, Dropout(jax.random.key(seed), jnp.float32(rate)), layer))


def test_a_rate_of_zero_changes_no_bit():
    for shape in ((8, 50), (8, 3, 3, 50)):
        np.testing.assert_array_equal(*dropped(0.0, shape))


def test_units_are_dropped_at_the_rate_and_the_others_make_up_for_them():
    h, y = dropped(0.25)
    kept = y != 0
    # Four standard errors.
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.25 * 0.75 / kept.size)
    np.testing.assert_allclose(y[kept], h[kept] / 0.75, rtol=1e-6)


def test_rows_layers_and_keys_have_masks_of_their_own():
    masks = [dropped(0.5)[1] != 0, dropped(0.5, layer=1)[1] != 0, dropped(0.5, seed=1)[1] != 0]
    assert len(np.unique(np.concatenate(masks), axis=0)) == 3 * 64


def test_a_row_does_not_depend_on_the_size_of_the_batch():
    np.testing.assert_array_equal(dropped(0.5)[1][:8] != 0, dropped(0.5, shape=(8, 50))[1] != 0)


def test_feature_maps_lose_whole_channels():
    kept = dropped(0.5, shape=(16, 3, 5, 20))[1] != 0
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1, :1], kept.shape))
    assert 0.3 < kept.mean() < 0.7


@pytest.fixture(scope="module", params=[(MLP(), 4), (Conv(), 6)], ids=["mlp", "conv"])
def dropping(request):
    """Number of hidden layers, key of each one's masks, and the outputs of both bodies without dropout and with."""
    network, layers = request.param
    keys = []

    def recorder(h, dropout, layer):
        if dropout is not None:
            keys.append(jax.random.key_data(dropout.of(layer).key))
        return drop(h, dropout, layer)

    @jax.jit
    def outputs():
        x, c = jnp.ones((2, 8, 8, 1)), jnp.zeros(2, jnp.int32)
        model = CVAE(network, Bernoulli(), Standard(), Label(10), (8, 8, 1), 3)
        plain = model.init(jax.random.key(0))
        assert keys == []
        train = {**plain, "dropout": {"key": jax.random.key(5), "rate": jnp.float32(0.5)}}
        encoded = [model.encode(params, x, c).mean for params in (plain, train)]
        decoded = [model.decode(params, jnp.ones((2, 3)), c) for params in (plain, train)]
        return jnp.stack(keys), encoded, decoded

    with pytest.MonkeyPatch.context() as patch:
        for bodies in (mlp, conv):
            patch.setattr(bodies, "drop", recorder)
        return layers, *jax.tree.map(np.asarray, outputs())


def test_every_hidden_layer_drops_with_a_key_of_its_own(dropping):
    layers, keys, _, _ = dropping
    assert len(keys) == len(np.unique(keys, axis=0)) == layers


def test_both_bodies_drop_in_training_and_not_in_evaluation(dropping):
    for plain, dropped in dropping[2:]:
        np.testing.assert_array_equal(plain[0], plain[1])
        assert (dropped[0] != dropped[1]).mean() > 0.9
