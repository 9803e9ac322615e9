"""What an objective is: a loss per example of a batch, its terms, and what it can be combined with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import optax
from flax import struct

from cvae_jax.errors import SettingError
from cvae_jax.model import CVAE, Model
from cvae_jax.options import Part

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree


class Terms(NamedTuple):
    """An objective's values for a batch, per example, in nats.

    Attributes:
      loss: what training minimizes, shape (b,); only its mean over the batch counts.
      distortion: −log p(x|z,c) for z ~ q, shape (b,).
      rate: KL(q(z|x,c) ‖ p(z|c)), unweighted and without any floor, shape (b,).
      parts: further terms by name, shape (b,) each: see `Objective.part_names`; None for none.
    """

    loss: Float[Array, " b"]
    distortion: Float[Array, " b"]
    rate: Float[Array, " b"]
    parts: dict[str, Float[Array, " b"]] | None = None


@struct.dataclass
class Batch:
    """A batch of examples and its random keys.

    Attributes:
      x: shape (b, *dims), float32.
      c: conditions, as the model's `condition` has them: labels of shape (b,), int32.
      keys: one per example, for z, shape (b,).
      key: for what an objective draws for the batch as a whole.
      alternative: other conditions that are true of the same examples, None where the data have none.
      num_examples: of the training split, static.
    """

    x: Float[Array, " b *dims"]
    c: PyTree
    keys: Key[Array, " b"]
    key: Key[Array, ""]
    alternative: PyTree = None
    num_examples: int = struct.field(pytree_node=False, default=1)


@dataclasses.dataclass(frozen=True)
class Need:
    """A requirement on another part of the configuration.

    Attributes:
      kind: of the part, such as `prior`.
      holds: whether a class of that kind meets it.
    """

    kind: str
    holds: Callable[[Any], bool]


STANDARD_PRIOR = Need("prior", lambda prior: prior.standard)
LEARNED_PRIOR = Need("prior", lambda prior: not prior.standard)
GAUSSIAN_PRIOR = Need("prior", lambda prior: prior.gaussian)
# A log-variance that is fitted to one draw of z per example is no likelihood of several.
FIXED_VARIANCE = Need("likelihood", lambda likelihood: not likelihood.fits_batch)


class Objective(Part):
    """What training minimizes; a subclass is a frozen dataclass of its options.

    Attributes:
      part_names: names of the `Terms.parts` that `loss` gives.
      annealed: the option that a warm-up raises from 0; empty for none.
      smallest_batch: examples that it compares at least.
      one_draw: whether distortion and rate are those of one z ~ q, drawn with the example's key.
      has_posterior: whether q(z|x,c) is learned, so that it can collapse to the prior.
      uses_latents: whether the number of latents matters.
      needs_flat_latents: whether the model's latents have to be one array with a Gaussian posterior.
      needs: what the other parts have to be.
    """

    kind: ClassVar[str] = "objective"
    part_names: ClassVar[tuple[str, ...]] = ()
    annealed: ClassVar[str] = "beta"
    smallest_batch: ClassVar[int] = 1
    one_draw: ClassVar[bool] = True
    has_posterior: ClassVar[bool] = True
    uses_latents: ClassVar[bool] = True
    needs_flat_latents: ClassVar[bool] = False
    needs: ClassVar[tuple[Need, ...]] = ()

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """The loss of each example of a batch, and its terms.

        Args:
          model: the model.
          params: its parameters.
          batch: b examples.

        Returns:
          Shapes (b,), nats.
        """
        raise NotImplementedError

    @property
    def draws(self) -> int:
        """Draws of z per example: members of several are ranked by the bound of as many."""
        return 1

    def adapted(self, model: Any) -> Any:
        """The model that this objective trains: the model itself, unless its networks have to differ; see `changed`."""
        return model

    def init(self, model: Model, key: Key[Array, ""], latent_mask: Bool[Array, " z"]) -> dict[str, PyTree]:
        """Collections of variables beside the model's, before the first step.

        Args:
          model: the model.
          key: the member's root key, for a stream of the objective's own.
          latent_mask: the latents in use, shape (z,).
        """
        return {}

    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """Optimizers of those collections that train, by name."""
        return {}


def changed(model: Model, objective: Objective, **fields: Any) -> CVAE:
    """The model with other values of some fields.

    Raises:
      SettingError: if it is another model than a `CVAE`.
    """
    if not isinstance(model, CVAE):
        raise SettingError(
            f"the objective {type(objective).__name__} changes the networks of a CVAE, expected no other model, got "
            f"{type(model).__name__}"
        )
    return dataclasses.replace(model, **fields)
