"""Texts: their words, and the context of each."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.conditions.text import TextEncoder, encode_text, words_of


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
    network = TextEncoder(12)
    c = jnp.asarray(encode_text(["two"], 12))
    params = any_params(network, jax.random.key(0), c)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(network.apply(params, c).e))))(params)
    positions = np.abs(gradient["params"]["positions"]).max(axis=1)
    assert positions[0] > 0
    assert (positions[1:] == 0).all()


class Reader(nn.Module):
    """Another module that reads the words, as a network may add one."""

    def __call__(self, text):
        return text.words


def test_the_context_of_a_word_is_made_without_it():
    network = TextEncoder(20, Reader())
    texts = ["a two above a six", "a ten above a six", "a two below a six"]
    c = jnp.asarray(encode_text(texts, 20))
    params = any_params(network, jax.random.key(0), c)
    about = np.asarray(jax.jit(network.apply)(params, c).words.about)
    two, ten, below = about[:, 1]
    np.testing.assert_array_equal(two, ten)
    assert np.abs(two - below).max() > 1e-3
    assert np.abs(about[0, 0] - about[1, 0]).max() > 1e-3


def test_words_go_out_to_who_reads_them():
    c = jnp.asarray(encode_text(["two four", ""], 12))
    alone, read = (
        jax.jit(network.apply)(any_params(network, jax.random.key(0), c), c)
        for network in (TextEncoder(12), TextEncoder(12, Reader()))
    )
    assert alone.words is None
    np.testing.assert_array_equal(read.words.present, [[1, 1, 0], [0, 0, 0]])
