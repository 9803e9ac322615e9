"""The map that a decoder makes of a text's words and of z."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.conditions.kinds import Text, encode_text
from cvae_jax.conditions.places import SIDE, Places, TextMap
from cvae_jax.conditions.text import TextEncoder
from cvae_jax.config import Config
from cvae_jax.model import CVAE, decode
from cvae_jax.nn.embedding import Words

Z = 2
MASK = jnp.ones(Z, bool)
NOTHING = jnp.zeros((1, Z))


def words_of(*texts):
    """What the words of texts say, from a text encoder as it is before training."""
    network = TextEncoder(12, Places(16))
    c = jnp.asarray(encode_text(list(texts), 12))
    return jax.jit(lambda c: network.apply(any_params(network, jax.random.key(0), c), c).words)(c)


def one_word(rng):
    about, words = (jnp.asarray(rng.normal(size=(1, 1, 8)), jnp.float32) for _ in range(2))
    return Words(about, words, jnp.ones((1, 1)))


def test_a_text_tells_places_apart_and_an_empty_one_tells_them_nothing():
    network = TextMap(Places(16), (2, 3))
    said, z = words_of("two four", "four two", ""), jnp.zeros((3, Z))
    told = jax.jit(network.apply)(any_params(network, jax.random.key(1), said, z, MASK), said, z, MASK)
    assert told.shape == (3, 2, 3, 16)
    assert np.abs(told[0] - told[1]).max() > 1e-3
    assert np.abs(told[0] - told[0, :1, :1]).max() > 1e-3
    np.testing.assert_array_equal(told[2], 0)


def test_what_is_said_is_drawn_alike_at_every_place():
    """One word sent to one place and to another: the map is moved by as much, but for what goes beyond its edge."""
    network = TextMap(Places(width=8, heads=1), (10, 10))
    said = one_word(np.random.default_rng(0))
    params = any_params(network, jax.random.key(0), said, NOTHING, MASK)["params"]
    # The places' queries are all against the word's key, but one for it.
    of_places = params["places"]
    key = np.asarray(said.about[0, 0] @ of_places["Dense_1"]["kernel"] @ of_places["Dense_0"]["kernel"].T)

    def sent_to(row, column):
        places = -key * np.ones((SIDE, SIDE, 1))
        places[row, column] = key
        chosen = jnp.asarray(100 * places.reshape(SIDE**2, -1), jnp.float32)
        sent = {"params": params | {"places": of_places | {"places": chosen}}}
        return np.asarray(network.apply(sent, said, NOTHING, MASK))[0]

    one, other = sent_to(1, 1), sent_to(2, 3)
    empty = one[-1, -1]
    ratio = (other - other[0, 0])[4:8, 6:9] / (one - empty)[2:6, 2:5]
    assert np.abs(one - empty)[2:6, 2:5].max() > 0.1
    # Of a mean square of 1 each, what the edge cuts off one leaves more to the rest.
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)


def test_where_a_text_leaves_open_z_decides():
    """A word that is sent nowhere goes where z leans."""
    network = TextMap(Places(width=8, heads=2), (10, 10))
    said = one_word(np.random.default_rng(1))
    params = any_params(network, jax.random.key(0), said, NOTHING, MASK)["params"]
    of_places = params["places"] | {"Dense_1": {"kernel": jnp.zeros((8, 8)), "bias": jnp.zeros(8)}}
    kernel = np.zeros((Z, 2, SIDE**2), np.float32)
    kernel[:, :, 0], kernel[:, :, -1] = 50, -50
    leaning = params["FromLatents_0"] | {"kernel": jnp.asarray(kernel.reshape(Z, -1))}
    leans = {"params": params | {"places": of_places, "FromLatents_0": leaning}}
    first, last, between = (
        np.asarray(network.apply(leans, said, jnp.full((1, Z), z), MASK))[0] for z in (1.0, -1.0, 0.0)
    )

    def strength(told, part):
        return np.square(told - np.median(told, axis=(0, 1)))[part].mean()

    top, bottom = np.s_[:4, :4], np.s_[-4:, -4:]
    assert strength(first, top) > 10 * strength(first, bottom)
    assert strength(last, bottom) > 10 * strength(last, top)
    assert 0.5 < strength(between, top) / strength(between, bottom) < 2


@pytest.mark.slow
def test_z_says_the_same_everywhere_to_a_decoder_told_of_words_alone():
    """Where nothing is said, z is drawn alike wherever the edges are not seen."""
    model = CVAE(Config(network="conv"), (32, 32, 1), Text(12), Z)
    z, c = jnp.array([[1.0, -2.0], [-1.0, 2.0]]), jnp.asarray(encode_text(["", ""], 12))
    x = jnp.zeros((2, 32, 32, 1))
    params = jax.jit(model.init)(jax.random.key(0), x, c, MASK, jax.random.key(1))
    drawn = np.asarray(decode(model, params, z, c, MASK))[..., 0]
    np.testing.assert_allclose(drawn[:, 8:20, 8:20], drawn[:, 12:24, 12:24], atol=1e-5)
    assert np.abs(drawn[0] - drawn[1])[8:24, 8:24].max() > 1e-2
