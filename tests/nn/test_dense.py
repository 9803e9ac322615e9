"""Products whose gradients take the order of their factors that is fast: the values are those of any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.nn.dense import kernel_gradient, matmul


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]


# Few rows and many; into narrow and wide, from narrow and wide.
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(5, 3, 7), (5, 7, 3), (9, 300, 200), (1030, 6, 2), (1030, 2, 6)]
)
def test_a_kernel_gradient_is_the_product_over_all_rows(rows, inner, columns):
    x, g = arrays((2, rows, inner), (2, rows, columns))
    expected = np.einsum("bri,bro->io", np.float64(x), np.float64(g))
    np.testing.assert_allclose(kernel_gradient(x, g), expected, rtol=1e-4, atol=1e-3)
    of_members = jax.vmap(kernel_gradient)(x, g)
    assert of_members.shape == (2, inner, columns)
    np.testing.assert_allclose(of_members.sum(axis=0), expected, rtol=1e-4, atol=1e-3)


def test_gradients_are_those_of_the_plain_product():
    x, kernel, weights = arrays((4, 6, 5), (5, 3), (4, 6, 3))

    def gradients(product):
        return jax.grad(lambda x, kernel: jnp.sum(weights * jnp.tanh(product(x, kernel))), argnums=(0, 1))(
            x, kernel
        )

    for ours, plain in zip(gradients(matmul), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_forward_mode_is_that_of_the_plain_product():
    x, kernel, of_x, of_kernel = arrays((4, 6, 5), (5, 3), (4, 6, 5), (5, 3))
    for f in (jax.jvp, lambda f, p, t: (f(*p), jax.linearize(f, *p)[1](*t))):
        ours, plain = (f(product, (x, kernel), (of_x, of_kernel)) for product in (matmul, jnp.matmul))
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_jacobians_and_hessians_agree_in_both_modes():
    x, kernel = arrays((4, 5), (5, 3))

    def f(kernel, product):
        return jnp.sum(jnp.tanh(product(jnp.tanh(product(x, kernel)), kernel.T)), axis=0)

    def at(jacobian, product):
        return jax.jit(jacobian(lambda kernel: f(kernel, product)))(kernel)

    expected = at(jax.jacrev, jnp.matmul)
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(at(jacobian, matmul), expected, rtol=1e-4, atol=1e-5)
    expected = at(jax.hessian, jnp.matmul)
    for hessian in (jax.hessian, lambda g: jax.jacrev(jax.jacrev(g))):
        np.testing.assert_allclose(at(hessian, matmul), expected, rtol=1e-3, atol=1e-4)


# Members of their own x, kernel, or both, inside of the derivative and outside.
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 2)])
def test_vmap_is_that_of_the_plain_product(axes):
    x, kernel = (
        a if axis is None else jnp.stack([a, 2 * a, -a], axis)
        for a, axis in zip(arrays((6, 5), (5, 3)), axes, strict=True)
    )

    def inside(product):
        return jax.grad(lambda x, k: jnp.sum(jnp.tanh(jax.vmap(product, axes)(x, k))), (0, 1))(x, kernel)

    def outside(product):
        return jax.vmap(jax.grad(lambda x, k: jnp.sum(jnp.tanh(product(x, k))), (0, 1)), axes)(x, kernel)

    for f in (inside, outside):
        for ours, plain in zip(f(matmul), f(jnp.matmul), strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)
