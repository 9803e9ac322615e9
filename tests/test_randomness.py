"""Streams are apart."""

import itertools

import jax

from cvae_jax.randomness import Stream, stream


def test_streams_have_different_keys():
    keys = [jax.random.key_data(stream(jax.random.key(0), name)).tolist() for name in Stream]
    assert all(a != b for a, b in itertools.combinations(keys, 2))
