"""Products whose gradients take the order of their factors that is fast: the values are those of any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.products import kernel_gradient, matmul


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


# Few rows and many; into narrow and wide, from narrow and wide.
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(5, 3, 7), (5, 7, 3), (9, 300, 200), (1030, 6, 2), (1030, 2, 6)]
)
def test_a_kernel_gradient_is_the_product_over_all_rows(rows, inner, columns):
    x, g = arrays((2, rows, inner), (2, rows, columns))
    expected = np.einsum("bri,bro->io", x.astype(np.float64), g.astype(np.float64))
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
