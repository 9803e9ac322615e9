"""The model: encoder q(z|x,c) and decoder p(x|z,c), as pure functions of their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.conditions import LabelEmbedding
from cvae_jax.config import Config
from cvae_jax.dropout import Dropout
from cvae_jax.likelihoods import GaussianOutput, Likelihood, likelihood
from cvae_jax.losses import gaussian_log_likelihood, reparameterize
from cvae_jax.networks import (
    Context,
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
    Shape,
    ToLatents,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree


class Gaussian(NamedTuple):
    """A batch of diagonal Gaussians over latents.

    Attributes:
      mean: shape (b, z).
      logvar: logarithm of the variance, shape (b, z).
    """

    mean: Float[Array, "b z"]
    logvar: Float[Array, "b z"]


class CVAE(nn.Module):
    """A conditional variational autoencoder.

    Latents outside `latent_mask` are N(0, 1) under q, so that their KL is 0, and 0 in the decoder: they carry
    neither information nor gradient.

    Attributes:
      config: network, condition, likelihood and compute type.
      shape: (height, width, channels) of x.
      num_classes: labels run from 0 to num_classes − 1.
      capacity: number of latents there is room for.
      levels: number of values of a pixel, which the logistic mixture counts.
      fits_batch: whether `draw` lets the likelihood fit itself to the batch, as a training step does.
      dropout: of a training step; None, as in evaluation, drops nothing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = CVAE(Config(network="conv"), shape=(8, 8, 1), num_classes=10, capacity=4)
      >>> x, c, mask = jnp.zeros((3, 8, 8, 1)), jnp.array([0, 1, 2]), jnp.ones(4, bool)
      >>> params = model.init(jax.random.key(0), x, c, mask, jax.random.key(1))
      >>> q = encode(model, params, x, c, mask)
      >>> q.mean.shape, decode(model, params, q.mean, c, mask).shape
      ((3, 4), (3, 8, 8, 1))
    """

    config: Config
    shape: Shape
    num_classes: int
    capacity: int
    levels: int = 256
    fits_batch: bool = False
    dropout: Dropout | None = None

    @property
    def likelihood(self) -> Likelihood:
        """What the decoder's output means."""
        return likelihood(self.config, self.levels)

    def setup(self) -> None:
        """Build the condition's embedding, the two bodies and the map onto the latents."""
        config, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        self.embedding = LabelEmbedding(self.num_classes) if config.condition == "label" else None
        self.to_latents = ToLatents(self.capacity)
        family = self.likelihood
        height, width, channels = self.shape
        output_shape = (height, width, family.channels(channels))
        of_encoder, of_decoder = (self.dropout and self.dropout.of(part) for part in (0, 1))
        match config.network:
            case "mlp":
                self.encoder = MLPEncoder(config.hidden, config.activation, dtype, of_encoder)
                self.decoder = MLPDecoder(output_shape, config.hidden, config.activation, dtype, of_decoder)
            case "conv":
                self.encoder = ConvEncoder(dtype, of_encoder)
                self.decoder = ConvDecoder(output_shape, dtype, of_decoder)
        self.log_beta = (
            self.variable("setting", "log_beta", jnp.zeros, ()) if config.objective == "multirate" else None
        )
        self.logvar = (
            None if family.logvar is None else self._logvar(family.logvar, fitted=family.fit is not None)
        )

    def _logvar(self, start: float, *, fitted: bool) -> Float[Array, ""]:
        """The log-variance of all pixels: a parameter, or a variable that training sets."""
        if fitted:
            return self.variable("fitted", "logvar", jnp.full, (), start).value
        return self.param("logvar", nn.initializers.constant(start), ())

    def _context(self, c: Int[Array, " b"] | Float[Array, "b k"]) -> Context:
        return Context(
            None if self.embedding is None else self.embedding(c),
            None if self.log_beta is None else self.log_beta.value,
        )

    def encode(
        self, x: Float[Array, "b H W C"], c: Int[Array, " b"], latent_mask: Bool[Array, " z"]
    ) -> Gaussian:
        """The posterior q(z|x,c) of a batch."""
        mean, logvar = self.to_latents(self.encoder(x, self._context(c)))
        return Gaussian(jnp.where(latent_mask, mean, 0.0), jnp.where(latent_mask, logvar, 0.0))

    def decode(
        self,
        z: Float[Array, "b z"],
        c: Int[Array, " b"] | Float[Array, "b k"],
        latent_mask: Bool[Array, " z"],
    ) -> PyTree:
        """The output that `likelihood` turns into p(x|z,c), in float32."""
        z = jnp.where(latent_mask, z, 0.0)
        output = self.decoder(z, self._context(c), latent_mask).astype(jnp.float32)
        if self.logvar is None:
            return output
        return GaussianOutput(output, jnp.broadcast_to(self.logvar, z.shape[:1]))

    def __call__(
        self,
        x: Float[Array, "b H W C"],
        c: Int[Array, " b"],
        latent_mask: Bool[Array, " z"],
        key: Key[Array, ""],
    ) -> tuple[Gaussian, PyTree]:
        """Encode, draw z with one key per example, and decode."""
        q = self.encode(x, c, latent_mask)
        z = jax.vmap(reparameterize)(jax.random.split(key, x.shape[0]), q.mean, q.logvar)
        return q, self.decode(z, c, latent_mask)


def encode(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    latent_mask: Bool[Array, " z"],
) -> Gaussian:
    """The posterior q(z|x,c) of a batch.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C), float32.
      c: labels, shape (b,), int32.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Mean and logarithm of the variance, shape (b, z) each.
    """
    return cast(Gaussian, model.apply(params, x, c, latent_mask, method="encode"))


def decode(
    model: CVAE,
    params: PyTree,
    z: Float[Array, "b z"],
    c: Int[Array, " b"] | Float[Array, "b k"],
    latent_mask: Bool[Array, " z"],
) -> PyTree:
    """The output that `model.likelihood` turns into p(x|z,c), for a batch.

    Args:
      model: the model.
      params: its variables.
      z: latents, shape (b, z), float32.
      c: labels, shape (b,), int32; or weights over the classes, shape (b, k), float32, to mix their embeddings.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      What `model.likelihood` takes, with a leading axis of examples: logits or means, shape (b, H, W, C), float32; a
      mixture's parameters, shape (b, H, W, n); or a `GaussianOutput`.
    """
    return model.apply(params, z, c, latent_mask, method="decode")


class Draw(NamedTuple):
    """The posterior of a batch, one draw of it, and the likelihood of the data there.

    Attributes:
      q: q(z|x,c), shapes (b, z).
      z: the draw, shape (b, z).
      log_likelihood: log p(x|z,c) for z ~ q, shape (b,), nats.
    """

    q: Gaussian
    z: Float[Array, "b z"]
    log_likelihood: Float[Array, " b"]


def draw(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    keys: Key[Array, " b"],
    latent_mask: Bool[Array, " z"],
) -> Draw:
    """Encode, draw one z per example, decode, and compare with x: the parts of the ELBO.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C), float32.
      c: labels, shape (b,), int32.
      keys: one key per example, shape (b,).
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      The posterior, the draw, and log p(x|z,c) per example, nats.
    """
    q = encode(model, params, x, c, latent_mask)
    z = jax.vmap(reparameterize)(keys, q.mean, q.logvar)
    family = model.likelihood
    output = decode(model, params, z, c, latent_mask)
    if family.fit is not None and model.fits_batch:
        output = family.fit(output, x)
    return Draw(q, z, jax.vmap(family.log_prob)(output, x))


class LogWeights(NamedTuple):
    """The two parts of log w = log p(x|z,c) + log p(z) − log q(z|x,c), of k draws of z per example.

    Attributes:
      log_likelihood: log p(x|z,c), shape (b, k), nats.
      log_ratio: log p(z) − log q(z|x,c) over the latents in use, shape (b, k), nats.
    """

    log_likelihood: Float[Array, "b k"]
    log_ratio: Float[Array, "b k"]


def log_weights(
    model: CVAE,
    params: PyTree,
    x: Float[Array, "b H W C"],
    c: Int[Array, " b"],
    z: Float[Array, "b k z"],
    q: Gaussian,
    latent_mask: Bool[Array, " z"],
) -> LogWeights:
    """Importance weights of draws from the posterior, for bounds tighter than the ELBO.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C).
      c: labels, shape (b,).
      z: draws from q, shape (b, k, z).
      q: the posterior of x and c.
      latent_mask: the latents in use, shape (z,).

    Returns:
      log p(x|z,c), and log p(z) − log q(z|x,c), shape (b, k) each.

    References:
      Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8.
    """
    b, k, _ = z.shape
    output = decode(model, params, z.reshape(b * k, -1), jnp.repeat(c, k), latent_mask)
    output = jax.tree.map(lambda leaf: leaf.reshape(b, k, *leaf.shape[1:]), output)
    log_likelihood = jax.vmap(jax.vmap(model.likelihood.log_prob, (0, None)))(output, x)
    log_density = jax.vmap(lambda m, z, v: gaussian_log_likelihood(m[None], z[None], v[None]))

    def log_ratio(z: Array, mean: Array, logvar: Array) -> Array:
        zeros = jnp.zeros_like(mean)
        each = log_density(zeros, z, zeros) - log_density(mean, z, logvar)
        return jnp.sum(jnp.where(latent_mask, each, 0.0))

    return LogWeights(log_likelihood, jax.vmap(jax.vmap(log_ratio, (0, None, None)))(z, q.mean, q.logvar))
