"""The network of captions: the map that its decoder makes of a text's words and of z."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.conditions import Image, Text
from cvae_jax.conditions.text import TextEncoder, encode_text
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.model import CVAE
from cvae_jax.nn.embedding import MaskedCondition, Words
from cvae_jax.priors import Conditional, Standard
from experiments.tasks.captions.network import CaptionConv
from experiments.tasks.captions.places import SIDE, Places, TextMap

Z = 2
MASK = jnp.ones(Z, bool)
NOTHING = jnp.zeros((1, Z))


def words_of(*texts):
    """The words of texts, from a text encoder as it is before training."""
    network = TextEncoder(12, Places(16))
    c = jnp.asarray(encode_text(list(texts), 12))
    return jax.jit(lambda c: network.apply(any_params(network, jax.random.key(0), c), c).words)(c)


def one_word(rng):
    about, words = (jnp.asarray(rng.normal(size=(1, 1, 8)), jnp.float32) for _ in range(2))
    return Words(about, words, jnp.ones((1, 1)))


def test_places_differ_by_their_words_and_an_empty_text_leaves_them_alike():
    network = TextMap(Places(16), (2, 3))
    text, z = words_of("two four", "four two", ""), jnp.zeros((3, Z))
    made = jax.jit(network.apply)(any_params(network, jax.random.key(1), text, z, MASK), text, z, MASK)
    assert made.shape == (3, 2, 3, 16)
    assert np.abs(made[0] - made[1]).max() > 1e-3
    assert np.abs(made[0] - made[0, :1, :1]).max() > 1e-3
    np.testing.assert_array_equal(made[2], 0)


def test_a_word_is_drawn_alike_at_every_place():
    """One word sent to one place and to another: the map is moved by as much, but for what goes beyond its edge."""
    network = TextMap(Places(width=8, heads=1), (10, 10))
    text = one_word(np.random.default_rng(0))
    params = any_params(network, jax.random.key(0), text, NOTHING, MASK)["params"]
    # The places' queries are all against the word's key, but one for it.
    of_places = params["places"]
    key = np.asarray(text.about[0, 0] @ of_places["Dense_1"]["kernel"] @ of_places["Dense_0"]["kernel"].T)

    def sent_to(row, column):
        places = -key * np.ones((SIDE, SIDE, 1))
        places[row, column] = key
        chosen = jnp.asarray(100 * places.reshape(SIDE**2, -1), jnp.float32)
        sent = {"params": params | {"places": of_places | {"places": chosen}}}
        return np.asarray(network.apply(sent, text, NOTHING, MASK))[0]

    one, other = sent_to(1, 1), sent_to(2, 3)
    empty = one[-1, -1]
    ratio = (other - other[0, 0])[4:8, 6:9] / (one - empty)[2:6, 2:5]
    assert np.abs(one - empty)[2:6, 2:5].max() > 0.1
    # Of a mean square of 1 each, what the edge cuts off one leaves more to the rest.
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)


def test_z_decides_where_the_text_does_not():
    """A word that the attention sends nowhere goes where z shifts the scores."""
    network = TextMap(Places(width=8, heads=2), (10, 10))
    text = one_word(np.random.default_rng(1))
    params = any_params(network, jax.random.key(0), text, NOTHING, MASK)["params"]
    of_places = params["places"] | {"Dense_1": {"kernel": jnp.zeros((8, 8)), "bias": jnp.zeros(8)}}
    kernel = np.zeros((Z, 2, SIDE**2), np.float32)
    kernel[:, :, 0], kernel[:, :, -1] = 50, -50
    shift = params["FromLatents_0"] | {"kernel": jnp.asarray(kernel.reshape(Z, -1))}
    shifted = {"params": params | {"places": of_places, "FromLatents_0": shift}}
    first, last, between = (
        np.asarray(network.apply(shifted, text, jnp.full((1, Z), z), MASK))[0] for z in (1.0, -1.0, 0.0)
    )

    def strength(made, part):
        return np.square(made - np.median(made, axis=(0, 1)))[part].mean()

    top, bottom = np.s_[:4, :4], np.s_[-4:, -4:]
    assert strength(first, top) > 10 * strength(first, bottom)
    assert strength(last, bottom) > 10 * strength(last, top)
    assert 0.5 < strength(between, top) / strength(between, bottom) < 2


@pytest.fixture(scope="module")
def model():
    return CVAE(CaptionConv(), Bernoulli(), Conditional(), Text(12), (16, 16, 1), Z)


def test_the_decoder_receives_words_in_the_place_of_the_embedding(model):
    params = any_params(model, jax.random.key(0))
    assert {"places_0", "text_map"} <= params["params"].keys()
    c, z = jnp.asarray(encode_text(["two four", "four two"], 12)), jnp.ones((2, Z))
    embedded = jax.jit(model.embed)(params, c)
    assert embedded.encoder.e.shape == embedded.prior.e.shape == (2, TextEncoder.features)
    other_e = embedded._replace(decoder=embedded.decoder._replace(e=embedded.decoder.e + 1))
    other_words = embedded._replace(
        decoder=embedded.decoder._replace(words=jax.tree.map(jnp.flip, embedded.decoder.words))
    )
    decode = jax.jit(model.decode)
    plain, of_e, of_words = (decode(params, z, each) for each in (embedded, other_e, other_words))
    np.testing.assert_array_equal(plain, of_e)
    assert np.abs(plain - of_words).max() > 1e-3


def test_a_dropped_text_has_no_effect(model):
    params, z = any_params(model, jax.random.key(0)), jnp.ones((2, Z))
    c, mask = jnp.asarray(encode_text(["two four", "four two"], 12)), jnp.array([0.0, 1.0])
    decode = jax.jit(model.decode)
    now, other = (decode(params, z, MaskedCondition(each, mask)) for each in (c, c[::-1]))
    np.testing.assert_array_equal(now[0], other[0])
    assert np.abs(now[1] - other[1]).max() > 1e-3


def test_each_text_encoder_has_places_of_its_own():
    model = CVAE(CaptionConv(), Bernoulli(), Conditional(), Text(12), (16, 16, 1), Z, share_condition=False)
    params = jax.eval_shape(model.init, jax.random.key(0))["params"]
    assert {"places_0", "places_1", "places_2"} <= params.keys()


def test_another_condition_than_a_text_is_refused():
    model = CVAE(CaptionConv(), Bernoulli(), Standard(), Image((8, 8, 1)), (16, 16, 1), Z)
    with pytest.raises(
        SettingError, match="condition is 'image', expected text with the network of captions"
    ):
        jax.eval_shape(model.init, jax.random.key(0))


def test_an_embedding_does_not_grow_with_the_features_of_all_places():
    """A step that moved every weight alike would else move it by the sum over all places."""
    network = TextEncoder(12, Places(64))
    c = jnp.asarray(encode_text(["two four", "four two"], 12))
    params = any_params(network, jax.random.key(0), c)
    width = SIDE**2 * TextEncoder.width
    (name,) = [name for name, of in params["params"].items() if jax.tree.leaves(of)[-1].shape[0] == width]
    kernel = params["params"][name]["kernel"]
    larger = {"params": params["params"] | {name: {"kernel": 1e4 * kernel}}}
    before, after = (np.asarray(jax.jit(network.apply)(p, c).e) for p in (params, larger))
    assert np.abs(after - before).max() > 1e-2
    assert np.square(after).mean() < 10 * np.square(before).mean()


@pytest.mark.slow
def test_z_is_drawn_alike_at_every_place():
    """Where there are no words, wherever the edges have no part."""
    model = CVAE(CaptionConv(), Bernoulli(), Standard(), Text(12), (32, 32, 1), Z)
    z, c = jnp.array([[1.0, -2.0], [-1.0, 2.0]]), jnp.asarray(encode_text(["", ""], 12))
    params = jax.jit(model.init)(jax.random.key(0))
    drawn = np.asarray(model.decode(params, z, c))[..., 0]
    np.testing.assert_allclose(drawn[:, 8:20, 8:20], drawn[:, 12:24, 12:24], atol=1e-5)
    assert np.abs(drawn[0] - drawn[1])[8:24, 8:24].max() > 1e-2
