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
    function: Callable[..., Array], transpose: Callable[..., Any], *residuals: Array, argument: Any
) -> Array:
    """`function(*residuals, argument)`, whose transpose in the argument is a function of yours, too.

    Args:
      function: linear in its last argument.
      transpose: from the residuals and a cotangent of the result to the cotangent of the argument: the same values as
        autodiff's, in a form that is faster.
      *residuals: what the function depends on besides.
      argument: what it is linear in, an array or a tuple of arrays.

    Returns:
      The function's result.

    Example:
      >>> import jax.numpy as jnp
      >>> double = lambda x: linear_call(lambda x: 2.0 * x, lambda g: g + g, argument=x)
      >>> one = jnp.float32(1.0)
      >>> jax.grad(double)(one).item(), jax.jvp(double, (one,), (3.0 * one,))[1].item()
      (2.0, 6.0)
    """
    leaves, structure = jax.tree.flatten(argument)

    def of_leaves(*args: Array) -> Array:
        return function(*args[: len(residuals)], jax.tree.unflatten(structure, args[len(residuals) :]))

    def to_leaves(*args: Array) -> list[Array]:
        return jax.tree.leaves(transpose(*args))

    result = _linear_call.bind(
        *residuals, *leaves, function=of_leaves, transpose=to_leaves, arguments=len(leaves)
    )
    return cast("Array", result)


@_linear_call.def_impl
def _apply(*args: Array, function: Callable[..., Array], **_: Any) -> Array:
    return function(*args)


@_linear_call.def_abstract_eval
def _shape(*args: Any, function: Callable[..., Array], **_: Any) -> ShapedArray:
    result = jax.eval_shape(function, *args)
    return ShapedArray(result.shape, result.dtype)


def _jvp(primals: Any, tangents: Any, *, arguments: int, **functions: Callable[..., Any]) -> tuple[Any, Any]:
    value = _linear_call.bind(*primals, arguments=arguments, **functions)
    of_residuals, of_arguments = tangents[:-arguments], tangents[-arguments:]
    if all(isinstance(tangent, ad.Zero) for tangent in of_residuals):
        of_arguments = map(ad.instantiate_zeros, of_arguments)
        return value, _linear_call.bind(
            *primals[:-arguments], *of_arguments, arguments=arguments, **functions
        )
    # Of second order: plain.
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    return value, jax.jvp(functions["function"], tuple(primals), tangents)[1]


def _transpose(
    cotangent: Any, *args: Any, transpose: Callable[..., Any], arguments: int, **_: Any
) -> list[Any]:
    residuals = args[:-arguments]
    return [None] * len(residuals) + list(transpose(*residuals, ad.instantiate_zeros(cotangent)))


def _batch(args: Any, dims: Any, *, arguments: int, **functions: Callable[..., Any]) -> tuple[Any, int]:
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    batched = [
        batching.bdim_at_front(a, d, size) for a, d in zip(args[-arguments:], dims[-arguments:], strict=True)
    ]
    of_residuals = dims[:-arguments]
    mapped = {
        "function": jax.vmap(functions["function"], in_axes=(*of_residuals, *(0,) * arguments)),
        "transpose": jax.vmap(functions["transpose"], in_axes=(*of_residuals, 0)),
    }
    return _linear_call.bind(*args[:-arguments], *batched, arguments=arguments, **mapped), 0


ad.primitive_jvps[_linear_call] = _jvp
ad.primitive_transposes[_linear_call] = _transpose
batching.primitive_batchers[_linear_call] = _batch
mlir.register_lowering(_linear_call, mlir.lower_fun(_apply, multiple_results=False))
