"""A member's settings as the arrays that a compiled program takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import struct

from cvae_jax.config import Member
from cvae_jax.errors import SettingError
from cvae_jax.rng import root_key

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key


@struct.dataclass
class Hparams:
    """One member's settings as traced arrays; stack them and `jax.vmap` to sweep.

    Attributes:
      condition_first_steps, dropout, condition_dropout, rewording_weight, ema_decay: None where they are 0 for every
        member of the sweep, so that a program without them has no part for them.
      warmup_steps, condition_first_steps: a member's epochs counted in steps, scalars, float32.
      tipping_weight: of draws of another part under another wording, scalar, float32: 0 until `training.scheduled` says
        otherwise, None without a rewording_weight.
      latent_mask: the latents in use, shape (capacity,), bool.
      key: the member's root key.
      the others: as in `Member`, scalars, float32.
    """

    warmup_steps: Float[Array, ""]
    latent_mask: Bool[Array, " z"]
    key: Key[Array, ""]
    beta: Float[Array, ""]
    learning_rate: Float[Array, ""]
    adam_epsilon: Float[Array, ""]
    free_bits: Float[Array, ""]
    kl_target: Float[Array, ""]
    mi_weight: Float[Array, ""]
    marginal_weight: Float[Array, ""]
    dip_off_diagonal: Float[Array, ""]
    dip_diagonal: Float[Array, ""]
    tc_weight: Float[Array, ""]
    discriminator_learning_rate: Float[Array, ""]
    beta_min: Float[Array, ""]
    beta_max: Float[Array, ""]
    cvae_weight: Float[Array, ""]
    weight_decay: Float[Array, ""]
    clip_norm: Float[Array, ""]
    patience: Float[Array, ""]
    condition_first_steps: Float[Array, ""] | None
    dropout: Float[Array, ""] | None
    condition_dropout: Float[Array, ""] | None
    rewording_weight: Float[Array, ""] | None
    tipping_weight: Float[Array, ""] | None
    ema_decay: Float[Array, ""] | None


_OPTIONAL = ("condition_first_epochs", "dropout", "condition_dropout", "rewording_weight", "ema_decay")


def options_used(members: Sequence[Member]) -> frozenset[str]:
    """Names of the settings that are not 0 for every member, of those that a program without them has no part for."""
    return frozenset(name for name in _OPTIONAL if any(getattr(member, name) for member in members))


def hparams(
    member: Member, *, capacity: int, steps_per_epoch: int, used: frozenset[str] | None = None
) -> Hparams:
    """Turn one member's settings into traced arrays.

    Args:
      member: the settings.
      capacity: number of latents the program has room for, the largest `latent_dim` of the sweep.
      steps_per_epoch: to count the warm-up in steps.
      used: `options_used` of the whole sweep; of the member alone if not given.

    Returns:
      The pytree a training step takes.

    Raises:
      SettingError: if the member needs more latents than the capacity.

    Example:
      >>> hparams(Member(latent_dim=2), capacity=3, steps_per_epoch=10).latent_mask.tolist()
      [True, True, False]
    """
    if member.latent_dim > capacity:
        raise SettingError(f"latent_dim is {member.latent_dim}, expected at most the capacity {capacity}")
    used = options_used([member]) if used is None else used
    made_of_others: dict[str, Any] = {
        "warmup_steps": jnp.float32(member.warmup_epochs * steps_per_epoch),
        "condition_first_steps": jnp.float32(member.condition_first_epochs * steps_per_epoch)
        if "condition_first_epochs" in used
        else None,
        "tipping_weight": jnp.float32(0.0) if "rewording_weight" in used else None,
        "latent_mask": jnp.arange(capacity) < member.latent_dim,
        "key": root_key(member.seed),
    }
    same: dict[str, Any] = {
        field.name: jnp.float32(getattr(member, field.name))
        if field.name in used or field.name not in _OPTIONAL
        else None
        for field in dataclasses.fields(Hparams)
        if field.name not in made_of_others
    }
    return Hparams(**made_of_others, **same)
