"""Texts: their words, and what stands about each."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.conditions.kinds import encode_text
from cvae_jax.conditions.places import SIDE, Places
from cvae_jax.conditions.text import TextEncoder, words_of


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


def test_what_stands_about_a_word_is_read_without_it():
    network = TextEncoder(20, Places(64))
    texts = ["a two above a six", "a ten above a six", "a two below a six"]
    c = jnp.asarray(encode_text(texts, 20))
    params = any_params(network, jax.random.key(0), c)
    read = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, Places) and context.method_name == "__call__":
            read.append(np.asarray(args[0].about))
        return call(*args, **kwargs)

    with nn.intercept_methods(spy):
        network.apply(params, c)
    (about,) = read
    two, ten, below = about[:, 1]
    np.testing.assert_array_equal(two, ten)
    assert np.abs(two - below).max() > 1e-3
    assert np.abs(about[0, 0] - about[1, 0]).max() > 1e-3


def test_an_embedding_does_not_grow_with_what_is_said_of_places():
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
