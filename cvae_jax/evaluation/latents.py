"""What the latents of a whole split carry: information on the example, distance to the prior, units in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.conditions.kinds import Label
from cvae_jax.draws import to_noise
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.evaluation.bounds import Examples
from cvae_jax.losses import precision, reparameterize
from cvae_jax.model import CVAE, embed, encode
from cvae_jax.nn.latent import Gaussian
from cvae_jax.rng import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

# N examples have N² pairs: of a larger split, so many examples are drawn.
MAX_EXAMPLES = 10_000
ACTIVE_VARIANCE = 0.01
_ENCODED_AT_ONCE = 250
# Memory grows with it times N, for each member.
_COMPARED_AT_ONCE = 50


class LatentTerms(NamedTuple):
    """What the posteriors of N examples hold.

    Attributes:
      information: log q(z|xₙ,cₙ) − log q(z) for one z ~ q(z|xₙ,cₙ), shape (N,), nats, at most ln N.
      variance: of each latent's posterior mean, in units of p(z|c): within the classes if c is a label, else over
        the examples, shape (z,); NaN where no two of them are of one class.
      conditional_information: log q(z|xₙ,cₙ) − log q(z|cₙ) for the same z, shape (N,), nats, at most the logarithm
        of the number of examples of the class; None if c is no label.
    """

    information: Float[Array, " N"]
    variance: Float[Array, " z"]
    conditional_information: Float[Array, " N"] | None = None


def latent_terms(
    model: CVAE, params: PyTree, examples: Examples, latent_mask: Bool[Array, " z"], key: Key[Array, ""]
) -> LatentTerms:
    """Compare a draw of every example's posterior with the aggregate posterior, the mixture of many of them.

    q(z) = 1/N Σₙ q(z|xₙ,cₙ), and of labels also q(z|c), the same over the N_c examples of class c

    The variance is of the posterior mean as `to_noise` maps it, in the units of p(z|c). Under N(0, I) that is the mean
    itself. A learned prior is free to shift and scale the latents with c: there a latent that repeats what c says has
    a mean that varies over the examples, but not about the mean of p(z|c). Of labels the variance is the mean one
    within a class, so that under no prior is a latent active that says nothing but c.

    Args:
      model: the model.
      params: its variables.
      examples: the split; of more than `MAX_EXAMPLES` so many are drawn.
      latent_mask: the latents in use, shape (z,).
      key: of these draws and of z.

    Returns:
      The information in each draw on its example, and the variance of the posterior means.

    References:
      Hoffman & Johnson, ELBO Surgery, 2016, equation 4; Burda, Grosse & Salakhutdinov, Importance Weighted
      Autoencoders, 2016, section 5.
    """
    n = len(examples)
    rows_key, z_key = jax.random.split(key)
    rows = jax.random.permutation(rows_key, n)[:MAX_EXAMPLES] if n > MAX_EXAMPLES else jnp.arange(n)

    def posteriors(rows: Int[Array, " b"]) -> tuple[Gaussian, Float[Array, "b z"]]:
        x, c = examples.take(rows)
        c = embed(model, params, c)
        q = encode(model, params, x, c, latent_mask)
        return q, to_noise(model, params, q.mean, c, latent_mask)

    q, standardized = in_batches(posteriors, rows, _ENCODED_AT_ONCE)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(z_key, rows)
    z = jnp.where(latent_mask, jax.vmap(reparameterize)(keys, q.mean, q.logvar), 0.0)
    if not isinstance(model.kind, Label):
        return LatentTerms(information(z, q), variance_within(standardized, jnp.zeros_like(rows), 1))
    c = examples.c[rows]
    return LatentTerms(
        information(z, q), variance_within(standardized, c, model.kind.num_classes), information(z, q, c)
    )


def variance_within(values: Float[Array, "N z"], c: Int[Array, " N"], num_classes: int) -> Float[Array, " z"]:
    """Mean variance within a class, each class by its share of the examples: 1/N Σₙ (vₙ − v̄_cₙ)².

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
    """How much more likely each draw is under its own Gaussian than under the even mixture of all of its group.

    log q(zₙ|n) − log 1/N_g Σₘ q(zₙ|m), m over the N_g Gaussians of the group of n

    The differences zₙ − mₘ are taken before they are squared, so that nothing large cancels in float32, wherever the
    means lie and however narrow the Gaussians are.

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
        # log q(zₙ|m) = −½ Σᵢ ((zᵢ − mᵢ)² e^{−vᵢ} + vᵢ), less what all m share
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
def members_latent_terms(
    model: CVAE, params: PyTree, examples: Examples, latent_masks: Bool[Array, "m z"]
) -> LatentTerms:
    """`latent_terms` of stacked members, under the same noise; shapes (m, N) and (m, z)."""
    key = stream(root_key(0), Stream.LATENTS)
    return jax.vmap(lambda params, mask: latent_terms(model, params, examples, mask, key))(
        params, latent_masks
    )


def summarize(terms: LatentTerms, rates: Sequence[float], *, one_prior: bool = True) -> list[dict[str, Any]]:
    """The numbers of a paper's table, one dictionary a member.

    rate = I(n; z) + KL(q(z) ‖ p(z)):  E KL(q(z|x,c) ‖ p(z)) = E KL(q(z|x,c) ‖ q(z)) + KL(q(z) ‖ p(z))
    rate = I(x; z|c) + E KL(q(z|c) ‖ p(z|c)):  the same within each class, averaged over the classes
    I(n; z) = I(x; z|c) + I(z; c)

    Args:
      terms: shapes (m, N) and (m, z).
      rates: each member's mean KL over the split, nats.
      one_prior: whether all conditions share a prior; else the first equation does not hold, and `aggregate_kl` is
        left out.

    Returns:
      For each member, in nats, `mutual_information` I(n; z), of the index n and z, at most ln N, and `aggregate_kl`,
      what is left of the rate; if c is a label also `conditional_mutual_information` I(x; z|c),
      `conditional_aggregate_kl`, what it leaves of the rate, and `label_information` I(z; c); and `active_units`, the
      latents whose `variance` is above 0.01, None where no two examples can vary.

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
        for member, i, given_c, rate in zip(members, nats, conditional, rates, strict=True):
            member["conditional_mutual_information"] = float(given_c)
            member["conditional_aggregate_kl"] = float(rate - given_c)
            member["label_information"] = float(i - given_c)
    return [member | {"active_units": units} for member, units in zip(members, active, strict=True)]
