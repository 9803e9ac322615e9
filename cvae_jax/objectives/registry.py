"""Training objectives: from a model and a batch to a loss per example, and its terms."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cvae_jax.config import Config
from cvae_jax.draws import draw, log_likelihood_of, sample_prior
from cvae_jax.hparams import Hparams
from cvae_jax.losses import beta_elbo, standard_normal_kl
from cvae_jax.model import CVAE, embed
from cvae_jax.objectives.dipvae import moment_matching_loss
from cvae_jax.objectives.factorvae import density_ratio_loss, init_discriminator
from cvae_jax.objectives.importance import importance_weighted_loss
from cvae_jax.objectives.multirate import at_beta, multirate_loss
from cvae_jax.objectives.tcvae import total_correlation_loss
from cvae_jax.objectives.terms import Objective, Terms
from cvae_jax.rng import Stream, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree


def objective(config: Config, num_examples: int) -> Objective:
    """The objective a configuration names, for a training split of so many examples."""
    match config.objective:
        # A GSNN's posterior is its prior, and a deterministic network has no latents: the rest is the same loss.
        case "elbo" | "gsnn" | "nn":
            return negative_beta_elbo
        case "hybrid":
            return hybrid_loss
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
        case "tcvae":
            return partial(total_correlation_loss, num_examples=num_examples, stratified=config.stratified)
        case "dipvae_i" | "dipvae_ii" as name:
            return partial(moment_matching_loss, of_aggregate=name == "dipvae_ii")
        case "factorvae":
            return density_ratio_loss
        case "multirate":
            return multirate_loss


def takes_one_draw(config: Config) -> bool:
    """Whether distortion and rate of the objective are of one z ~ q(z|x,c), drawn with the example's key."""
    return config.objective not in ("iwae", "dreg", "hybrid", "multirate")


def part_names(config: Config) -> tuple[str, ...]:
    """What the configured objective reports beside loss, distortion and rate: the names of its `Terms.parts`."""
    match config.objective:
        case "tcvae":
            return ("mutual_information", "total_correlation", "marginal_kl")
        case "dipvae_i" | "dipvae_ii":
            return ("penalty",)
        case "factorvae":
            return ("total_correlation", "discriminator_loss")
        case "hybrid":
            return ("prediction",)
        case _:
            return ()


def extra_variables(model: CVAE, hparams: Hparams) -> dict[str, PyTree]:
    """Variables beside the model's own that the configured objective trains or reads, before the first step."""
    match model.config.objective:
        case "factorvae":
            return {"discriminator": init_discriminator(model, hparams)}
        case "multirate":
            return at_beta({}, hparams.beta)
        case _:
            return {}


def annealed(config: Config, hparams: Hparams, step: Int[Array, ""]) -> Hparams:
    """The settings as they are at a step: β on its way up, or the target of `capacity` on its, and the step's key.

    With t steps of N = `warmup_steps` made, counted from the end of `condition_first_steps`, the fraction reached is
    min(t/N, 1) with a linear schedule, ½ (1 − cos(π min(t/N, 1))) with a cosine, and min(2 frac(t/N), 1) with a
    cyclical one: each cycle of N steps rises for one half and stays for the other.

    Args:
      config: `schedule` and `objective` are read.
      hparams: one member's settings.
      step: number of updates made so far, scalar int32.

    Returns:
      The settings, with `beta` or `kl_target` times that fraction, and `key` for what an objective draws for the
      batch as a whole at this step.

    References:
      Sønderby et al., Ladder Variational Autoencoders, 2016, section 3; Fu et al., Cyclical Annealing Schedule, 2019,
      equation 6; Burgess et al., Understanding Disentangling in β-VAE, 2018, equation 8.
    """
    since = step.astype(jnp.float32)
    if hparams.condition_first_steps is not None:
        since = jnp.maximum(since - hparams.condition_first_steps, 0.0)
    turns = since / jnp.maximum(hparams.warmup_steps, 1.0)
    match config.schedule:
        case "linear":
            fraction = jnp.minimum(turns, 1.0)
        case "cosine":
            fraction = 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.minimum(turns, 1.0)))
        case "cyclical":
            fraction = jnp.minimum(2.0 * (turns - jnp.floor(turns)), 1.0)
    fraction = jnp.where(hparams.warmup_steps > 0.0, fraction, 1.0)
    key = jax.random.fold_in(stream(hparams.key, Stream.OBJECTIVE), step)
    hparams = dataclasses.replace(hparams, key=key)
    if config.objective == "capacity":
        return dataclasses.replace(hparams, kl_target=hparams.kl_target * fraction)
    return dataclasses.replace(hparams, beta=hparams.beta * fraction)


def negative_beta_elbo(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss of a β-VAE, from one draw of z per example.

    loss = −log p(x|z,c) + β KL(q(z|x,c) ‖ p(z|c)),  z ~ q(z|x,c)

    Args:
      model: encoder, decoder and likelihood.
      params: the model's variables.
      x: data, shape (b, H, W, C).
      c: conditions, with a leading axis b.
      keys: one key per example, shape (b,).
      hparams: `beta` and `latent_mask` are read.

    Returns:
      Loss, distortion and rate per example, nats.

    References:
      Higgins et al., β-VAE, 2017; Sohn, Lee & Yan, 2015, equation 4.
    """
    _, _, log_likelihood, rate = draw(model, params, x, c, keys, hparams.latent_mask)
    return Terms(-beta_elbo(log_likelihood, rate, hparams.beta), -log_likelihood, rate)


def free_bits_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
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
    q, _, log_likelihood, rate = draw(model, params, x, c, keys, hparams.latent_mask)
    kl = jax.vmap(jax.vmap(lambda m, v: standard_normal_kl(m[None], v[None])))(q.mean, q.logvar)
    counts = hparams.latent_mask & (jnp.mean(kl, axis=0) > hparams.free_bits)
    floor = jnp.where(hparams.latent_mask, hparams.free_bits, 0.0)
    paid = jnp.sum(jnp.where(counts, kl, floor), axis=1)
    return Terms(-beta_elbo(log_likelihood, paid, hparams.beta), -log_likelihood, rate)


def capacity_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
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
    _, _, log_likelihood, rate = draw(model, params, x, c, keys, hparams.latent_mask)
    distance = jnp.abs(jnp.mean(rate) - hparams.kl_target)
    return Terms(hparams.beta * distance - log_likelihood, -log_likelihood, rate)


def hybrid_loss(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: PyTree,
    keys: Key[Array, " b"],
    hparams: Hparams,
) -> Terms:
    """The loss of a CVAE mixed with that of a Gaussian stochastic neural network, which draws z as a prediction does.

    loss = α (−log p(x|z,c) + β KL(q(z|x,c) ‖ p(z|c))) − (1 − α) log p(x|z′,c),  z ~ q(z|x,c),  z′ ~ p(z|c)

    Args:
      model, params, x, c: see `negative_beta_elbo`.
      keys: one key per example, shape (b,): one half of each is for z, the other for z′.
      hparams: `beta`, `cvae_weight` (α) and `latent_mask` are read.

    Returns:
      Loss, distortion and rate per example, and −log p(x|z′,c) as the part `prediction`, nats.

    References:
      Sohn, Lee & Yan, Learning Structured Output Representation Using Deep Conditional Generative Models, 2015,
      equation 8.
    """
    mask = hparams.latent_mask
    of_posterior, of_prior = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    c = embed(model, params, c)
    _, _, log_likelihood, rate = draw(model, params, x, c, of_posterior, mask)
    z = sample_prior(model, params, of_prior, c, mask)
    prediction = -log_likelihood_of(model, params, x, z, c, mask)
    cvae = -beta_elbo(log_likelihood, rate, hparams.beta)
    loss = hparams.cvae_weight * cvae + (1.0 - hparams.cvae_weight) * prediction
    return Terms(loss, -log_likelihood, rate, {"prediction": prediction})
