"""Posteriors of a whole split: how informative each latent is, their histogram, and projections to two dimensions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data.examples import Examples
from cvae_jax.errors import DataError
from cvae_jax.evaluation.batches import in_batches
from cvae_jax.losses import standard_normal_kl_per_latent
from cvae_jax.model import Model, require_flat_latents
from cvae_jax.nn.latent import Gaussian
from cvae_jax.rng import root_key

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PyTree

_BATCH = 250
_PERPLEXITY = 30.0
LEAST_EXAMPLES = 4


@partial(jax.jit, static_argnames="model")
def encode_examples(model: Model, params: PyTree, examples: Examples) -> Gaussian:
    """The posterior q(z|x,c) of every example.

    Args:
      model: a model with one array of latents.
      params: its parameters.
      examples: the split, n examples.

    Returns:
      Mean and log-variance, shape (n, z) each; latents that are masked out have mean 0 and log-variance 0.

    Raises:
      SettingError: for a model with several levels of latents.
    """
    flat_model = require_flat_latents(model, "posteriors of a split")

    def one_batch(rows: Int[Array, " b"]) -> Gaussian:
        return flat_model.encode(params, *examples.take(rows))

    return in_batches(one_batch, jnp.arange(len(examples)), _BATCH)


@partial(jax.jit, static_argnames="model")
def kl_per_latent(model: Model, params: PyTree, examples: Examples) -> Float[Array, " z"]:
    """How informative each latent is: the mean over examples of KL(q(zᵢ|x,c) ‖ p(zᵢ|c)).

    If the latents depend on each other in the prior, N(0, 1) is used instead of p(zᵢ|c).

    Args:
      model: a model with one array of latents.
      params: its parameters.
      examples: n examples.

    Returns:
      Shape (z,), nats per example; 0 for latents that are masked out.

    Raises:
      SettingError: for a model with several levels of latents.
    """
    flat_model = require_flat_latents(model, "information per latent")

    def one_batch(rows: Int[Array, " b"]) -> Float[Array, "b z"]:
        x, c = examples.take(rows)
        found = flat_model.infer(params, x, c, jax.random.split(root_key(0), len(rows)))
        if found.kl.shape[1] == model.capacity:
            return found.kl
        q = flat_model.encode(params, x, c)
        return jax.vmap(standard_normal_kl_per_latent)(q.mean, q.logvar)

    return jnp.mean(in_batches(one_batch, jnp.arange(len(examples)), _BATCH), axis=0)


def by_information(kl: Float[Array, " z"], latent_mask: Bool[Array, " z"]) -> Int[np.ndarray, " l"]:
    """Indices of the latents in use, the most informative first.

    Args:
      kl: of each latent, see `kl_per_latent`, shape (z,).
      latent_mask: the latents in use, shape (z,).

    Returns:
      Shape (l,), l the number of latents in use.

    Example:
      >>> by_information(jnp.array([0.5, 3.0, 0.0]), jnp.array([True, True, False])).tolist()
      [1, 0]
    """
    in_use = np.flatnonzero(latent_mask)
    return in_use[np.argsort(-np.asarray(kl)[in_use], kind="stable")]


@jax.jit
def aggregate_histogram(q: Gaussian, edges: Float[Array, " e"]) -> Float[Array, "z e-1"]:
    """A histogram of the aggregate posterior of each latent, computed exactly from the posteriors, without sampling.

    Pₖ = 1/n Σⱼ Φ((eₖ₊₁ − mⱼ)/sⱼ) − Φ((eₖ − mⱼ)/sⱼ), the probability of bin k under z ~ q(z|x,c) over the split

    Args:
      q: posteriors of n examples, shape (n, z).
      edges: of the bins, in ascending order, shape (e,).

    Returns:
      Probabilities, shape (z, e − 1); the rest of a row's sum to 1 lies outside the edges.

    Example:
      >>> q = Gaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> round(float(aggregate_histogram(q, jnp.array([-1.0, 1.0]))[0, 0]), 4)
      0.6827
    """

    def of_latent(terms: tuple[Array, Array]) -> Array:
        mean, logvar = terms
        below = jax.scipy.stats.norm.cdf(edges, mean[:, None], jnp.exp(0.5 * logvar)[:, None])
        return jnp.diff(jnp.mean(below, axis=0))

    return jax.lax.map(of_latent, (q.mean.T, q.logvar.T))


class Projections(NamedTuple):
    """Points in two dimensions.

    Attributes:
      pca: the first two principal components, shape (n, 2).
      explained: fraction of the variance along each, shape (2,).
      tsne: by t-SNE, which keeps close points close, shape (n, 2).
    """

    pca: Float[np.ndarray, "n 2"]
    explained: Float[np.ndarray, " 2"]
    tsne: Float[np.ndarray, "n 2"]


def project(means: Float[np.ndarray, "n z"]) -> Projections:
    """Posterior means in two dimensions, by PCA and by t-SNE. t-SNE starts from the PCA; nothing is random.

    Args:
      means: of the latents in use, shape (n, z); t-SNE takes about 5 s for n = 2,000.

    Returns:
      Both projections; of a single latent the second coordinate is 0.

    Raises:
      DataError: if there are fewer than four points.

    References:
      van der Maaten & Hinton, Visualizing Data using t-SNE, 2008.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(means)
    if n < LEAST_EXAMPLES:
        raise DataError(f"the test split holds {n} examples, expected at least {LEAST_EXAMPLES} to project")
    components = min(2, means.shape[1])
    model = PCA(components, random_state=0)
    pca, explained = np.zeros((n, 2), np.float32), np.zeros(2)
    pca[:, :components] = model.fit_transform(means)
    explained[:components] = model.explained_variance_ratio_
    # As scikit-learn initializes t-SNE: PCA, scaled down.
    start = 1e-4 * pca / max(float(pca[:, 0].std()), 1e-12)
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(means)  # pyright: ignore[reportArgumentType]
    return Projections(pca, explained, tsne)
