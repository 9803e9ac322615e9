"""Paraphrase consistency: two wordings of one caption should have the same prior and the same picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from cvae_jax.losses import gaussian_kl
from cvae_jax.nn.embedding import Embeddings
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives.base import Batch, Need, Terms
from cvae_jax.options import WEIGHT, traced
from cvae_jax.priors import Conditional, Mixture
from cvae_jax.priors.gaussian_mixture import GaussianMixture
from cvae_jax.training.hooks import Hook
from cvae_jax.training.schedules import Time

if TYPE_CHECKING:
    from jaxtyping import Array, Float, PyTree

# One in so many examples of a batch has both wordings: embedding a text costs as much as drawing its picture.
_ONE_IN = 4


def componentwise_kl(p: GaussianMixture, q: GaussianMixture) -> Float[Array, ""]:
    """KL between the joint distributions of a component and a draw from it, Σₖ wₖ [log wₖ − log vₖ + KL(pₖ ‖ qₖ)].

    At least the KL between the mixtures, by the log-sum inequality. It is 0 only where the same noise gives the same
    draw of both.

    Args:
      p: with weights w, of K Gaussians.
      q: with weights v, likewise.

    Returns:
      Scalar, nats.

    Example:
      >>> parts = Gaussian(jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
      >>> p, q = (GaussianMixture(jnp.log(jnp.array(w)), parts) for w in ([0.5, 0.5], [0.2, 0.8]))
      >>> round(float(componentwise_kl(p, q)), 4)  # ½ log(0.25 / 0.16)
      0.2231

    References:
      Cover & Thomas, Elements of Information Theory, 2006, theorem 2.7.1.
    """
    of_components = jax.vmap(gaussian_kl)(*p.parts, *q.parts)
    return jnp.sum(jnp.exp(p.log_weights) * (p.log_weights - q.log_weights + of_components))


def total_variation(p: GaussianMixture, q: GaussianMixture) -> Float[Array, ""]:
    """Total variation distance ½ Σₖ |wₖ − vₖ| of the weights of two mixtures.

    It is the least share of draws that come from another component of q than of p, however the two draws depend on each
    other.

    Args:
      p: with weights w, of K Gaussians.
      q: with weights v, likewise.

    Returns:
      Scalar, from 0 to 1.

    Example:
      >>> parts = Gaussian(jnp.zeros((2, 1)), jnp.zeros((2, 1)))
      >>> p, q = (GaussianMixture(jnp.log(jnp.array(w)), parts) for w in ([0.5, 0.5], [0.2, 0.8]))
      >>> round(float(total_variation(p, q)), 4)
      0.3

    References:
      Levin & Peres, Markov Chains and Mixing Times, 2017, proposition 4.7.
    """
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(p.log_weights) - jnp.exp(q.log_weights)))


class Divergence(NamedTuple):
    """How much the priors of two batches of conditions differ, the mean of both directions.

    Attributes:
      kl: between Gaussians; `componentwise_kl` between mixtures; shape (b,), nats.
      total_variation: of the weights of mixtures, 0 between Gaussians, shape (b,).
    """

    kl: Float[Array, " b"]
    total_variation: Float[Array, " b"]


def _divergence(p: Any, q: Any) -> Divergence:
    if isinstance(p, Gaussian):
        return Divergence(gaussian_kl(*p, *q), jnp.zeros(()))
    return Divergence(componentwise_kl(p, q), total_variation(p, q))


def prior_divergence(model: Any, params: PyTree, one: Embeddings, other: Embeddings) -> Divergence:
    """How much p(z|c) and p(z|c′) differ, for each pair of a batch.

    Args:
      model: with the prior `conditional` or `mixture`.
      params: its parameters.
      one: embeddings of b conditions c.
      other: embeddings of b conditions c′.
    """
    assert one.prior is not None
    assert one.prior.e is not None
    assert other.prior is not None
    assert other.prior.e is not None
    # One call, on twice the batch: a step has half the products, each twice the size.
    e = jnp.concatenate([one.prior.e, other.prior.e])
    both = model.module.apply(params, e, method=lambda module, e: module.prior(e, module.mask.value))
    p, q = (jax.tree.map(lambda a, i=i: jnp.split(a, 2)[i], both) for i in (0, 1))
    compare = jax.vmap(_divergence)
    return jax.tree.map(lambda a, b: 0.5 * (a + b), compare(p, q), compare(q, p))


class Weights(NamedTuple):
    """Weights of the two terms of a `Divergence`, scalars ≥ 0."""

    kl: Float[Array, ""]
    total_variation: Float[Array, ""]


def paraphrased(
    model: Any, params: PyTree, c: PyTree, alternative: PyTree, weights: Weights
) -> tuple[Embeddings, Float[Array, ""]]:
    """Embeddings of a batch, some decoded by another wording, and the weighted divergence of the two wordings' priors.

    Of the first quarter of the batch, encoder and prior receive c and the decoder c′: what z means for a picture must
    not depend on the wording.

    Args:
      model: with the prior `conditional` or `mixture`.
      params: its parameters.
      c: a batch of conditions.
      alternative: c′, other wordings of the same conditions.
      weights: of the divergence; with a `kl` of 0 the decoder receives c, too.

    Returns:
      What takes the place of c; and the penalty, scalar, nats: λ KL + μ TV, the mean over that quarter.

    References:
      Xie et al., Unsupervised Data Augmentation for Consistency Training, 2020, equation 1, for a classifier.
    """
    batch_size = len(jax.tree.leaves(c)[0])
    some = -(-batch_size // _ONE_IN)

    def joined(a: PyTree, b: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), a, b)

    def rows(embedded: PyTree, start: int, end: int) -> PyTree:
        return jax.tree.map(lambda a: a[start:end], embedded)

    both = model.embed(params, joined(c, rows(alternative, 0, some)))
    embedded, other = rows(both, 0, batch_size), rows(both, batch_size, batch_size + some)
    first = rows(embedded, 0, some)
    # With a weight of 0 a member equals its solo run, which has no hook: the same wording, and no 0 times infinity.
    other = jax.tree.map(lambda a, b: jnp.where(weights.kl > 0, a, b), other, first)
    kl, distance = jax.tree.map(jnp.mean, prior_divergence(model, params, first, other))
    decoder = joined(other.decoder, rows(embedded.decoder, some, batch_size))
    return embedded._replace(decoder=decoder), weights.kl * kl + weights.total_variation * distance


def _is_comparable(prior: Any) -> bool:
    return issubclass(prior if isinstance(prior, type) else type(prior), Conditional | Mixture)


@dataclasses.dataclass(frozen=True)
class Paraphrase(Hook):
    """Penalize that the prior depends on the wording of a caption, and decode some captions by another wording.

    loss + λ ½ [KL(p(z|c) ‖ p(z|c′)) + KL(p(z|c′) ‖ p(z|c))] + μ ½ Σₖ |wₖ − wₖ′|

    w are the weights of a mixture's components. λ rises from 0 in the first epoch to `paraphrase_weight` as a cosine:
    the model first learns what captions mean, then that wording does not matter. μ is λ in the last fifth of the epochs
    and 0 before: earlier, all captions would come to share the weights of the components.

    The first term is of second order in small differences, so that its gradient vanishes with them; but every
    difference between weights moves draws from one component to another, which is another picture. The second term is
    of first order.
    """

    paraphrase_weight: float = traced(
        0.0,
        bounds=WEIGHT,
        help="Weight of the divergence between the priors of two wordings of a condition, for data with "
        "alternative conditions. It rises from 0 over the epochs; in the last fifth it also weighs the difference "
        "between the component weights of a mixture.",
    )

    needs = (Need("prior", _is_comparable),)
    needs_condition = True
    needs_alternative = True
    over_all_epochs = True

    def weights(self, time: Time) -> Weights:
        """λ and μ at a time: λ = ½ (1 − cos(π t/T)) `paraphrase_weight` in epoch t = 0, …, T − 1."""
        share = jnp.minimum(time.epoch.astype(jnp.float32) / time.epochs, 1.0)
        weight = self.paraphrase_weight * (1.0 - 0.5 * (1.0 + jnp.cos(jnp.pi * share)))
        in_last_fifth = 5 * (time.epoch + 1) > 4 * time.epochs
        return Weights(weight, jnp.where(in_last_fifth, weight, 0.0))

    def loss(
        self,
        objective: Callable[[PyTree, Batch], Terms],
        model: Any,
        params: PyTree,
        batch: Batch,
        time: Time,
    ) -> Terms:
        """The objective's terms of the embeddings, and the penalty added to their loss."""
        c, penalty = paraphrased(model, params, batch.c, batch.alternative, self.weights(time))
        terms = objective(params, dataclasses.replace(batch, c=c))
        return terms._replace(loss=terms.loss + penalty)
