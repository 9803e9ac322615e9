"""The objective of the Multi-Rate VAE: one network for a whole range of β."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from cvae_jax.draws import draw
from cvae_jax.errors import SettingError
from cvae_jax.losses import beta_elbo
from cvae_jax.model import Model
from cvae_jax.objectives.base import Batch, Need, Objective, Terms, changed
from cvae_jax.options import POSITIVE, WEIGHT, as_float32, traced

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree


def at_beta(params: PyTree, beta: Float[Array, "*b"] | float) -> PyTree:
    """The variables of a multi-rate model, set to a β.

    Args:
      params: the model's variables.
      beta: > 0, a scalar, or shape (b,) for one of each example.

    Returns:
      The same variables but for the β that the gates of every layer see.
    """
    return {**params, "setting": {"log_beta": jnp.log(jnp.asarray(beta, jnp.float32))}}


@dataclasses.dataclass(frozen=True)
class MultiRate(Objective):
    """The loss of a β-VAE in which each example has its own, random β. This β also scales the channels of every layer.

    loss = −log p(x|z,c,β) + β KL(q(z|x,c,β) ‖ p(z|c)),  log β uniform between log β_min and log β_max

    References:
      Bae et al., Multi-Rate VAE: Train Once, Get the Full Rate-Distortion Curve, 2022, equations 5 to 7.
    """

    beta: float = traced(1.0, bounds=WEIGHT, help="The β that the model is evaluated and sampled at.")
    beta_min: float = traced(0.1, bounds=POSITIVE, help="Smallest β that is trained for.")
    beta_max: float = traced(10.0, bounds=POSITIVE, help="Largest β that is trained for.")
    annealed = ""
    one_draw = False
    needs = (Need("prior", lambda prior: prior.gated),)

    def check(self) -> None:
        """Refuse a range without width, and a β outside it."""
        if as_float32(self.beta_min) >= as_float32(self.beta_max):
            raise SettingError(f"beta_min is {self.beta_min}, expected less than beta_max {self.beta_max}")
        if not self.beta_min <= self.beta <= self.beta_max:
            raise SettingError(
                f"beta is {self.beta}, expected between beta_min {self.beta_min} and beta_max {self.beta_max} "
                "with the objective multirate"
            )

    def adapted(self, model: Any) -> Any:
        """The model whose layers are gated by β."""
        return changed(model, self, gated=True)

    def init(self, model: Model, key: Key[Array, ""], latent_mask: Bool[Array, " z"]) -> dict[str, PyTree]:
        """The β that the model is set to outside training."""
        return at_beta({}, self.beta)

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion and rate per example, nats, each at its own β."""
        low, high = jnp.log(self.beta_min), jnp.log(self.beta_max)
        beta = jnp.exp(low + (high - low) * jax.random.uniform(batch.key, (batch.x.shape[0],)))
        _, log_likelihood, rate = draw(model, at_beta(params, beta), batch.x, batch.c, batch.keys)
        return Terms(-beta_elbo(log_likelihood, rate, beta), -log_likelihood, rate)
