"""How many members fit on a device: a plan made before anything is compiled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from cvae_jax import training
from cvae_jax.config import Member, hparams
from cvae_jax.cvae import CVAE
from cvae_jax.training import Batch

if TYPE_CHECKING:
    from jaxtyping import PyTree

# A device that does not say how much memory it has is taken to spare this much.
ASSUMED_FREE_BYTES = 4 * 2**30
_SHARE = 0.8
# What XLA makes anew where it is used rather than keep it.
_FUSED = frozenset(
    (
        "broadcast_in_dim",
        "convert_element_type",
        "iota",
        "logistic",
        "reshape",
        "slice",
        "squeeze",
        "transpose",
    )
)


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all arrays in a tree, or of their shapes and types."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def member_bytes(model: CVAE) -> int:
    """Bytes that one more member takes while it trains: its state, and what a step keeps at its peak.

    The peak is that of one step's program, each value held from where it is made to where it is last used;
    reshapes and the like count nothing. XLA's own figure is within a quarter of it, as a test checks.

    Args:
      model: the model.

    Returns:
      Bytes per member.
    """
    member = Member(latent_dim=model.capacity)
    settings = jax.eval_shape(lambda: hparams(member, capacity=model.capacity, steps_per_epoch=1))
    state = jax.eval_shape(lambda h: training.init(model, h), settings)
    batch_size = model.config.batch_size
    batch = jax.eval_shape(
        lambda: Batch(jnp.zeros((batch_size, *model.shape)), jnp.zeros(batch_size, jnp.int32))
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    jaxpr = jax.make_jaxpr(lambda *args: training.train_step(model, *args))(state, batch, settings, step)
    return tree_bytes(state) + _peak_bytes(jaxpr.jaxpr)


def members_that_fit(model: CVAE, num_members: int) -> int:
    """Members to train at once: all, or as many equal parts as the devices' free memory asks for."""
    fit = max(1, int(_SHARE * _free_bytes() / member_bytes(model)))
    parts = -(-num_members // fit)
    return -(-num_members // parts)


def _free_bytes() -> int:
    """Free bytes on all devices together."""
    free = 0
    for device in jax.local_devices():
        stats: dict[str, Any] = device.memory_stats() or {}
        free += stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    return free or ASSUMED_FREE_BYTES


def _bytes_of(aval: Any) -> int:
    """Bytes of an abstract value; keys and the like count nothing."""
    return math.prod(aval.shape) * aval.dtype.itemsize if jnp.issubdtype(aval.dtype, jnp.number) else 0


def _peak_bytes(jaxpr: Any) -> int:
    """The most bytes that values made by a program take at once, inputs apart."""
    equations = list(_flatten(jaxpr, {}))
    last_use: dict[Any, int] = {}
    for i, (inputs, _) in enumerate(equations):
        last_use |= dict.fromkeys(inputs, i)
    ends: dict[int, int] = {}
    live = peak = 0
    for i, (_, outputs) in enumerate(equations):
        for variable, size in outputs:
            live += size
            end = last_use.get(variable, i)
            ends[end] = ends.get(end, 0) + size
        peak = max(peak, live)
        live -= ends.pop(i, 0)
    return peak


def _flatten(jaxpr: Any, names: dict[Any, Any]) -> Iterator[tuple[list[Any], list[tuple[Any, int]]]]:
    """The equations of a program with its calls inlined, as inputs and outputs with their bytes."""

    def name(variable: Any) -> Any:
        return names.get(variable, variable) if isinstance(variable, Var) else None

    for equation in jaxpr.eqns:
        inner = next((equation.params[k] for k in ("jaxpr", "call_jaxpr") if k in equation.params), None)
        if inner is not None and equation.primitive.name not in ("while", "scan", "cond"):
            body = getattr(inner, "jaxpr", inner)
            inside = {v: name(o) for v, o in zip(body.invars, equation.invars, strict=True)}
            yield from _flatten(body, inside)
            names |= {
                o: inside.get(v, v)
                for o, v in zip(equation.outvars, body.outvars, strict=True)
                if isinstance(v, Var)
            }
            continue
        free = equation.primitive.name in _FUSED
        outputs = [(v, 0 if free else _bytes_of(v.aval)) for v in equation.outvars]
        yield [name(v) for v in equation.invars if isinstance(v, Var)], outputs
