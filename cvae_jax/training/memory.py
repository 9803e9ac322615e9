"""How many members fit into the memory of the devices, estimated before anything is compiled."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
from jax.extend.core import Var

from cvae_jax.errors import SettingError
from cvae_jax.model import Model
from cvae_jax.objectives.base import Batch
from cvae_jax.options import COUNT
from cvae_jax.rng import root_key
from cvae_jax.training import step as training
from cvae_jax.training.config import Config, owners
from cvae_jax.training.hparams import Hparams, alike, hparams
from cvae_jax.training.schedules import Time
from cvae_jax.training.step import TrainState

if TYPE_CHECKING:
    from jaxtyping import PyTree

# Free memory that is assumed of a device that does not report it.
ASSUMED_FREE_BYTES = 4 * 2**30
_SHARE = 0.8
# What XLA gives memory of its own. All else is elementwise or moves elements, cheap enough for XLA to compute again
# wherever it is used.
_OWN_MEMORY = (
    "concatenate",
    "conv_general",
    "cum",
    "dot",
    "dynamic",
    "gather",
    "logistic",
    "pad",
    "reduce",
    "scan",
    "scatter",
    "sort",
    "while",
)
_VIEWS = ("convert_element_type", "reshape", "squeeze")


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all arrays in a tree. The leaves can also be shapes and types without values."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _abstract_settings(model: Model, members: Sequence[Config]) -> Hparams:
    """Shapes of one member's settings."""
    one = max(alike(members), key=lambda member: member.latent_dim)
    return jax.eval_shape(lambda: hparams(one, capacity=model.capacity))


def _abstract_state(model: Model, members: Sequence[Config]) -> TrainState:
    """Shapes of one member's state."""
    return jax.eval_shape(lambda h: training.init(model, h), _abstract_settings(model, members))


def member_bytes(model: Model, members: Sequence[Config]) -> int:
    """Bytes that each further member needs in training: its state, and the temporary arrays of a step at their peak.

    The peak is that of one step's program: the state, updated in place, and each value with memory of its own from
    where it is made to where it, or what is computed from it without memory of its own, is last used. XLA's own
    figure is within a quarter of it, as a test checks.

    Args:
      model: the model.
      members: of the sweep; what one of them uses each has room for.

    Returns:
      Bytes per member.
    """
    settings = _abstract_settings(model, members)
    state = _abstract_state(model, members)
    size, alternative = members[0].batch_size, any(hook.needs_alternative for hook in settings.config.hooks)

    def blank_batch() -> Batch:
        x = jnp.zeros((size, *model.shape))
        c = None if model.condition is None else jax.tree.map(jnp.asarray, model.condition.blank(size))
        key = root_key(0)
        keys = jax.random.split(key, size)
        return Batch(x, c, keys, key, c if alternative else None, num_examples=size)

    def step_of(state: TrainState, batch: Batch, settings: Hparams, step: Any) -> TrainState:
        return training.train_step(model, state, batch, settings, Time(step))

    batch, step = jax.eval_shape(blank_batch), jax.ShapeDtypeStruct((), jnp.int32)
    jaxpr = jax.make_jaxpr(step_of)(state, batch, settings, step)
    return tree_bytes(state) + _peak_bytes(jaxpr.jaxpr)


def require_room(model: Model, members: Sequence[Config], at_once: int) -> None:
    """Refuse members that cannot fit into free memory, before any array is made.

    What is counted is the least they take: parameters, the optimizer's state, and one step's decoded draws.

    Args:
      model: the model.
      members: of the sweep.
      at_once: how many train in one program.

    Raises:
      SettingError: naming the settings that make a model large.
    """
    config = members[0]
    draws = config.objective.draws * config.batch_size * math.prod(model.shape) * 4
    needed = at_once * (tree_bytes(_abstract_state(model, members)) + draws)
    sizes = _sizes(config) | {"latent_dim": model.capacity, "members_per_program": at_once}
    named = (f"{name} is {','.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in sizes.items())
    require_free(", ".join(named), needed)


def _sizes(config: Config) -> dict[str, Any]:
    """Static options that count something and are not at their default: they may make a model large."""
    sizes = {}
    for name, owner in owners(config).items():
        default = next(
            field.default for field in dataclasses.fields(cast("Any", owner.part)) if field.name == name
        )
        value = getattr(owner.part, name)
        if owner.option.bounds is COUNT and not owner.option.traced and name != "epochs" and value != default:
            sizes[name] = value
    return sizes


def require_free(what: str, needed: float) -> None:
    """Refuse what takes more bytes than are free.

    Args:
      what: the settings that it depends on, as an error names them.
      needed: bytes.

    Raises:
      SettingError: naming them.
    """
    free = _device_bytes() or _host_bytes()
    if needed > free:
        raise SettingError(
            f"{what}: this takes at least {needed / 2**30:.3g} GiB of memory, expected at most the "
            f"{free / 2**30:.3g} GiB that are free"
        )


def members_that_fit(model: Model, members: Sequence[Config]) -> int:
    """How many members to train at once: all if they fit into free memory, else about equal parts that fit."""
    fit = max(1, int(_SHARE * _free_bytes() / member_bytes(model, members)))
    parts = -(-len(members) // fit)
    return -(-len(members) // parts)


def _free_bytes() -> int:
    """Free bytes on all devices together, for a plan."""
    return _device_bytes() or ASSUMED_FREE_BYTES


def _host_bytes() -> float:
    """Bytes of the host's memory that are free or could be freed; inf where the system does not report them."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return math.inf


def _device_bytes() -> int:
    """Free bytes on all devices together; 0 where none reports them."""
    free = 0
    for device in jax.local_devices():
        stats: dict[str, Any] = device.memory_stats() or {}
        free += stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    return free


def _bytes_of(aval: Any) -> int:
    """Bytes of an abstract value; keys and the like count nothing."""
    return math.prod(aval.shape) * aval.dtype.itemsize if jnp.issubdtype(aval.dtype, jnp.number) else 0


def _peak_bytes(jaxpr: Any) -> int:
    """The most bytes that values made by a program take at once.

    A matrix product reads its operands from memory, so they have their own, if not the same as another's.
    """
    reads: dict[Any, frozenset[Any]] = {}  # the values with memory of their own behind each value
    size: dict[Any, int] = {}
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    view: set[Any] = set()

    def keep(value: Any, i: int) -> None:
        reads[value], size[value], first[value] = frozenset((value,)), _bytes_of(value.aval), i

    for i, (name, inputs, outputs) in enumerate(_flatten(jaxpr, {})):
        if name == "dot_general":
            for value in inputs:
                if value in reads and value not in size and value not in view:
                    keep(value, i)
        behind = frozenset().union(*(reads.get(value, frozenset()) for value in inputs))
        last |= dict.fromkeys(behind, i)
        for value in outputs:
            if name.startswith(_OWN_MEMORY):
                keep(value, i)
                last[value] = i
            else:
                reads[value] = behind
                if name in _VIEWS and len(behind) == 1 and all(v in size or v in view for v in inputs):
                    view.add(value)

    change: dict[int, int] = {}
    for value, bytes_ in size.items():
        change[first[value]] = change.get(first[value], 0) + bytes_
        after = last[value] + 1
        change[after] = change.get(after, 0) - bytes_
    return max(itertools.accumulate((change[i] for i in sorted(change)), initial=0))


def _flatten(jaxpr: Any, names: dict[Any, Any]) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """The operations of a program with its calls inlined: name, inputs and outputs."""

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
        yield (
            equation.primitive.name,
            [name(v) for v in equation.invars if isinstance(v, Var)],
            equation.outvars,
        )
