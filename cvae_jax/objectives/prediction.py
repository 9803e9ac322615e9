"""Objectives of structured prediction, which draw z from the prior in training, too, or use no z."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from cvae_jax.draws import draw, log_likelihood
from cvae_jax.losses import beta_elbo
from cvae_jax.model import Model
from cvae_jax.objectives.base import (
    GAUSSIAN_PRIOR,
    LEARNED_PRIOR,
    STANDARD_PRIOR,
    Batch,
    Objective,
    Terms,
    changed,
)
from cvae_jax.objectives.elbo import Elbo
from cvae_jax.options import Real, traced

if TYPE_CHECKING:
    from jaxtyping import PyTree


class _Prediction(Objective):
    """−log p(x|z,c) where q(z|x,c) is not learned, so that its rate is 0."""

    annealed = ""
    has_posterior = False
    needs_flat_latents = True

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion and rate per example, nats."""
        _, likelihood, rate = draw(model, params, batch.x, batch.c, batch.keys)
        return Terms(-likelihood, -likelihood, rate)


@dataclasses.dataclass(frozen=True)
class Gsnn(_Prediction):
    """The loss of a Gaussian stochastic neural network: its posterior is its prior.

    loss = −log p(x|z,c),  z ~ p(z|c)

    References:
      Sohn, Lee & Yan, Learning Structured Output Representation Using Deep Conditional Generative Models, 2015,
      equation 7.
    """

    needs = (GAUSSIAN_PRIOR,)

    def adapted(self, model: Any) -> Any:
        """The model with its prior as posterior."""
        return changed(model, self, posterior="prior")


@dataclasses.dataclass(frozen=True)
class Deterministic(_Prediction):
    """The loss of a network without latents: loss = −log p(x|c)."""

    uses_latents = False
    needs = (STANDARD_PRIOR,)

    def adapted(self, model: Any) -> Any:
        """The model whose networks use no latents."""
        return changed(model, self, posterior="none")


@dataclasses.dataclass(frozen=True)
class Hybrid(Elbo):
    """The loss of a CVAE mixed with that of a Gaussian stochastic neural network, which draws z as a prediction does.

    loss = α (−log p(x|z,c) + β KL(q(z|x,c) ‖ p(z|c))) − (1 − α) log p(x|z′,c),  z ~ q(z|x,c),  z′ ~ p(z|c)

    One half of each example's key is for z, the other for z′.

    References:
      Sohn, Lee & Yan, Learning Structured Output Representation Using Deep Conditional Generative Models, 2015,
      equation 8.
    """

    cvae_weight: float = traced(0.5, bounds=Real(0.0, high=1.0), help="α, the weight of the CVAE's loss.")
    part_names = ("prediction",)
    one_draw = False
    needs = (LEARNED_PRIOR,)

    def loss(self, model: Model, params: PyTree, batch: Batch) -> Terms:
        """Loss, distortion and rate per example, and −log p(x|z′,c) as the part `prediction`, nats."""
        of_posterior, of_prior = jnp.moveaxis(jax.vmap(jax.random.split)(batch.keys), 1, 0)
        c = model.embed(params, batch.c)
        _, likelihood, rate = draw(model, params, batch.x, c, of_posterior)
        z = model.generate(params, c, of_prior)
        prediction = -log_likelihood(model, params, batch.x, z, c)
        cvae = -beta_elbo(likelihood, rate, self.beta)
        loss = self.cvae_weight * cvae + (1.0 - self.cvae_weight) * prediction
        return Terms(loss, -likelihood, rate, {"prediction": prediction})
