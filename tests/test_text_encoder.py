"""Texts: their words, what stands about each, and the map they are stamped on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.condition_kinds import encode_text
from cvae_jax.text_encoder import Places, TextEncoder, words_of


def test_a_text_is_its_words_in_their_order():
    texts = ["two four", "four two", "twofour", "two", "two, four", ""]
    network = TextEncoder(12)
    c = jnp.asarray(encode_text(texts, 12))
    params = any_params(network, jax.random.key(0), c)
    apply = jax.jit(network.apply)
    e = np.asarray(apply(params, c).e)
    assert np.isfinite(e).all()
    for i in range(len(texts)):
        np.testing.assert_allclose(apply(params, c[i : i + 1]).e[0], e[i], atol=1e-5)
        for j in range(i):
            assert np.abs(e[i] - e[j]).max() > 1e-3
    blanks = apply(params, jnp.asarray(encode_text([" two  four "], 12)))
    np.testing.assert_allclose(blanks.e[0], e[0], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "most", "numbers"),
    [
        ("a 7, up", 8, [1, 0, 2, 3, 0, 4, 4]),
        ("  Zz09-az", 8, [0, 0, 1, 1, 1, 1, 2, 3, 3]),
        ("né x", 8, [1, 1, 1, 0, 2]),
        ("a b c d", 2, [1, 0, 2, 0, 2, 0, 2]),
        ("", 2, []),
    ],
)
def test_bytes_belong_to_words(text, most, numbers):
    c = jnp.asarray(encode_text([text], 9))
    assert words_of(c, most)[0].tolist() == numbers + [0] * (9 - len(numbers))


def test_padding_is_no_part_of_a_text():
    """What stands at the padding's words, and what gradient they get."""
    network = TextEncoder(12)
    c = jnp.asarray(encode_text(["two"], 12))
    params = any_params(network, jax.random.key(0), c)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(network.apply(params, c).e))))(params)
    positions = np.abs(gradient["params"]["positions"]).max(axis=1)
    assert positions[0] > 0
    assert (positions[1:] == 0).all()


def test_a_text_tells_places_apart_and_an_empty_one_tells_them_nothing():
    network = TextEncoder(12, grid=(2, 3))
    c = jnp.asarray(encode_text(["two four", "four two", ""], 12))
    params = any_params(network, jax.random.key(0), c)
    (places,) = jax.jit(network.apply)(params, c).maps
    assert places.shape == (3, 2, 3, TextEncoder.width)
    assert np.abs(places[0] - places[1]).max() > 1e-3
    assert np.abs(places[0] - places[0, :1, :1]).max() > 1e-3
    np.testing.assert_array_equal(places[2], 0)


def test_what_stands_about_a_word_is_read_without_it():
    network = TextEncoder(20, grid=(4, 4))
    texts = ["a two above a six", "a ten above a six", "a two below a six"]
    c = jnp.asarray(encode_text(texts, 20))
    params = any_params(network, jax.random.key(0), c)
    read = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, Places) and context.method_name == "__call__":
            read.append(np.asarray(args[0]))
        return call(*args, **kwargs)

    with nn.intercept_methods(spy):
        network.apply(params, c)
    (about,) = read
    two, ten, below = about[:, 1]
    np.testing.assert_array_equal(two, ten)
    assert np.abs(two - below).max() > 1e-3
    assert np.abs(about[0, 0] - about[1, 0]).max() > 1e-3


def test_what_is_said_is_drawn_alike_at_every_place():
    """One word sent to one place and to another: the map is moved by as much, but for what goes beyond its edge."""
    side, size = 5, 10
    network = Places((size, size), width=8, heads=1, side=side)
    rng = np.random.default_rng(0)
    about, words = (jnp.asarray(rng.normal(size=(1, 1, 8)), jnp.float32) for _ in range(2))
    params = any_params(network, jax.random.key(0), about, words, jnp.ones((1, 1), bool))["params"]
    # The places' queries are all against the word's key, but one for it.
    key = np.asarray(about[0, 0] @ params["Dense_1"]["kernel"] @ params["Dense_0"]["kernel"].T)

    def sent_to(row, column):
        places = -key * np.ones((side, side, 1))
        places[row, column] = key
        chosen = jnp.asarray(100 * places.reshape(side**2, -1), jnp.float32)
        return np.asarray(
            network.apply({"params": params | {"places": chosen}}, about, words, jnp.ones((1, 1), bool))
        )[0]

    one, other = sent_to(1, 1), sent_to(2, 3)
    empty = one[-1, -1]
    ratio = (other - other[0, 0])[4:8, 6:9] / (one - empty)[2:6, 2:5]
    assert np.abs(one - empty)[2:6, 2:5].max() > 0.1
    # Of a mean square of 1 each, what the edge cuts off one leaves more to the rest.
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
