"""A member's settings as arrays, the input of the compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct

from cvae_jax.errors import SettingError
from cvae_jax.options import options_of
from cvae_jax.rng import root_key
from cvae_jax.training.config import Config
from cvae_jax.training.hooks import Hook, is_on

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Key


@struct.dataclass
class Hparams:
    """One member's settings as traced arrays; stack them and `jax.vmap` to sweep.

    Attributes:
      config: every traced option a scalar, float32; static options are part of the pytree's structure.
      latent_mask: the latents in use, shape (capacity,), bool.
      key: the member's root key.
    """

    config: Config
    latent_mask: Bool[Array, " z"]
    key: Key[Array, ""]


def hparams(config: Config, *, capacity: int) -> Hparams:
    """Turn one member's settings into traced arrays.

    Args:
      config: the settings.
      capacity: number of latents the program has room for, the largest `latent_dim` of the sweep.

    Raises:
      SettingError: if the member needs more latents than the capacity.

    Example:
      >>> h = hparams(Config(latent_dim=2), capacity=3)
      >>> h.latent_mask.tolist(), h.config.objective.beta.dtype
      ([True, True, False], dtype('float32'))
    """
    if config.latent_dim > capacity:
        raise SettingError(f"latent_dim is {config.latent_dim}, expected at most the capacity {capacity}")
    mask = jnp.arange(capacity) < config.latent_dim
    return Hparams(jax.tree.map(jnp.float32, config), mask, root_key(config.seed))


def alike(members: Sequence[Config]) -> tuple[Config, ...]:
    """Give all members the same hooks, in the same order. A member that does not use a hook has it switched off.

    Raises:
      SettingError: if the members differ in an option that shapes the program.
    """
    used: dict[type[Hook], Hook] = {}
    for member in members:
        for hook in member.hooks:
            if is_on(hook):
                used.setdefault(type(hook), hook)
    # The order of a set of classes would depend on the run.
    order = sorted(used, key=lambda hook: (hook.__module__, hook.__qualname__))

    def of(member: Config) -> Config:
        own = {type(hook): hook for hook in member.hooks}
        hooks = tuple(
            own[each] if each in own else _off(used[each])
            for each in order
            if each in own or options_of(each)
        )
        return member if hooks == member.hooks else dataclasses.replace(member, hooks=hooks)

    same = tuple(map(of, members))
    first = jax.tree.structure(same[0])
    for i, member in enumerate(same):
        if jax.tree.structure(member) != first:
            raise SettingError(
                f"member {i} differs from member 0 in an option that shapes the program, expected it to differ in "
                "options that may be swept alone"
            )
    return same


def _off(hook: Hook) -> Hook:
    changed: Any = hook
    return dataclasses.replace(changed, **{next(iter(options_of(type(hook)))): 0.0})


def stack_hparams(members: Sequence[Config], *, capacity: int) -> Hparams:
    """The traced settings of all members, with a leading member axis."""
    each = [hparams(member, capacity=capacity) for member in alike(members)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
