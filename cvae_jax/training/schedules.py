"""Schedules: a factor that changes an option during the training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from flax import struct

from cvae_jax.options import EPOCHS, Part, Table, traced

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@struct.dataclass
class Time:
    """How far the training has come.

    Attributes:
      step: number of updates made so far, scalar int32.
      delay: epochs, from the first on, in which the objective does not count yet, scalar float32 or 0.
      steps_per_epoch: full batches in the training split, static.
      epochs: of the whole training, static.
    """

    step: Int[Array, ""]
    delay: Float[Array, ""] | float = 0.0
    steps_per_epoch: int = struct.field(pytree_node=False, default=1)
    epochs: int = struct.field(pytree_node=False, default=1)

    @property
    def epoch(self) -> Int[Array, ""]:
        """Epochs trained so far, scalar int32."""
        return self.step // self.steps_per_epoch


class Schedule(Part):
    """A factor for an option that depends on the time. A subclass is a frozen dataclass of its options.

    Attributes:
      over_all_epochs: whether it depends on the number of epochs, so that more of them are another training.
    """

    kind: ClassVar[str] = "learning_rate_schedule"
    over_all_epochs: ClassVar[bool] = False

    def factor(self, time: Time) -> Float[Array, ""] | float:
        """The factor at a time, scalar."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """The factor 1."""

    def factor(self, time: Time) -> float:
        """1."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class CosineDecay(Schedule):
    """From 1 to 0 over the epochs: ½ (1 + cos(π t/T)) in epoch t = 0, …, T − 1.

    References:
      Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5, without restarts.
    """

    over_all_epochs = True

    def factor(self, time: Time) -> Float[Array, ""]:
        """The factor of the time's epoch."""
        share = jnp.minimum(time.epoch.astype(jnp.float32) / time.epochs, 1.0)
        return 0.5 * (1.0 + jnp.cos(jnp.pi * share))


@dataclasses.dataclass(frozen=True)
class Stages(Schedule):
    """Factors 10^(−i/7) in stage i = 0, …, 7, which lasts 3ⁱ epochs; the last one does not end.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.
    """

    def factor(self, time: Time) -> Float[Array, ""]:
        """The factor of the time's epoch."""
        # Stage i starts after 1 + 3 + … + 3^(i−1) epochs.
        starts = jnp.array([(3**i - 1) // 2 for i in range(1, 8)])
        stage = jnp.sum(time.epoch >= starts, dtype=jnp.float32)
        return 10.0 ** (-stage / 7.0)


class Warmup(Schedule):
    """A factor that rises from 0 to 1 over `warmup_epochs`, after `Time.delay`. With 0 epochs it is always 1."""

    kind: ClassVar[str] = "schedule"
    warmup_epochs: float

    def _turns(self, time: Time) -> Float[Array, ""]:
        """Warm-ups that fit into the time so far."""
        since = jnp.maximum(time.step.astype(jnp.float32) - time.delay * time.steps_per_epoch, 0.0)
        return since / jnp.maximum(self.warmup_epochs * time.steps_per_epoch, 1.0)

    def _rise(self, turns: Float[Array, ""]) -> Float[Array, ""]:
        raise NotImplementedError

    def factor(self, time: Time) -> Float[Array, ""]:
        """The factor at a step."""
        return jnp.where(self.warmup_epochs > 0.0, self._rise(self._turns(time)), 1.0)


_EPOCHS = "Number of epochs N over which beta, or the target of capacity, rises."


@dataclasses.dataclass(frozen=True)
class LinearWarmup(Warmup):
    """min(t/N, 1) after t of N steps.

    References:
      Sønderby et al., Ladder Variational Autoencoders, 2016, section 3; Burgess et al., Understanding Disentangling in
      β-VAE, 2018, equation 8.
    """

    warmup_epochs: float = traced(0.0, bounds=EPOCHS, help=_EPOCHS)

    def _rise(self, turns: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.minimum(turns, 1.0)


@dataclasses.dataclass(frozen=True)
class CosineWarmup(Warmup):
    """½ (1 − cos(π min(t/N, 1))) after t of N steps."""

    warmup_epochs: float = traced(0.0, bounds=EPOCHS, help=_EPOCHS)

    def _rise(self, turns: Float[Array, ""]) -> Float[Array, ""]:
        return 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.minimum(turns, 1.0)))


@dataclasses.dataclass(frozen=True)
class CyclicalWarmup(Warmup):
    """min(2 frac(t/N), 1) after t steps: in each cycle of N steps it rises to 1 in the first half, and then stays at 1.

    References:
      Fu et al., Cyclical Annealing Schedule, 2019, equation 6.
    """

    warmup_epochs: float = traced(0.0, bounds=EPOCHS, help="Length N of a cycle in epochs.")

    def _rise(self, turns: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.minimum(2.0 * (turns - jnp.floor(turns)), 1.0)


WARMUPS = Table(Warmup, {"linear": LinearWarmup, "cosine": CosineWarmup, "cyclical": CyclicalWarmup})
LEARNING_RATE_SCHEDULES = Table(Schedule, {"constant": Constant, "cosine": CosineDecay, "iwae": Stages})
