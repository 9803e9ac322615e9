"""Matrix products whose gradients stay matrix products under `jax.vmap`, on any backend.

Their derivatives are defined as tangents, for forward mode; reverse mode transposes these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.nn.linear_call import linear_call

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Float

# On the CPU a sum over so many rows goes up to twice as fast with the narrower matrix first, and one with a matrix of
# so few columns up to six times.
_TALL = 1024
_NARROW = 128


def kernel_gradient(x: Float[Array, "*b i"], g: Float[Array, "*b o"]) -> Float[Array, "i o"]:
    """xᵀg over all leading axes."""
    x, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    if x.shape[1] <= g.shape[1] or (len(x) < _TALL and g.shape[1] > _NARROW):
        return _product_of_columns(x, g)
    # The barrier keeps XLA from undoing the exchange.
    return jax.lax.optimization_barrier(_product_of_columns(g, x)).T


def _product_of_columns(x: Float[Array, "n i"], g: Float[Array, "n o"]) -> Float[Array, "i o"]:
    return jax.lax.dot_general(x, g, (((0,), (0,)), ((), ())))


@jax.custom_jvp
def matmul(x: Float[Array, "*b i"], kernel: Float[Array, "i o"]) -> Float[Array, "*b o"]:
    """x @ kernel."""
    return x @ kernel


@matmul.defjvp
def _matmul_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, kernel = primals
    of_x, of_kernel = tangents
    return x @ kernel, of_x @ kernel + linear_call(jnp.matmul, kernel_gradient, x, argument=of_kernel)


class Dense(nn.Module):
    """`nn.Dense` by `matmul`.

    Attributes:
      features: output channels.
      use_bias: whether to add a learned bias.
      dtype: of the product.
      initializer: of the kernel.
    """

    features: int
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    initializer: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """Map the last axis."""
        kernel = self.param("kernel", self.initializer, (x.shape[-1], self.features))
        y = matmul(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y
