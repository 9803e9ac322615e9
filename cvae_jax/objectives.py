"""Training objectives: from a model and a batch to a loss per example, and its terms."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from cvae_jax.config import Config, Hparams
from cvae_jax.cvae import CVAE, draw, encode, log_weights
from cvae_jax.losses import (
    beta_elbo,
    importance_weighted_bound,
    reparameterize,
    standard_normal_kl,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree


class Terms(NamedTuple):
    """What one objective says of a batch, per example, in nats.

    Attributes:
      loss: what training minimizes, shape (b,); only its mean over the batch is meant.
      distortion: −log p(x|z,c) for z ~ q, shape (b,).
      rate: KL(q(z|x,c) ‖ p(z)), unweighted and without any floor, shape (b,).
    """

    loss: Float[Array, " b"]
    distortion: Float[Array, " b"]
    rate: Float[Array, " b"]


class Objective(Protocol):
    """A training objective: the signature of `negative_beta_elbo`."""

    def __call__(
        self,
        model: CVAE,
        params: PyTree,
        x: Float[Array, "b H W C"],
        c: Int[Array, " b"],
        keys: Key[Array, " b"],
        hparams: Hparams,
    ) -> Terms:
        """Loss and terms per example."""
        ...


def objective(config: Config) -> Objective:
    """The objective a configuration names."""
    match config.objective:
        case "elbo":
            return negative_beta_elbo
        case "free_bits":
            return free_bits_loss
        case "capacity":
            return capacity_loss
        case "iwae" | "dreg" as name:
            return partial(
                importance_weighted_loss,
                num_samples=config.num_samples,
                doubly_reparameterized=name == "dreg",
            )


def annealed(config: Config, hparams: Hparams, step: Int[Array, ""]) -> Hparams:
    """The settings as they are at a step: β on its way up, or the target of `capacity` on its.

    With t steps of N = `warmup_steps` made, the fraction reached is min(t/N, 1) with a linear schedule,
    ½ (1 − cos(π min(t/N, 1))) with a cosine, and min(2 frac(t/N), 1) with a cyclical one: each cycle of N steps rises
    for one half and stays for the other.

    Args:
      config: `schedule` and `objective` are read.
      hparams: one member's settings.
      step: number of updates made so far, scalar int32.

    Returns:
      The settings, with `beta` or `kl_target` times that fraction.

    References:
      Sønderby et al., Ladder Variational Autoencoders, 2016, section 3; Fu et al., Cyclical Annealing Schedule, 2019,
      equation 6; Burgess et al., Understanding Disentangling in β-VAE, 2018, equation 8.
    """
    turns = step.astype(jnp.float32) / jnp.maximum(hparams.warmup_steps, 1.0)
    match config.schedule:
        case "linear":
            fraction = jnp.minimum(turns, 1.0)
        case "cosine":
            fraction = 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.minimum(turns, 1.0)))
        case "cyclical":
            fraction = jnp.minimum(2.0 * (turns - jnp.floor(turns)), 1.0)
    fraction = jnp.where(hparams.warmup_steps > 0.0, fraction, 1.0)
    if config.objective == "capacity":
        return dataclasses.replace(hparams, kl_target=hparams.kl_target * fraction)
    return dataclasses.replace(hparams, beta=hparams.beta * fraction)


def selection_loss(
    config: Config, hparams: Hparams, distortion: Float[Array, ""], rate: Float[Array, ""]
) -> Float[Array, ""]:
    """What validation compares parameters by: the loss at the end of the schedule, without floors.

    Args:
      config: `objective` is read.
      hparams: one member's settings, not annealed.
      distortion: mean over the split, nats per example.
      rate: likewise.

    Returns:
      Scalar, nats per example: distortion + β·rate, or distortion + β·|rate − target|.
    """
    if config.objective == "capacity":
        return distortion + hparams.beta * jnp.abs(rate - hparams.kl_target)
    return distortion + hparams.beta * rate


def negative_beta_elbo(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss of a β-VAE, from one draw of z per example.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ N(0, I)),  z ~ q(z|x,c)

    Args:
      model: encoder, decoder and likelihood.
      params: the model's variables.
      x: data, shape (b, H, W, C).
      c: labels, shape (b,).
      keys: one key per example, shape (b,).
      hparams: `beta` and `latent_mask` are read.

    Returns:
      Loss, distortion and rate per example, nats.

    References:
      Higgins et al., β-VAE, 2017; Sohn, Lee & Yan, 2015, equation 4.
    """
    q, log_likelihood = draw(model, params, x, c, keys, hparams.latent_mask)
    rate = jax.vmap(standard_normal_kl)(q.mean, q.logvar)
    return Terms(-beta_elbo(log_likelihood, rate, hparams.beta), -log_likelihood, rate)


def free_bits_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss of a β-VAE in which a latent costs nothing up to a floor of its batch-mean KL.

    loss = −log p(x|z,c) + β Σᵢ max(λ, E_batch[KLᵢ])

    The rate stays the true KL: the floor is part of the loss alone.

    Args:
      model, params, x, c, keys: see `negative_beta_elbo`.
      hparams: `beta`, `free_bits` (λ, nats per latent) and `latent_mask` are read.

    Returns:
      Loss, distortion and rate per example, nats.

    References:
      Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016, equation 15.
    """
    q, log_likelihood = draw(model, params, x, c, keys, hparams.latent_mask)
    kl = jax.vmap(jax.vmap(lambda m, v: standard_normal_kl(m[None], v[None])))(q.mean, q.logvar)
    counts = hparams.latent_mask & (jnp.mean(kl, axis=0) > hparams.free_bits)
    floor = jnp.where(hparams.latent_mask, hparams.free_bits, 0.0)
    paid = jnp.sum(jnp.where(counts, kl, floor), axis=1)
    return Terms(-beta_elbo(log_likelihood, paid, hparams.beta), -log_likelihood, jnp.sum(kl, axis=1))


def capacity_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss that holds the batch-mean KL at a target, which a schedule raises.

    loss = −log p(x|z,c) + β |E_batch[KL] − C|

    Args:
      model, params, x, c, keys: see `negative_beta_elbo`.
      hparams: `beta` (γ in the paper), `kl_target` (C, nats) and `latent_mask` are read.

    Returns:
      Loss, distortion and rate per example, nats.

    References:
      Burgess et al., Understanding Disentangling in β-VAE, 2018, equation 8.
    """
    q, log_likelihood = draw(model, params, x, c, keys, hparams.latent_mask)
    rate = jax.vmap(standard_normal_kl)(q.mean, q.logvar)
    distance = jnp.abs(jnp.mean(rate) - hparams.kl_target)
    return Terms(hparams.beta * distance - log_likelihood, -log_likelihood, rate)


def importance_weighted_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    keys: Key[Array, " b"],
    hparams: Hparams,
    *,
    num_samples: int,
    doubly_reparameterized: bool,
) -> Terms:
    """The loss of an importance-weighted autoencoder, from several draws of z per example.

    loss = −log (1/k) Σⱼ wⱼ,  log wⱼ = log p(x|zⱼ,c) + β (log p(zⱼ) − log q(zⱼ|x,c)),  zⱼ ~ q(z|x,c)

    With one draw and β = 1 it is the ELBO with a sampled KL. Doubly reparameterized, the value and the decoder's
    gradient are the same; the encoder's reaches it through z alone, each draw's weighted by the square of its
    normalized weight, which takes out the score's noise and leaves the expectation.

    Args:
      model, params, x, c, keys: see `negative_beta_elbo`.
      hparams: `beta` and `latent_mask` are read.
      num_samples: k, ≥ 1.
      doubly_reparameterized: whether the encoder takes the gradient of Tucker et al.

    Returns:
      Loss; distortion, the mean over the draws; and rate, in closed form; per example, nats.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equations 8 and 14; Tucker et al., Doubly
      Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019, equation 8.
    """
    mask = hparams.latent_mask
    q = encode(model, params, x, c, mask)
    keys = jax.vmap(lambda key: jax.random.split(key, num_samples))(keys)
    z = jax.vmap(lambda keys, m, v: jax.vmap(reparameterize, (0, None, None))(keys, m, v))(
        keys, q.mean, q.logvar
    )
    density = q
    extra = jnp.zeros(z.shape[:2])
    if doubly_reparameterized:
        density = jax.lax.stop_gradient(q)
        z, extra = _weigh_gradient(z)
    log_likelihood, ratio = log_weights(model, params, x, c, z, density, mask)
    bound = jax.vmap(importance_weighted_bound)(log_likelihood + hparams.beta * ratio + extra)
    rate = jax.vmap(standard_normal_kl)(q.mean, q.logvar)
    return Terms(-bound, -jnp.mean(log_likelihood, axis=1), rate)


@jax.custom_vjp
def _weigh_gradient(z: Float[Array, "b k z"]) -> tuple[Float[Array, "b k z"], Float[Array, "b k"]]:
    """z itself, and zeros to add to its log-weights: on the way back z's gradient is weighed once more.

    The gradient that reaches the zeros is that of the log-weights: normalized over the draws, the weights
    themselves.
    """
    return z, jnp.zeros(z.shape[:2], z.dtype)


def _weigh_forward(z: Array) -> tuple[tuple[Array, Array], None]:
    return _weigh_gradient(z), None


def _weigh_backward(_: None, gradients: tuple[Array, Array]) -> tuple[Array]:
    of_z, of_log_weights = gradients
    total = jnp.sum(of_log_weights, axis=1, keepdims=True)
    weights = of_log_weights / jnp.where(total == 0.0, 1.0, total)
    return (of_z * weights[..., None],)


_weigh_gradient.defvjp(_weigh_forward, _weigh_backward)
