"""What a likelihood is: a density p(x|z,c), and the parameters that a decoder gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax

from cvae_jax.options import Part

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

    Data = Float[Array, "*x"]


class Likelihood(Part):
    """A family of densities over one example x; a subclass is a frozen dataclass of its options.

    Its parameters, `output`, are what the decoder gives for one example: an array of shape (*places, channels(C));
    where `initial_logvar` is a number, a `GaussianOutput` of that and one log-variance for all pixels.

    Attributes:
      binary: whether x is 0 or 1, so that grey pixels are binarized.
      unit_interval: whether x lies between 0 and 1.
      whole_levels: whether x is whole levels, so that the bound counts bits per dimension.
      fits_batch: whether training fits the log-variance to each batch, and keeps a running average for all else.
    """

    kind: ClassVar[str] = "likelihood"
    binary: ClassVar[bool] = False
    unit_interval: ClassVar[bool] = False
    whole_levels: ClassVar[bool] = False
    fits_batch: ClassVar[bool] = False

    def log_prob(self, output: Any, x: Data) -> Float[Array, ""]:
        """log p(x|output) of one example, nats."""
        raise NotImplementedError

    def mean(self, output: Any) -> Data:
        """The mean of x, in units of x."""
        raise NotImplementedError

    def sample(self, key: Key[Array, ""], output: Any) -> Data:
        """One draw of x."""
        raise NotImplementedError

    def channels(self, channels: int) -> int:
        """Numbers per pixel of the decoder's output, from the channels of x."""
        return channels

    @property
    def initial_logvar(self) -> float | None:
        """Where the model's one log-variance starts, None for a model without."""
        return None

    def of_levels(self, levels: int) -> Self:
        """This likelihood, of pixels with so many values."""
        return self

    def log_probs(self, outputs: Any, x: Float[Array, " b *dims"]) -> Float[Array, " b"]:
        """log p(x|output) of a batch, nats."""
        return jax.vmap(self.log_prob)(outputs, x)
