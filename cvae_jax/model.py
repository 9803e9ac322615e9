"""The model: encoder q(z|x,c), prior p(z|c) and decoder p(x|z,c), as pure functions of their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.conditions.encoders import LabelEmbedding, encoder, features_of
from cvae_jax.conditions.kinds import Condition, Observed, Text
from cvae_jax.conditions.places import Places, TextMap
from cvae_jax.conditions.text import TextEncoder
from cvae_jax.config import Config
from cvae_jax.likelihoods.families import GaussianOutput, Likelihood, likelihood
from cvae_jax.losses import reparameterize
from cvae_jax.networks.conv import ConvDecoder, ConvEncoder
from cvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.conv import Shape, pyramid
from cvae_jax.nn.dropout import Dropout
from cvae_jax.nn.embedding import ByClass, Embedding, Embeddings, MaskedCondition, mask_embedding
from cvae_jax.nn.latent import Gaussian, ToLatents
from cvae_jax.priors.gaussian import Apart, ConditionalPrior, FlowPrior, StandardPrior, masked, sampled_rate
from cvae_jax.priors.mixture import MixturePrior, VampPrior

if TYPE_CHECKING:
    from jax.typing import DTypeLike
    from jaxtyping import Array, Bool, Float, Key, PyTree

Prior = StandardPrior | ConditionalPrior | MixturePrior | VampPrior | FlowPrior

# A Bernoulli logit that says a pixel is certain: float32 gives it a probability of 1.
_CERTAIN = 100.0


class CVAE(nn.Module):
    """A conditional variational autoencoder.

    Latents outside `latent_mask` are N(0, 1) under q and the prior, so that their KL is 0, and 0 in the decoder: they
    carry neither information nor gradient.

    Wherever a method takes a batch of conditions it also takes a `MaskedCondition`, which drops some of them, or
    `Embeddings`, which saves encoding them again.

    Attributes:
      config: network, prior, likelihood and compute type.
      shape: (height, width, channels) of x.
      condition: what c is made of; not read where the configuration names no condition.
      capacity: number of latents there is room for.
      levels: number of values of a pixel, which the logistic mixture counts.
      fits_batch: whether `draw` lets the likelihood fit itself to the batch, as a training step does.
      tells_z: whether the decoder is told z, scalar, bool, else it is told 0; None, as in evaluation, always tells it.
      dropout: of a training step; None, as in evaluation, drops nothing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from cvae_jax.condition_kinds import Label
      >>> model = CVAE(Config(network="conv"), shape=(8, 8, 1), condition=Label(10), capacity=4)
      >>> x, c, mask = jnp.zeros((3, 8, 8, 1)), jnp.array([0, 1, 2]), jnp.ones(4, bool)
      >>> params = jax.jit(model.init)(jax.random.key(0), x, c, mask, jax.random.key(1))
      >>> q = encode(model, params, x, c, mask)
      >>> q.mean.shape, decode(model, params, q.mean, c, mask).shape
      ((3, 4), (3, 8, 8, 1))
    """

    config: Config
    shape: Shape
    condition: Condition
    capacity: int
    levels: int = 256
    fits_batch: bool = False
    tells_z: Bool[Array, ""] | None = None
    dropout: Dropout | None = None

    @property
    def likelihood(self) -> Likelihood:
        """What the decoder's output means."""
        return likelihood(self.config, self.levels)

    @property
    def kind(self) -> Condition:
        """What c is made of, None for a plain VAE."""
        return None if self.config.condition == "none" else self.condition

    def setup(self) -> None:
        """Build the condition's encoders, the bodies, the map onto the latents and the prior."""
        config, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        separate = not config.share_condition
        # A text's words go to the same places in its embedding and on the map that is drawn of it.
        self.places = [Places(TextEncoder.width, dtype=dtype) for _ in range(3 if separate else 1)]
        self.embedding = self._condition_encoder(self.places[0], dtype)
        self.decoder_embedding = self._condition_encoder(self.places[1], dtype) if separate else None
        heeds = separate and config.prior in ("conditional", "mixture", "flow")
        self.prior_embedding = self._condition_encoder(self.places[2], dtype) if heeds else None
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
                places = self.places[1 if separate else 0]
                self.text_map = TextMap(places, pyramid(self.shape)[-1][:2], dtype=dtype)
                self.decoder = ConvDecoder(output_shape, dtype, of_decoder, self.text_map)
        self.log_beta = (
            self.variable("setting", "log_beta", jnp.zeros, ()) if config.objective == "multirate" else None
        )
        self.logvar = (
            None if family.logvar is None else self._logvar(family.logvar, fitted=family.fit is not None)
        )
        self.prior = self._prior(dtype)

    def _condition_encoder(self, places: Places, dtype: DTypeLike) -> nn.Module | None:
        if self.kind is None:
            return None
        return encoder(self.kind, places if self.config.network == "conv" else None, dtype)

    def _prior(self, dtype: DTypeLike) -> Prior:
        config, kind = self.config, self.kind
        match config.prior:
            case "standard":
                return StandardPrior(self.capacity)
            case "conditional":
                return ConditionalPrior(self.capacity, dtype=dtype)
            case "mixture":
                return MixturePrior(self.capacity, config.mixture_parts, dtype=dtype)
            case "vamp":
                features = 0 if kind is None else features_of(kind)
                film = config.conditioning == "film"
                return VampPrior(
                    config.pseudo_inputs, self.shape, features, film, self.encoder, self.to_latents
                )
            case "flow":
                return FlowPrior(self.capacity, dtype=dtype)

    def _logvar(self, start: float, *, fitted: bool) -> Float[Array, ""]:
        """The log-variance of all pixels: a parameter, or a variable that training sets."""
        if fitted:
            return self.variable("fitted", "logvar", jnp.full, (), start).value
        return self.param("logvar", nn.initializers.constant(start), ())

    def embed(self, c: PyTree) -> Embeddings:
        """What each part is told of a batch of conditions."""
        if isinstance(c, Embeddings):
            return c
        if self.embedding is None:
            return Embeddings(None, None, None, None)
        c, mask = c if isinstance(c, MaskedCondition) else (c, None)

        def encoded(network: nn.Module | None) -> Embedding | None:
            if network is None:
                return None
            told = network(c)
            return told if mask is None else mask_embedding(told, mask)

        of_encoder = of_decoder = of_prior = encoded(self.embedding)
        if not self.config.share_condition:
            of_decoder, of_prior = encoded(self.decoder_embedding), encoded(self.prior_embedding)
        if isinstance(self.kind, Text) and of_decoder is not None and of_decoder.words is not None:
            # Said of the picture as a whole, a word would be drawn only where training saw it.
            of_decoder = of_decoder._replace(e=None)
        return Embeddings(
            of_encoder, of_decoder, of_prior, c if isinstance(self.condition, Observed) else None
        )

    def _context(self, told: Embedding | None, network: nn.Module | None) -> Context:
        """What a body is told, by the condition's encoder."""
        e, maps, words, weights = told or Embedding(None)
        if isinstance(network, LabelEmbedding) and weights is not None and len(weights) > weights.shape[1]:
            e = ByClass(weights, network.table)
        film = self.config.conditioning == "film"
        return Context(e, maps, words, film, None if self.log_beta is None else self.log_beta.value)

    def _in_use(self, latent_mask: Bool[Array, " z"]) -> Bool[Array, " z"]:
        """A deterministic network uses no latent."""
        return jnp.zeros_like(latent_mask) if self.config.objective == "nn" else latent_mask

    def encode(self, x: Float[Array, "b H W C"], c: PyTree, latent_mask: Bool[Array, " z"]) -> Gaussian:
        """The posterior q(z|x,c) of a batch; a GSNN has none but the prior."""
        embedded = self.embed(c)
        if isinstance(self.prior, ConditionalPrior) and self.config.objective == "gsnn":
            return self.prior(self._told_prior(embedded), latent_mask)
        q = self.to_latents(self.encoder(x, self._context(embedded.encoder, self.embedding)))
        return masked(q, self._in_use(latent_mask))

    def decode(self, z: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]) -> PyTree:
        """The output that `likelihood` turns into p(x|z,c), in float32."""
        embedded = self.embed(c)
        told = self._in_use(latent_mask)
        z = jnp.where(told if self.tells_z is None else told & self.tells_z, z, 0.0)
        context = self._context(embedded.decoder, self.decoder_embedding or self.embedding)
        output = self.decoder(z, context, latent_mask).astype(jnp.float32)
        if isinstance(self.kind, Observed) and embedded.observed is not None:
            given = (2.0 * embedded.observed.astype(jnp.float32) - 1.0) * _CERTAIN
            output = jnp.where(self.kind.mask, given, output)
        if self.logvar is None:
            return output
        return GaussianOutput(output, jnp.broadcast_to(self.logvar, z.shape[:1]))

    def log_prior(
        self, z: Float[Array, "b k z"], c: PyTree, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b k"]:
        """log p(z|c) over the latents in use, of k draws per condition, nats."""
        return self.prior.log_prob(z, self._told_prior(c), latent_mask)

    def sample_prior(
        self,
        keys: Key[Array, " b"],
        c: PyTree,
        latent_mask: Bool[Array, " z"],
        temperature: Float[Array, ""] | float = 1.0,
    ) -> Float[Array, "b z"]:
        """One z ~ p(z|c) per condition, its noise times the temperature; latents out of use are noise."""
        return self.prior.sample(keys, self._told_prior(c), latent_mask, temperature)

    def from_noise(
        self, noise: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """z that lies under p(z|c) where the noise lies under N(0, I), one per condition."""
        return self.prior.from_noise(noise, self._told_prior(c), latent_mask)

    def to_noise(
        self, z: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, "b z"]:
        """The inverse of `from_noise`: z in units of p(z|c), one per condition."""
        return self.prior.to_noise(z, self._told_prior(c), latent_mask)

    def rate(
        self, q: Gaussian, z: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]
    ) -> Float[Array, " b"]:
        """KL(q(z|x,c) ‖ p(z|c)) of a batch, nats: exact between Gaussians, else from the one draw z."""
        told = self._told_prior(c)
        if isinstance(self.prior, StandardPrior | ConditionalPrior):
            return self.prior.rate(q, told, latent_mask)
        return sampled_rate(q, z, self.prior.log_prob(z[:, None], told, latent_mask), latent_mask)

    def priors_apart(self, c: PyTree, other: PyTree, latent_mask: Bool[Array, " z"]) -> Apart:
        """How far apart p(z|c) and p(z|other) are, per condition."""
        assert isinstance(self.prior, ConditionalPrior | MixturePrior)
        return self.prior.apart(self._told_prior(c), self._told_prior(other), latent_mask)

    def _told_prior(self, c: PyTree) -> Any:
        told = self.embed(c).prior
        return None if told is None else told.e

    def __call__(
        self, x: Float[Array, "b H W C"], c: PyTree, latent_mask: Bool[Array, " z"], key: Key[Array, ""]
    ) -> tuple[Gaussian, PyTree, Float[Array, " b"]]:
        """Encode, draw z with one key per example, decode, and measure the rate: every part, once."""
        embedded = self.embed(c)
        q = self.encode(x, embedded, latent_mask)
        z = jax.vmap(reparameterize)(jax.random.split(key, x.shape[0]), q.mean, q.logvar)
        return q, self.decode(z, embedded, latent_mask), self.rate(q, z, embedded, latent_mask)


def embed(model: CVAE, params: PyTree, c: PyTree) -> PyTree:
    """What each part of the model is told of a batch of conditions, for functions that meet the same ones often.

    Args:
      model: the model.
      params: its variables.
      c: conditions, as `model.condition` says, with a leading axis b; or a `MaskedCondition`; or already embedded.

    Returns:
      Takes the place of c.
    """
    return model.apply(params, c, method="embed") if hasattr(model, "embed") else c


def encode(
    model: CVAE, params: PyTree, x: Float[Array, "b H W C"], c: PyTree, latent_mask: Bool[Array, " z"]
) -> Gaussian:
    """The posterior q(z|x,c) of a batch.

    Args:
      model: the model.
      params: its variables.
      x: data, shape (b, H, W, C), float32.
      c: conditions, as `model.condition` says, with a leading axis b: labels of shape (b,), int32.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      Mean and logarithm of the variance, shape (b, z) each.
    """
    return cast(Gaussian, model.apply(params, x, c, latent_mask, method="encode"))


def decode(
    model: CVAE, params: PyTree, z: Float[Array, "b z"], c: PyTree, latent_mask: Bool[Array, " z"]
) -> PyTree:
    """The output that `model.likelihood` turns into p(x|z,c), for a batch.

    Args:
      model: the model.
      params: its variables.
      z: latents, shape (b, z), float32.
      c: conditions; of labels also weights over the classes, shape (b, k), float32, to mix their embeddings.
      latent_mask: the latents in use, shape (z,), bool.

    Returns:
      What `model.likelihood` takes, with a leading axis of examples: logits or means, shape (b, H, W, C), float32; a
      mixture's parameters, shape (b, H, W, n); or a `GaussianOutput`.
    """
    return model.apply(params, z, c, latent_mask, method="decode")
