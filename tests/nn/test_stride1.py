"""The stride-1 convolution is flax's: values, gradients, derivatives along a direction, many kernels at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.nn import stride1
from cvae_jax.nn.stride1 import Convolution


@pytest.fixture(params=["whole", "parts"])
def cached(request, monkeypatch):
    """Whether all windows are made at once, or one image at a time."""
    monkeypatch.setattr(stride1, "_CACHED", 2**21 if request.param == "whole" else 1)


def pair(size, shape, seed=0):
    ours, theirs = Convolution(5, size), nn.Conv(5, (size, size))
    x = jax.random.normal(jax.random.key(seed), shape)
    params = jax.tree.map(
        lambda p: jax.random.normal(jax.random.key(2 + seed), p.shape), theirs.init(jax.random.key(1), x)
    )
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x)) == jax.tree.map(jnp.shape, params)
    return ours, theirs, params, x


def objective(module):
    return lambda params, x: jnp.sum(jnp.sin(module.apply(params, x)))


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_values_and_gradients_are_flax(cached, size):
    ours, theirs, params, x = pair(size, (4, 7, 6, 3))
    assert_close(ours.apply(params, x), theirs.apply(params, x))
    gradients = (jax.grad(objective(each), (0, 1))(params, x) for each in (ours, theirs))
    assert_close(*gradients)


def test_derivatives_along_a_direction_are_flax(cached):
    ours, theirs, params, x = pair(3, (4, 5, 6, 2))
    along = (jax.jvp(each.apply, (params, x), (params, x))[1] for each in (ours, theirs))
    assert_close(*along)


def test_members_have_kernels_and_images_of_their_own(cached):
    ours, theirs, params, x = pair(3, (2, 5, 5, 3))
    many = jax.tree.map(lambda p: jnp.stack([p, -2 * p, 3 * p]), params)
    images = jnp.stack([x, x[::-1], 2 * x])
    gradients = (jax.vmap(jax.grad(objective(each), (0, 1)))(many, images) for each in (ours, theirs))
    assert_close(*gradients)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="expected an odd number of rows"):
        Convolution(5, 4).init(jax.random.key(0), jnp.zeros((1, 6, 6, 2)))


def test_a_batch_of_images_is_gone_through_in_equal_parts():
    x = jnp.zeros((12, 4, 4, 2))
    image = 4 * 4 * 9 * 2 * 4
    for most, parts in ((12, 1), (7, 2), (5, 3), (1, 12), (0, 12)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stride1, "_CACHED", most * image)
            assert stride1._chunks(x, 9) == parts
