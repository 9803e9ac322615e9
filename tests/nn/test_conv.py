"""The matrix-product convolutions are flax's, on values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.nn.conv import Downsample, Upsample, overlap_add, patches

PAIRS = {
    "down": (lambda f: Downsample(f), lambda f: nn.Conv(f, (4, 4), 2)),
    "up": (lambda f: Upsample(f), lambda f: nn.ConvTranspose(f, (4, 4), (2, 2))),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize(
    "shape",
    [
        (2, 8, 8, 3),
        (3, 7, 7, 2),
        *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 14, 10, 4), (2, 5, 6, 1))),
    ],
)
def test_equals_flax(kind, shape):
    ours, theirs = (make(5) for make in PAIRS[kind])
    x = jax.random.normal(jax.random.key(0), shape)
    params = theirs.init(jax.random.key(1), x)
    params = jax.tree.map(lambda p: jax.random.normal(jax.random.key(2), p.shape), params)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x)) == jax.tree.map(jnp.shape, params)

    expected = theirs.apply(params, x)
    np.testing.assert_allclose(ours.apply(params, x), expected, rtol=1e-4, atol=1e-4)

    weight = jax.random.normal(jax.random.key(3), expected.shape)

    def objective(module):
        return lambda params, x: jnp.sum(weight * jnp.sin(module.apply(params, x)))

    ours_grad = jax.grad(objective(ours), (0, 1))(params, x)
    theirs_grad = jax.grad(objective(theirs), (0, 1))(params, x)
    for a, b in zip(jax.tree.leaves(ours_grad), jax.tree.leaves(theirs_grad), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)

    direction = jax.tree.map(jnp.cos, (params, x))
    ours_tangent, theirs_tangent = (
        jax.jvp(objective(module), (params, x), direction)[1] for module in (ours, theirs)
    )
    np.testing.assert_allclose(ours_tangent, theirs_tangent, rtol=2e-4, atol=2e-4)


def test_same_initial_values_as_flax():
    x = jnp.zeros((1, 8, 8, 3))
    ours = Downsample(5).init(jax.random.key(1), x)
    theirs = nn.Conv(5, (4, 4), 2).init(jax.random.key(1), x)
    np.testing.assert_array_equal(ours["params"]["kernel"], theirs["params"]["kernel"])


def test_overlap_add_is_the_transpose_of_patches():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    (expected,) = jax.linear_transpose(patches, x)(p := jax.random.normal(jax.random.key(1), (2, 3, 4, 48)))
    np.testing.assert_allclose(overlap_add(p), expected, rtol=1e-6, atol=1e-6)


def test_vmap_over_kernels_equals_a_loop():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    stacked = jax.vmap(lambda k: Downsample(4).init(k, x))(jax.random.split(jax.random.key(1), 3))

    def gradient(params):
        return jax.grad(lambda p: jnp.sum(Downsample(4).apply(p, x) ** 2))(params)

    batched = jax.vmap(gradient)(stacked)
    loop = [gradient({"params": {k: a[i] for k, a in stacked["params"].items()}}) for i in range(3)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), batched, expected)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_jacobian_is_the_same_in_both_modes(kind):
    ours, _ = (make(2) for make in PAIRS[kind])
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 2))
    params = ours.init(jax.random.key(1), x)

    def f(x):
        return jnp.sum(jnp.sin(ours.apply(params, x)), axis=-1)

    forward, reverse = (jax.jit(jacobian(f))(x) for jacobian in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-5)
