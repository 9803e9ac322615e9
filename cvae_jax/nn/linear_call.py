"""Linear functions with a transpose of one's own, which forward mode, reverse mode and `jax.vmap` take.

`jax.custom_vjp` has no forward mode, and `jax.custom_derivatives.linear_call` no `jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

if TYPE_CHECKING:
    from jaxtyping import Array

_linear_call = Primitive("linear_call_with_transpose")


def linear_call(
    function: Callable[..., Array], transpose: Callable[..., Array], *residuals: Array, argument: Array
) -> Array:
    """`function(*residuals, argument)`, whose transpose in the argument is a function of yours, too.

    Args:
      function: linear in its last argument.
      transpose: from the residuals and a cotangent of the result to the cotangent of the argument: the same values as
        autodiff's, in a form that is faster.
      *residuals: what the function depends on besides.
      argument: what it is linear in.

    Returns:
      The function's result.

    Example:
      >>> import jax.numpy as jnp
      >>> double = lambda x: linear_call(lambda x: 2.0 * x, lambda g: g + g, argument=x)
      >>> one = jnp.float32(1.0)
      >>> jax.grad(double)(one).item(), jax.jvp(double, (one,), (3.0 * one,))[1].item()
      (2.0, 6.0)
    """
    return cast("Array", _linear_call.bind(*residuals, argument, function=function, transpose=transpose))


@_linear_call.def_impl
def _apply(*args: Array, function: Callable[..., Array], transpose: Callable[..., Array]) -> Array:
    return function(*args)


@_linear_call.def_abstract_eval
def _shape(*args: Any, function: Callable[..., Array], transpose: Callable[..., Array]) -> ShapedArray:
    result = jax.eval_shape(function, *args)
    return ShapedArray(result.shape, result.dtype)


def _jvp(primals: Any, tangents: Any, **functions: Callable[..., Array]) -> tuple[Any, Any]:
    value = _linear_call.bind(*primals, **functions)
    *of_residuals, of_argument = tangents
    if all(isinstance(tangent, ad.Zero) for tangent in of_residuals):
        return value, _linear_call.bind(*primals[:-1], ad.instantiate_zeros(of_argument), **functions)
    # Of second order: plain.
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    return value, jax.jvp(functions["function"], tuple(primals), tangents)[1]


def _transpose(
    cotangent: Any, *args: Any, function: Callable[..., Array], transpose: Callable[..., Array]
) -> list[Any]:
    return [None] * (len(args) - 1) + [transpose(*args[:-1], ad.instantiate_zeros(cotangent))]


def _batch(args: Any, dims: Any, **functions: Callable[..., Array]) -> tuple[Any, int]:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    argument = batching.bdim_at_front(args[-1], dims[-1], size)
    mapped = {name: jax.vmap(f, in_axes=(*dims[:-1], 0)) for name, f in functions.items()}
    return _linear_call.bind(*args[:-1], argument, **mapped), 0


ad.primitive_jvps[_linear_call] = _jvp
ad.primitive_transposes[_linear_call] = _transpose
batching.primitive_batchers[_linear_call] = _batch
mlir.register_lowering(_linear_call, mlir.lower_fun(_apply, multiple_results=False))
