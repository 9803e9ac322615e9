"""What an objective is: from a model and a batch to a loss per example, and its terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvae_jax.hparams import Hparams
from cvae_jax.model import CVAE

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key, PyTree


class Terms(NamedTuple):
    """What one objective says of a batch, per example, in nats.

    Attributes:
      loss: what training minimizes, shape (b,); only its mean over the batch is meant.
      distortion: −log p(x|z,c) for z ~ q, shape (b,).
      rate: KL(q(z|x,c) ‖ p(z|c)), unweighted and without any floor, shape (b,).
      parts: what else the objective reports of its loss, by name, shape (b,) each: see `objectives.part_names`;
        None for nothing.
    """

    loss: Float[Array, " b"]
    distortion: Float[Array, " b"]
    rate: Float[Array, " b"]
    parts: dict[str, Float[Array, " b"]] | None = None


class Objective(Protocol):
    """A training objective: the signature of `negative_beta_elbo`."""

    def __call__(
        self,
        model: CVAE,
        params: PyTree,
        x: Float[Array, "b H W C"],
        c: PyTree,
        keys: Key[Array, " b"],
        hparams: Hparams,
    ) -> Terms:
        """Loss and terms per example."""
        ...
