"""What the latents of a whole split encode: information about the example, distance to the prior, active units."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.label import Label
from cvae_jax.data.examples import Examples
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.losses import precision, reparameterize
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.nn.latent import Gaussian
from cvae_jax.rng import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, Key, PyTree

# N examples have N² pairs: of a larger split, a random subset of this size is used.
MAX_EXAMPLES = 10_000
ACTIVE_VARIANCE = 0.01
_ENCODED_AT_ONCE = 250
# Memory grows with it times N, for each member.
_COMPARED_AT_ONCE = 50


class LatentTerms(NamedTuple):
    """Statistics of the posteriors of N examples.

    Attributes:
      information: log q(z|xₙ,cₙ) − log q(z) for one z ~ q(z|xₙ,cₙ), shape (N,), nats, at most ln N.
      variance: of each latent's posterior mean, in units of p(z|c): within the classes if c is a label, else over
        the examples, shape (z,); NaN where no class has two examples.
      conditional_information: log q(z|xₙ,cₙ) − log q(z|cₙ) for the same z, shape (N,), nats, at most the logarithm
        of the number of examples of the class; None if c is not a label.
    """

    information: Float[Array, " N"]
    variance: Float[Array, " z"]
    conditional_information: Float[Array, " N"] | None = None


def latent_terms(model: Model, params: PyTree, examples: Examples, key: Key[Array, ""]) -> LatentTerms:
    """Measure how much each draw of z tells about its example, and how much each posterior mean varies.

    q(z) = 1/N Σₙ q(z|xₙ,cₙ); for labels also q(z|c), the same over the N_c examples of class c

    The variance is that of the posterior mean as `to_noise` maps it, in units of p(z|c). Under N(0, I) this is the mean
    itself. A learned prior can shift and scale the latents with c: a latent that only encodes c then has a posterior
    mean that varies over the examples, but that stays at the mean of p(z|c). For labels the variance is the mean
    variance within a class, so that under no prior a latent that only encodes c counts as active.

    Args:
      model: a model with one array of latents.
      params: its parameters.
      examples: the split; of more than `MAX_EXAMPLES`, a random subset of that size is used.
      key: of the subset and of z.

    Returns:
      The information that each draw has about its example, and the variance of the posterior means.

    Raises:
      SettingError: for a model with several levels of latents.

    References:
      Hoffman & Johnson, ELBO Surgery, 2016, equation 4; Burda, Grosse & Salakhutdinov, Importance Weighted
      Autoencoders, 2016, section 5.
    """
    flat_model = require_flat_latents(model, "information in the latents")
    n = len(examples)
    rows_key, z_key = jax.random.split(key)
    rows = jax.random.permutation(rows_key, n)[:MAX_EXAMPLES] if n > MAX_EXAMPLES else jnp.arange(n)

    def posteriors(rows: Int[Array, " b"]) -> tuple[Gaussian, Float[Array, "b z"]]:
        x, c = examples.take(rows)
        c = flat_model.embed(params, c)
        q = flat_model.encode(params, x, c)
        return q, flat_model.to_noise(params, q.mean, c)

    q, standardized = in_batches(posteriors, rows, _ENCODED_AT_ONCE)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(z_key, rows)
    z = jnp.where(flat_model.latent_mask(params), jax.vmap(reparameterize)(keys, q.mean, q.logvar), 0.0)
    if not isinstance(model.condition, Label):
        return LatentTerms(information(z, q), variance_within(standardized, jnp.zeros_like(rows), 1))
    c = examples.c[rows]
    return LatentTerms(
        information(z, q), variance_within(standardized, c, model.condition.num_classes), information(z, q, c)
    )


def variance_within(values: Float[Array, "N z"], c: Int[Array, " N"], num_classes: int) -> Float[Array, " z"]:
    """Variance within the classes, averaged with each class weighted by its number of examples: 1/N Σₙ (vₙ − v̄_cₙ)².

    Args:
      values: shape (N, z).
      c: labels, shape (N,).
      num_classes: of c.

    Returns:
      Shape (z,); NaN where no class has two examples.

    Example:
      >>> variance_within(jnp.array([[0.0], [2.0], [5.0], [5.0]]), jnp.array([0, 0, 1, 1]), 2).tolist()
      [0.5]
    """
    sums = jax.ops.segment_sum(values, c, num_classes)
    counts = jnp.bincount(c, length=num_classes)[:, None].astype(values.dtype)
    means = sums / jnp.maximum(counts, 1.0)
    variance = jnp.mean(jnp.square(values - means[c]), axis=0)
    return jnp.where(jnp.max(counts) > 1.0, variance, jnp.nan)


def information(
    z: Float[Array, "N z"], q: Gaussian, groups: Int[Array, " N"] | None = None
) -> Float[Array, " N"]:
    """For each draw, its log-density under its own Gaussian minus that under the mixture of its group's Gaussians.

    log q(zₙ|n) − log 1/N_g Σₘ q(zₙ|m), m over the N_g Gaussians of the group of n

    The differences zₙ − mₘ are taken before they are squared: expanding the square would cancel large numbers in
    float32 for narrow Gaussians or means far from 0.

    Args:
      z: a draw of each Gaussian, shape (N, z).
      q: N diagonal Gaussians.
      groups: the group of each, shape (N,), integer; None for one group.

    Returns:
      Shape (N,), nats, at most ln N_g.

    Example:
      >>> q = Gaussian(jnp.array([[-9.0], [9.0]]), jnp.zeros((2, 1)))
      >>> [round(float(nats), 4) for nats in information(q.mean, q)]  # ln 2
      [0.6931, 0.6931]
      >>> information(q.mean, q, jnp.array([0, 1])).tolist()  # each alone in its group
      [0.0, 0.0]
    """
    n = z.shape[0]
    groups = jnp.zeros(n, jnp.int32) if groups is None else groups
    means, precisions = q.mean.T, precision(q.logvar).T
    log_det = jnp.sum(q.logvar, axis=1)

    def compare(rows: Int[Array, " b"]) -> Float[Array, " b"]:
        # log q(zₙ|m) = −½ Σᵢ ((zᵢ − mᵢ)² e^{−vᵢ} + vᵢ) + a constant that is the same for all m
        def add_latent(
            total: Float[Array, "b N"],
            latent: tuple[Float[Array, " b"], Float[Array, " N"], Float[Array, " N"]],
        ) -> tuple[Float[Array, "b N"], None]:
            value, mean, of_latent = latent
            return total + jnp.square(value[:, None] - mean) * of_latent, None

        start = jnp.zeros((rows.shape[0], n), z.dtype)
        square, _ = jax.lax.scan(add_latent, start, (z[rows].T, means, precisions))
        log_density = -0.5 * (square + log_det)
        own = jnp.take_along_axis(log_density, rows[:, None], axis=1)
        same = groups[rows][:, None] == groups
        relative = jnp.where(same, log_density - own, -jnp.inf)
        return jnp.log(jnp.sum(same, axis=1, dtype=z.dtype)) - jax.nn.logsumexp(relative, axis=1)

    return in_batches(compare, jnp.arange(n), _COMPARED_AT_ONCE)


@partial(jax.jit, static_argnames="model")
def members_latent_terms(model: Model, params: PyTree, examples: Examples) -> LatentTerms:
    """`latent_terms` of m members, whose parameters are stacked, with the same noise; shapes (m, N) and (m, z)."""
    key = stream(root_key(0), Stream.LATENTS)
    return jax.vmap(lambda member: latent_terms(model, member, examples, key))(params)


def summarize(terms: LatentTerms, rates: Sequence[float], *, one_prior: bool = True) -> list[dict[str, Any]]:
    """Split the rate into mutual information and the KL of the aggregate posterior, and count active units.

    rate = I(n; z) + KL(q(z) ‖ p(z)):  E KL(q(z|x,c) ‖ p(z)) = E KL(q(z|x,c) ‖ q(z)) + KL(q(z) ‖ p(z))
    rate = I(x; z|c) + E KL(q(z|c) ‖ p(z|c)):  the same within each class, averaged over the classes
    I(n; z) = I(x; z|c) + I(z; c)

    Args:
      terms: shapes (m, N) and (m, z).
      rates: each member's mean KL over the split, nats.
      one_prior: whether the prior is the same for all conditions; if not, the first equation does not hold, and
        `aggregate_kl` is left out.

    Returns:
      One dictionary per member, in nats: `mutual_information` I(n; z) between the index n of an example and z, at most
      ln N; `aggregate_kl`, the rest of the rate; if c is a label also `conditional_mutual_information` I(x; z|c),
      `conditional_aggregate_kl`, the rate minus it, and `label_information` I(z; c). `active_units` is the number of
      latents whose `variance` is above 0.01, None where no class has two examples.

    Example:
      >>> summarize(LatentTerms(np.full((1, 8), 1.5), np.array([[0.9, 0.0]])), [4.0])
      [{'mutual_information': 1.5, 'aggregate_kl': 2.5, 'active_units': 1}]
    """
    nats = np.asarray(terms.information, np.float64).mean(axis=1)
    active = [
        None if np.isnan(variance).any() else int(np.sum(variance > ACTIVE_VARIANCE))
        for variance in np.asarray(terms.variance)
    ]
    members: list[dict[str, Any]] = [
        {"mutual_information": float(i)} | ({"aggregate_kl": float(rate - i)} if one_prior else {})
        for i, rate in zip(nats, rates, strict=True)
    ]
    if terms.conditional_information is not None:
        conditional = np.asarray(terms.conditional_information, np.float64).mean(axis=1)
        for member, i, within, rate in zip(members, nats, conditional, rates, strict=True):
            member["conditional_mutual_information"] = float(within)
            member["conditional_aggregate_kl"] = float(rate - within)
            member["label_information"] = float(i - within)
    return [member | {"active_units": units} for member, units in zip(members, active, strict=True)]
