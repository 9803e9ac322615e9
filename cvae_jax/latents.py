"""What the latents of a whole split carry: information on the example, distance to the prior, units in use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.batches import in_batches
from cvae_jax.cvae import CVAE, encode
from cvae_jax.evaluation import Examples
from cvae_jax.latent_maps import Gaussian
from cvae_jax.losses import reparameterize
from cvae_jax.randomness import Stream, root_key, stream

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

# N examples have N² pairs: of a larger split, so many examples are drawn.
MAX_EXAMPLES = 10_000
ACTIVE_VARIANCE = 0.01
_ENCODED_AT_ONCE = 250
# Memory grows with it times N, for each member.
_COMPARED_AT_ONCE = 50


class LatentTerms(NamedTuple):
    """What the posteriors of N examples say of one another.

    Attributes:
      information: log q(z|xₙ,cₙ) − log q(z) for one z ~ q(z|xₙ,cₙ), shape (N,), nats, at most ln N.
      variance: of each latent's posterior mean over the examples, shape (z,).
    """

    information: Float[Array, " N"]
    variance: Float[Array, " z"]


def latent_terms(
    model: CVAE, params: PyTree, examples: Examples, latent_mask: Bool[Array, " z"], key: Key[Array, ""]
) -> LatentTerms:
    """Compare a draw of every example's posterior with the aggregate posterior, the mixture of all of them.

    q(z) = 1/N Σₙ q(z|xₙ,cₙ)

    The mixture runs over all conditions, like p(z), which is the same for each of them.

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

    def posteriors(rows: Int[Array, " b"]) -> Gaussian:
        x, c = examples.take(rows)
        return encode(model, params, x, c, latent_mask)

    q = in_batches(posteriors, rows, _ENCODED_AT_ONCE)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(z_key, rows)
    z = jnp.where(latent_mask, jax.vmap(reparameterize)(keys, q.mean, q.logvar), 0.0)
    return LatentTerms(information(z, q), jnp.var(q.mean, axis=0))


def information(z: Float[Array, "N z"], q: Gaussian) -> Float[Array, " N"]:
    """How much more likely each draw is under its own Gaussian than under the even mixture of all.

    log q(zₙ|n) − log 1/N Σₘ q(zₙ|m)

    Args:
      z: a draw of each Gaussian, shape (N, z).
      q: N diagonal Gaussians.

    Returns:
      Shape (N,), nats, at most ln N.

    Example:
      >>> apart = Gaussian(jnp.array([[-9.0], [9.0]]), jnp.zeros((2, 1)))
      >>> [round(float(nats), 4) for nats in information(apart.mean, apart)]  # ln 2
      [0.6931, 0.6931]
    """
    n = z.shape[0]
    precision = jnp.exp(-q.logvar)
    shift = jnp.sum(jnp.square(q.mean) * precision + q.logvar, axis=1)
    # In TF32, as a GPU would multiply, large terms would not cancel.
    product = partial(jnp.matmul, precision="highest")

    def compare(rows: Int[Array, " b"]) -> Float[Array, " b"]:
        # log q(zₙ|m) = −½ Σᵢ ((zᵢ − mᵢ)² e^{−vᵢ} + vᵢ), less what all m share
        some = z[rows]
        square = product(jnp.square(some), precision.T) - 2.0 * product(some, (q.mean * precision).T)
        log_density = -0.5 * (square + shift)
        own = jnp.take_along_axis(log_density, rows[:, None], axis=1)
        return math.log(n) - jax.nn.logsumexp(log_density - own, axis=1)

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

    rate = mutual information + aggregate KL:  E KL(q(z|x,c) ‖ p(z)) = E KL(q(z|x,c) ‖ q(z)) + KL(q(z) ‖ p(z))

    Args:
      terms: shapes (m, N) and (m, z).
      rates: each member's mean KL over the split, nats.
      one_prior: whether all conditions share a prior; else the rate does not come apart so, and the aggregate KL is
        left out.

    Returns:
      For each member `mutual_information`, of the index n and z, at most ln N, and `aggregate_kl`, what is left of the
      rate, both in nats; and `active_units`, the latents whose posterior mean has a variance above 0.01, None where
      there is one example only.

    Example:
      >>> summarize(LatentTerms(np.full((1, 8), 1.5), np.array([[0.9, 0.0]])), [4.0])
      [{'mutual_information': 1.5, 'aggregate_kl': 2.5, 'active_units': 1}]
    """
    nats = np.asarray(terms.information, np.float64).mean(axis=1)
    active = np.sum(np.asarray(terms.variance) > ACTIVE_VARIANCE, axis=1).tolist()
    if terms.information.shape[1] < 2:  # Of one example there is no variance.
        active = [None] * len(active)
    return [
        {"mutual_information": float(i)}
        | ({"aggregate_kl": float(rate - i)} if one_prior else {})
        | {"active_units": units}
        for i, rate, units in zip(nats, rates, active, strict=True)
    ]
