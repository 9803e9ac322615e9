"""The model: encoder q(z|x,c), prior p(z|c) and decoder p(x|z,c), as pure functions of their parameters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvae_jax.conditions.base import Condition
from cvae_jax.conditions.label import LabelEmbedding
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.likelihoods.gaussian import GaussianOutput
from cvae_jax.losses import reparameterize
from cvae_jax.networks.base import Network
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.dropout import Dropout
from cvae_jax.nn.embedding import ByClass, Embedding, Embeddings, MaskedCondition, mask_embedding
from cvae_jax.nn.latent import Gaussian, ToLatents, log_density, masked
from cvae_jax.priors.base import Prior, PriorContext
from cvae_jax.rng import root_key

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key, PyTree


class Inference(NamedTuple):
    """A draw z ~ q(z|x,c) of each example of a batch, and its densities.

    Attributes:
      z: a pytree with an array per level of latents; of a `CVAE` one array of shape (b, z).
      kl: KL(q(z|x,c) ‖ p(z|c)) per latent or group of latents, nats: in closed form, or log q − log p of the draw. The
        structure of z, each array of shape (b, groups).
      log_q: log q(z|x,c) of the draw, shape (b,), nats.
      log_p: log p(z|c) of the draw, shape (b,), nats.
      q: the posteriors, where z is one array with a Gaussian posterior, shapes (b, z).
    """

    z: PyTree
    kl: PyTree
    log_q: Float[Array, " b"]
    log_p: Float[Array, " b"]
    q: Gaussian | None = None

    @property
    def rate(self) -> Float[Array, " b"]:
        """KL(q(z|x,c) ‖ p(z|c)) per example, nats."""
        return sum((jnp.sum(kl, axis=1) for kl in jax.tree.leaves(self.kl)), jnp.zeros_like(self.log_q))


@runtime_checkable
class Model(Protocol):
    """What training, evaluation and sampling need of a model: pure functions of its parameters.

    A `CVAE` is such a model. One's own can extend this class; `CVAE` has the arguments and results of each method.
    """

    @property
    def flat_latents(self) -> bool:
        """Whether z is one array with a Gaussian posterior: then it is a `FlatModel`."""
        ...

    @property
    def likelihood(self) -> Likelihood:
        """The density p(x|z,c)."""
        ...

    @property
    def condition(self) -> Condition | None:
        """What c is made of, None for a plain VAE."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one x, channels last: (height, width, channels) of an image."""
        ...

    @property
    def capacity(self) -> int:
        """Number of latents there is room for."""
        ...

    def init(self, key: Key[Array, ""], latent_mask: Bool[Array, " z"] | None = None) -> PyTree:
        """Parameters before training."""
        ...

    def embed(self, params: PyTree, c: PyTree) -> Any:
        """What can take the place of c in the other methods, to embed once what is used often."""
        ...

    def infer(
        self, params: PyTree, x: Float[Array, " b *dims"], c: PyTree, keys: Key[Array, " b"]
    ) -> Inference:
        """One z ~ q(z|x,c) for each example of a batch."""
        ...

    def decode(self, params: PyTree, z: Any, c: PyTree) -> PyTree:
        """The likelihood's parameters for a batch of latents."""
        ...

    def log_prob(self, outputs: PyTree, x: Float[Array, " b *dims"]) -> Float[Array, " b"]:
        """log p(x|z,c) of a batch under decoded parameters, nats."""
        ...

    def mean(self, outputs: PyTree) -> Float[Array, " b *dims"]:
        """The mean of p(x|z,c) of a batch of decoded parameters, in units of x."""
        ...

    def generate(
        self,
        params: PyTree,
        c: PyTree,
        keys: Key[Array, " b"],
        temperature: Float[Array, ""] | float = 1.0,
    ) -> Any:
        """One z ~ p(z|c) for each condition of a batch."""
        ...


@runtime_checkable
class FlatModel(Model, Protocol):
    """A model whose latents are one array with a Gaussian posterior."""

    def encode(self, params: PyTree, x: Float[Array, " b *dims"], c: PyTree) -> Gaussian:
        """The posterior q(z|x,c) of a batch."""
        ...

    def log_prior(self, params: PyTree, z: Float[Array, "b z"], c: PyTree) -> Float[Array, " b"]:
        """log p(z|c) over the latents in use, nats."""
        ...

    def from_noise(self, params: PyTree, noise: Float[Array, "b z"], c: PyTree) -> Float[Array, "b z"]:
        """z that lies under p(z|c) where the noise lies under N(0, I)."""
        ...

    def to_noise(self, params: PyTree, z: Float[Array, "b z"], c: PyTree) -> Float[Array, "b z"]:
        """The inverse of `from_noise`."""
        ...

    def latent_mask(self, params: PyTree) -> Bool[Array, " z"]:
        """The latents in use."""
        ...


@dataclasses.dataclass(frozen=True)
class CVAE:
    """A conditional variational autoencoder: a network, a likelihood, a prior and a condition.

    All methods but the constructor are pure functions of the parameters `params`. Wherever one takes a batch of
    conditions c it also takes a `MaskedCondition`, which drops some of them, or what `embed` returns.

    The latents in use are `params["latents"]["mask"]`. The others are N(0, 1) under q and the prior, so that their KL
    is 0, and 0 in the decoder: they carry neither information nor gradient.

    Attributes:
      network, likelihood, prior: the parts.
      condition: what c is made of, None for a plain VAE.
      shape: of one x, channels last: (height, width, channels) of an image.
      capacity: number of latents there is room for.
      film: whether the condition scales the channels of every layer, too.
      share_condition: whether encoder, decoder and prior share one encoder of the condition.
      compute_dtype: of the matrix products.
      posterior: what q(z|x,c) is: of the `encoder`; the `prior` itself; or `none`, where the network uses no latents.
      gated: whether the channels of every layer are gated by β, see `objectives.multirate`.

    Example:
      >>> from cvae_jax.conditions import Label
      >>> from cvae_jax.likelihoods import Bernoulli
      >>> from cvae_jax.networks import Conv
      >>> from cvae_jax.priors import Standard
      >>> model = CVAE(Conv(), Bernoulli(), Standard(), Label(10), shape=(8, 8, 1), capacity=4)
      >>> params = jax.jit(model.init)(jax.random.key(0))
      >>> x, c, keys = jnp.zeros((3, 8, 8, 1)), jnp.array([0, 1, 2]), jax.random.split(jax.random.key(1), 3)
      >>> inference = model.infer(params, x, c, keys)
      >>> inference.z.shape, inference.kl.shape, model.decode(params, inference.z, c).shape
      ((3, 4), (3, 4), (3, 8, 8, 1))
    """

    network: Network
    likelihood: Likelihood
    prior: Prior
    condition: Condition | None
    shape: tuple[int, ...]
    capacity: int
    film: bool = False
    share_condition: bool = True
    compute_dtype: str = "float32"
    posterior: Literal["encoder", "prior", "none"] = "encoder"
    gated: bool = False

    # One array of latents with a Gaussian posterior: what some objectives and evaluations need.
    flat_latents = True

    @property
    def module(self) -> _Modules:
        """The flax module of all networks."""
        return _Modules(self)

    def init(self, key: Key[Array, ""], latent_mask: Bool[Array, " z"] | None = None) -> PyTree:
        """Parameters before training, the same for a key whatever the capacity.

        Args:
          key: of the initial weights.
          latent_mask: the latents in use, shape (z,), bool; all if not given.
        """
        x = jnp.zeros((1, *self.shape))
        c = None if self.condition is None else jax.tree.map(jnp.asarray, self.condition.blank(1))
        mask = jnp.ones(self.capacity, bool) if latent_mask is None else latent_mask
        return self.module.init(key, x, c, mask)

    def embed(self, params: PyTree, c: PyTree) -> Embeddings:
        """The embeddings of a batch of conditions: they take the place of c, to embed once what is used often."""
        if isinstance(c, Embeddings):
            return c
        return cast(Embeddings, self.module.apply(params, c, method="embed"))

    def infer(
        self, params: PyTree, x: Float[Array, " b *dims"], c: PyTree, keys: Key[Array, " b"]
    ) -> Inference:
        """Draw z ~ q(z|x,c) for each example of a batch.

        Args:
          params: the parameters.
          x: data, shape (b, *dims), float32.
          c: conditions, with a leading axis b.
          keys: one per example, shape (b,).

        Returns:
          The draw z, its KL per latent, and its log-densities under posterior and prior.
        """
        return cast(Inference, self.module.apply(params, x, c, keys, method="infer"))

    def decode(self, params: PyTree, z: Float[Array, "b z"], c: PyTree) -> PyTree:
        """The likelihood's parameters for a batch of latents, in float32.

        Args:
          params: the parameters.
          z: latents, shape (b, z), float32.
          c: conditions; of labels also weights over the classes, shape (b, k), float32, to mix their embeddings.

        Returns:
          What the methods of `likelihood` take, with a leading axis b.
        """
        return self.module.apply(params, z, c, method="decode")

    def log_prob(self, outputs: PyTree, x: Float[Array, " b *dims"]) -> Float[Array, " b"]:
        """log p(x|z,c) of a batch under decoded parameters, shape (b,), nats."""
        return self.likelihood.log_probs(outputs, x)

    def mean(self, outputs: PyTree) -> Float[Array, " b *dims"]:
        """The mean of p(x|z,c) of a batch of decoded parameters, in units of x."""
        return jax.vmap(self.likelihood.mean)(outputs)

    def generate(
        self,
        params: PyTree,
        c: PyTree,
        keys: Key[Array, " b"],
        temperature: Float[Array, ""] | float = 1.0,
    ) -> Float[Array, "b z"]:
        """Draw z ~ p(z|c) for each condition of a batch.

        Args:
          params: the parameters.
          c: conditions, with a leading axis b; without a condition its length is all that counts.
          keys: one per condition, shape (b,).
          temperature: multiplies the noise that z is made of: 1 draws from the prior, less stays closer to its mean, or
            to those of a mixture's likelier components.

        Returns:
          Shape (b, z); latents out of use are noise that nothing reads.
        """
        return cast("Array", self.module.apply(params, c, keys, temperature, method="generate"))

    def encode(self, params: PyTree, x: Float[Array, " b *dims"], c: PyTree) -> Gaussian:
        """The posterior q(z|x,c) of a batch: mean and logarithm of the variance, shape (b, z) each."""
        return cast(Gaussian, self.module.apply(params, x, c, method="encode"))

    def log_prior(self, params: PyTree, z: Float[Array, "b z"], c: PyTree) -> Float[Array, " b"]:
        """log p(z|c) over the latents in use, of one z per condition, nats."""
        return cast("Array", self.module.apply(params, z, c, method="log_prior"))

    def from_noise(self, params: PyTree, noise: Float[Array, "b z"], c: PyTree) -> Float[Array, "b z"]:
        """z that lies under p(z|c) where the noise lies under N(0, I): 0 is the middle, 1 a standard deviation away."""
        return cast("Array", self.module.apply(params, noise, c, method="from_noise"))

    def to_noise(self, params: PyTree, z: Float[Array, "b z"], c: PyTree) -> Float[Array, "b z"]:
        """The inverse of `from_noise`: z in units of p(z|c)."""
        return cast("Array", self.module.apply(params, z, c, method="to_noise"))

    def latent_mask(self, params: PyTree) -> Bool[Array, " z"]:
        """The latents in use, shape (z,)."""
        return params["latents"]["mask"]


def require_flat_latents(model: Model, what: str) -> FlatModel:
    """The model, unless its latents are not one array with a Gaussian posterior.

    Args:
      model: the model.
      what: needs such a model, to begin the message.

    Raises:
      SettingError: for a model with several levels of latents.
    """
    if not model.flat_latents:
        raise SettingError(
            f"{what}: expected a model with one array of latents and a Gaussian posterior, got one with several "
            "levels of latents"
        )
    return cast(FlatModel, model)


class _Modules(nn.Module):
    """The networks of a `CVAE`, bound to their parameters."""

    model: CVAE

    def setup(self) -> None:
        """Build the condition's encoders, the network, the map onto the latents and the prior."""
        model, dtype = self.model, jnp.dtype(self.model.compute_dtype)
        likelihood = model.likelihood
        *places, channels = model.shape
        output = (*places, likelihood.channels(channels))
        copies = 1 if model.share_condition else 3 if model.prior.reads_condition else 2
        modules = model.network.modules(model.shape, output, model.condition, copies, dtype)
        self.shared = modules.shared
        of_condition = (*modules.condition_encoders, None, None, None)
        self.embedding, self.decoder_embedding, self.prior_embedding = of_condition[:3]
        self.to_latents = ToLatents(model.capacity)
        self.encoder, self.decoder = modules.encoder, modules.decoder
        self.mask = self.variable("latents", "mask", jnp.ones, model.capacity, bool)
        self.log_beta = self.variable("setting", "log_beta", jnp.zeros, ()) if model.gated else None
        start = likelihood.initial_logvar
        self.logvar = None if start is None else self._logvar(start, fitted=likelihood.fits_batch)
        features = 0 if model.condition is None else model.condition.features
        self.prior = model.prior.module(
            PriorContext(
                model.capacity, model.shape, features, model.film, self.encoder, self.to_latents, dtype
            )
        )

    def _logvar(self, start: float, *, fitted: bool) -> Float[Array, ""]:
        """The log-variance of all pixels: a parameter, or a variable that training sets."""
        if fitted:
            return self.variable("fitted", "logvar", jnp.full, (), start).value
        return self.param("logvar", nn.initializers.constant(start), ())

    def __call__(
        self, x: Float[Array, " b *dims"], c: PyTree, latent_mask: Bool[Array, " z"]
    ) -> tuple[Inference, PyTree]:
        """Set the latents in use, and call every part once: for `init`."""
        self.mask.value = latent_mask
        embedded = self.embed(c)
        inference = self.infer(x, embedded, jax.random.split(root_key(0), x.shape[0]))
        return inference, self.decode(inference.z, embedded)

    def embed(self, c: PyTree) -> Embeddings:
        if isinstance(c, Embeddings):
            return c
        if self.embedding is None:
            return Embeddings(None, None, None, None)
        c, mask = (c.c, c.mask) if isinstance(c, MaskedCondition) else (c, None)

        def encoded(encoder: nn.Module | None) -> Embedding | None:
            if encoder is None:
                return None
            embedding = encoder(c)
            return embedding if mask is None else mask_embedding(embedding, mask)

        of_encoder = of_decoder = of_prior = encoded(self.embedding)
        if not self.model.share_condition:
            of_decoder, of_prior = encoded(self.decoder_embedding), encoded(self.prior_embedding)
        fixes = self.model.condition is not None and self.model.condition.fixes_output
        return Embeddings(of_encoder, of_decoder, of_prior, c if fixes else None)

    def _context(self, embedding: Embedding | None, encoder: nn.Module | None, **more: Any) -> Context:
        """The conditioning inputs of the encoder or the decoder."""
        e, maps, words, weights, tokens = embedding or Embedding(None)
        if isinstance(encoder, LabelEmbedding) and weights is not None and len(weights) > weights.shape[1]:
            e = ByClass(weights, encoder.table)
        log_beta = None if self.log_beta is None else self.log_beta.value
        return Context(e, maps, words, self.model.film, log_beta, tokens=tokens, **more)

    def _dropout(self, part: int) -> Dropout | None:
        """Of a training step that passes its key and rate with the parameters."""
        if not self.has_variable("dropout", "rate"):
            return None
        key, rate = (self.get_variable("dropout", name) for name in ("key", "rate"))
        return Dropout(key, rate).of(part)

    def _in_use(self) -> Bool[Array, " z"]:
        mask = self.mask.value
        return jnp.zeros_like(mask) if self.model.posterior == "none" else mask

    def encode(self, x: Float[Array, " b *dims"], c: PyTree) -> Gaussian:
        embedded = self.embed(c)
        if self.model.posterior == "prior":
            return self.prior(self._of_prior(embedded), self.mask.value)
        context = self._context(embedded.encoder, self.embedding, dropout=self._dropout(0))
        return masked(self.to_latents(self.encoder(x, context)), self._in_use())

    def infer(self, x: Float[Array, " b *dims"], c: PyTree, keys: Key[Array, " b"]) -> Inference:
        embedded, mask = self.embed(c), self.mask.value
        q, e = self.encode(x, embedded), self._of_prior(embedded)
        z = jax.vmap(reparameterize)(keys, q.mean, q.logvar)
        log_q = log_density(z, q.mean, q.logvar, mask)
        return Inference(z, self.prior.kl(q, z, e, mask), log_q, self.prior.log_prob(z, e, mask), q)

    def decode(self, z: Float[Array, "b z"], c: PyTree) -> PyTree:
        embedded, condition = self.embed(c), self.model.condition
        context = self._context(
            embedded.decoder,
            self.decoder_embedding or self.embedding,
            latent_mask=self.mask.value,
            dropout=self._dropout(1),
        )
        output = self.decoder(jnp.where(self._in_use(), z, 0.0), context).astype(jnp.float32)
        if condition is not None and embedded.fixed is not None:
            output = condition.fix_output(output, embedded.fixed)
        if self.logvar is None:
            return output
        return GaussianOutput(output, jnp.broadcast_to(self.logvar, z.shape[:1]))

    def _of_prior(self, c: PyTree) -> Any:
        embedding = self.embed(c).prior
        return None if embedding is None else embedding.e

    def generate(
        self, c: PyTree, keys: Key[Array, " b"], temperature: Float[Array, ""] | float
    ) -> Float[Array, "b z"]:
        return self.prior.sample(keys, self._of_prior(c), self.mask.value, temperature)

    def log_prior(self, z: Float[Array, "b z"], c: PyTree) -> Float[Array, " b"]:
        return self.prior.log_prob(z, self._of_prior(c), self.mask.value)

    def from_noise(self, noise: Float[Array, "b z"], c: PyTree) -> Float[Array, "b z"]:
        return self.prior.from_noise(noise, self._of_prior(c), self.mask.value)

    def to_noise(self, z: Float[Array, "b z"], c: PyTree) -> Float[Array, "b z"]:
        return self.prior.to_noise(z, self._of_prior(c), self.mask.value)
