"""The optimizer of the model's parameters."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import optax

from cvae_jax.options import POSITIVE, WEIGHT, Part, Real, Table, traced


class Optimizer(Part):
    """A choice of optimizer; a subclass is a frozen dataclass of its options.

    Attributes:
      learning_rate: an option of every optimizer, which `learning_rate_schedule` scales.
      clip_norm: another: the gradient's largest global norm.
    """

    kind: ClassVar[str] = "optimizer"
    learning_rate: float
    clip_norm: float

    def transformation(self) -> optax.GradientTransformation:
        """From a clipped gradient to an update."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    References:
      Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2.
    """

    learning_rate: float = traced(
        1e-3, bounds=POSITIVE, help="Learning rate of Adam, at the start of its schedule."
    )
    adam_epsilon: float = traced(
        1e-8, bounds=POSITIVE, help="Added to the square root of Adam's second moment."
    )
    weight_decay: float = traced(0.0, bounds=WEIGHT, help="Decoupled weight decay; 0 is plain Adam.")
    clip_norm: float = traced(
        math.inf,
        bounds=Real(0.0, above_low=True, infinite="does not clip"),
        help="Largest norm of the whole gradient; a larger one is scaled down to it.",
    )

    def transformation(self) -> optax.GradientTransformation:
        """Adam's direction, the decay, then the learning rate."""
        return optax.chain(
            optax.scale_by_adam(eps=self.adam_epsilon),
            optax.add_decayed_weights(self.weight_decay),
            optax.scale_by_learning_rate(self.learning_rate),
        )


OPTIMIZERS = Table(Optimizer, {"adamw": AdamW})
