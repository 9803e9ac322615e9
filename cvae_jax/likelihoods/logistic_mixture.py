"""The likelihood of data of whole levels, such as 8-bit pixels."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Self

import jax
import jax.numpy as jnp

from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.losses import LogisticMixtureParameters, logistic_mixture_log_likelihood
from cvae_jax.options import COUNT, Whole, static

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key


@dataclasses.dataclass(frozen=True)
class LogisticMixture(Likelihood):
    """Pixels of whole levels under a mixture of logistics each, whose channels depend on those before.

    The output of a pixel holds the mixture's logits, means, log-scales and couplings, one after another.

    References:
      Salimans et al., PixelCNN++, 2017, sections 2.1 and 2.2.
    """

    num_components: int = static(5, bounds=COUNT, help="Number of logistics per pixel.")
    levels: int = static(256, bounds=Whole(2), help="Values of a pixel, taken from the data.", flag=False)

    whole_levels: ClassVar[bool] = True

    def log_prob(self, output: Float[Array, "*hw n"], x: Float[Array, "*hw C"]) -> Float[Array, ""]:
        """log P(x|output) of one example, nats."""
        return logistic_mixture_log_likelihood(self._parameters(output), x, levels=self.levels)

    def mean(self, output: Float[Array, "*hw n"]) -> Float[Array, "*hw C"]:
        """The mean of x, within half a level; it may lie between the modes of a mixture, where no sample does.

        It is that of logistics that end at the lowest and the highest level but are not rounded to those between; a
        channel takes those before at their means.
        """
        mixture = self._parameters(output)
        weights, scales = jax.nn.softmax(mixture.logits), mixture.scales()
        means: list[Array] = []
        for i in range(mixture.means.shape[-2]):
            scale = scales[..., i, :]
            # Farther out the mean is at the end already, and the difference below loses its digits.
            mean = jnp.clip(mixture.channel_means(means), -1.0 - 20.0 * scale, 1.0 + 20.0 * scale)
            # −1 + the integral of P(y > t) from −1 to 1.
            inside = jax.nn.softplus((mean + 1.0) / scale) - jax.nn.softplus((mean - 1.0) / scale)
            means.append(scale * inside - 1.0)
        y = jnp.stack([jnp.sum(weights * mean, axis=-1) for mean in means], axis=-1)
        return 0.5 * (y + 1.0)

    def sample(self, key: Key[Array, ""], output: Float[Array, "*hw n"]) -> Float[Array, "*hw C"]:
        """One draw of x: a component per pixel, then its channels one after another, rounded to levels."""
        mixture = self._parameters(output)
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, mixture.logits)[..., None]

        def pick(a: Array) -> Array:
            at = component.reshape(component.shape[:-1] + (1,) * (a.ndim - component.ndim) + (1,))
            return jnp.take_along_axis(a, at, axis=-1)

        one = LogisticMixtureParameters(*map(pick, mixture))
        scales = one.scales()
        noise = jax.random.logistic(noise_key, scales.shape, scales.dtype)
        top = self.levels - 1
        drawn: list[Array] = []
        for i in range(scales.shape[-2]):
            y = one.channel_means(drawn) + scales[..., i, :] * noise[..., i, :]
            level = jnp.clip(jnp.round(0.5 * (y + 1.0) * top), 0.0, float(top))
            drawn.append(2.0 * level / top - 1.0)
        return 0.5 * (jnp.concatenate(drawn, axis=-1) + 1.0)

    def channels(self, channels: int) -> int:
        """Of each component one logit, C means, C log-scales, and C(C − 1)/2 couplings."""
        return self.num_components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def of_levels(self, levels: int) -> Self:
        """This likelihood, of pixels with so many values."""
        return dataclasses.replace(self, levels=levels)

    def _parameters(self, output: Float[Array, "*hw n"]) -> LogisticMixtureParameters:
        """The parameters that the output of a pixel holds one after another."""
        parts = output.reshape(*output.shape[:-1], -1, self.num_components)
        # Of n = 1 + 2C + C(C−1)/2 parts.
        channels = (math.isqrt(8 * parts.shape[-2] + 1) - 3) // 2
        logits, means, log_scales, couplings = jnp.split(parts, [1, 1 + channels, 1 + 2 * channels], axis=-2)
        return LogisticMixtureParameters(logits[..., 0, :], means, log_scales, couplings)
