"""Hooks: optional features of a training step. Only hooks that are used become part of the compiled program."""

from __future__ import annotations

import dataclasses
import math
import zlib
from abc import ABCMeta
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import jax
import jax.numpy as jnp

from cvae_jax.likelihoods.gaussian import fit_logvar, fitted_logvar
from cvae_jax.model import FlatModel, Model
from cvae_jax.nn.embedding import MaskedCondition
from cvae_jax.objectives.base import Batch, Need, Terms
from cvae_jax.options import EPOCHS, SHARE, Part, Table, options_of, traced
from cvae_jax.rng import Stream, stream
from cvae_jax.training.schedules import Time

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, Key, PyTree

# A fitted variance is the plain average of the first steps', then one that forgets over a hundred.
_LEAST_WEIGHT = 0.01


class Hook(Part):
    """An optional feature of a training step; a subclass is a frozen dataclass of its options.

    The first option switches the hook on: where it is 0 for every member of a sweep, the hook is left out, and a member
    for which it is 0 has to train as without the hook.

    Attributes:
      stream: of the random keys that `prepare` receives.
      needs: what other parts have to be.
      needs_condition: whether the model needs a condition.
      needs_alternative: whether the data need alternative conditions.
      over_all_epochs: whether it depends on the number of epochs, so that more of them are another training.
    """

    kind: ClassVar[str] = "hook"
    stream: ClassVar[Stream] = Stream.HOOK
    needs: ClassVar[tuple[Need, ...]] = ()
    needs_condition: ClassVar[bool] = False
    needs_alternative: ClassVar[bool] = False
    over_all_epochs: ClassVar[bool] = False

    def delay(self) -> Float[Array, ""] | float:
        """Number of epochs at the start in which another loss replaces the objective."""
        return 0.0

    def init(self, params: PyTree) -> PyTree:
        """What the hook stores between steps; None if nothing."""
        return None

    def prepare(self, model: Any, batch: Batch, key: Key[Array, ""], time: Time) -> tuple[Any, Batch]:
        """The model and the batch that this step's loss is computed with.

        Args:
          model: the model, or what another hook made of it; see `Changed`.
          batch: of the step.
          key: of this hook and step.
          time: of the step.
        """
        return model, batch

    def loss(
        self,
        objective: Callable[[PyTree, Batch], Terms],
        model: Any,
        params: PyTree,
        batch: Batch,
        time: Time,
    ) -> Terms:
        """The objective's terms as batch means, changed by the hook. The gradient is taken of their `loss`.

        Args:
          objective: from parameters and a batch to those means.
          model: the model of the step.
          params: its parameters.
          batch: of the step.
          time: of the step.
        """
        return objective(params, batch)

    def restarts(self, time: Time) -> Bool[Array, ""] | None:
        """Whether the optimizers reset their moments before this step; None means never."""
        return None

    def after(
        self, model: Model, params: PyTree, kept: PyTree, terms: Terms, time: Time, runs: Bool[Array, ""]
    ) -> tuple[PyTree, PyTree]:
        """The parameters and what the hook keeps, after an update.

        Args:
          model: the model.
          params: after the update.
          kept: of the hook, before.
          terms: batch means of the step's terms.
          time: of the step.
          runs: whether the member still trains; if not, nothing may change.
        """
        return params, kept

    def evaluated(self, params: PyTree, kept: PyTree) -> PyTree:
        """The parameters that validation and results use."""
        return params


def is_on(hook: Hook) -> bool:
    """Whether a hook does anything: its first option is not 0, or it has none."""
    name = next(iter(options_of(type(hook))), None)
    return name is None or bool(getattr(hook, name))


def key_of(hook: Hook, key: Key[Array, ""], step: Int[Array, ""]) -> Key[Array, ""]:
    """The key of a hook at a step, from the member's root key."""
    root = stream(key, hook.stream)
    if hook.stream is Stream.HOOK:
        root = jax.random.fold_in(root, zlib.crc32(type(hook).__qualname__.encode()))
    return jax.random.fold_in(root, step)


class Changed:
    """A model with changed methods or with extra variables, for one step."""

    def __init__(self, model: Any, variables: dict[str, PyTree] | None = None, **methods: Any) -> None:
        """Change a model.

        Args:
          model: a model, or one that is changed already.
          variables: added to the parameters in every call.
          methods: in place of the model's own.
        """
        self._model, self._variables, self._methods = model, variables, methods

    def __getattr__(self, name: str) -> Any:
        """The changed method, or the model's."""
        if name in self._methods:
            return self._methods[name]
        found, variables = getattr(self._model, name), self._variables
        if variables is None or name not in _OF_PARAMETERS:
            return found
        return lambda params, *rest, **named: found({**params, **variables}, *rest, **named)


# It has no methods of its own that `isinstance` could find.
cast(ABCMeta, FlatModel).register(Changed)

_OF_PARAMETERS = ("embed", "infer", "decode", "generate", "encode", "log_prior", "from_noise", "to_noise")


@dataclasses.dataclass(frozen=True)
class MovingAverage(Hook):
    """Use an exponential moving average of the parameters for validation and results."""

    ema_decay: float = traced(
        0.0,
        bounds=SHARE,
        help="Decay of the moving average of the parameters, which all results use; 0 uses the latest parameters.",
    )

    def init(self, params: PyTree) -> PyTree:
        """The average, of the collection `params`."""
        return params["params"]

    def after(
        self, model: Model, params: PyTree, kept: PyTree, terms: Terms, time: Time, runs: Bool[Array, ""]
    ) -> tuple[PyTree, PyTree]:
        """Move the average."""
        return params, move_average(kept, params["params"], self.ema_decay, time.step + 1, runs)

    def evaluated(self, params: PyTree, kept: PyTree) -> PyTree:
        """The average instead of the parameters."""
        return {**params, "params": kept}


def move_average(
    average: PyTree,
    params: PyTree,
    decay: Float[Array, ""] | float,
    num_updates: Int[Array, ""],
    runs: Bool[Array, ""],
) -> PyTree:
    """The bias-corrected exponential moving average θ̄ of the parameters θ, after one more update.

    θ̄_t = (1−d) Σ_{s≤t} d^{t−s} θ_s / (1−dᵗ) = (1−w) θ̄_{t−1} + w θ_t,  w = (1−d)/(1−dᵗ)

    The initial parameters have no share in it: θ̄₁ = θ₁. At d = 0 it is θ, bit for bit.

    Args:
      average: θ̄ before.
      params: θ after the update.
      decay: d, 0 ≤ d < 1.
      num_updates: t, counting this update, ≥ 1.
      runs: whether the member still trains; if not, the average stays as it is, bit for bit.

    Returns:
      θ̄.

    References:
      Kingma & Ba, Adam, 2015, section 7.2.
    """
    # 1 − dᵗ through expm1: a decay close to 1 leaves float32 few digits of it otherwise.
    weight = (1.0 - decay) / -jnp.expm1(num_updates.astype(jnp.float32) * jnp.log1p(decay - 1.0))
    weight = jnp.where(runs, jnp.minimum(weight, 1.0), 0.0)
    return jax.tree.map(lambda a, p: (1.0 - weight) * a + weight * p, average, params)


@dataclasses.dataclass(frozen=True)
class UnitDropout(Hook):
    """Drop hidden units of encoder and decoder."""

    dropout: float = traced(0.0, bounds=SHARE, help="Probability that a hidden unit is dropped in a step.")
    stream = Stream.DROPOUT

    def prepare(self, model: Any, batch: Batch, key: Key[Array, ""], time: Time) -> tuple[Any, Batch]:
        """The model with this step's key of dropout."""
        return Changed(model, {"dropout": {"key": key, "rate": self.dropout}}), batch


@dataclasses.dataclass(frozen=True)
class ConditionDropout(Hook):
    """Drop the whole condition of some random examples, so that guidance can be used in sampling.

    References:
      Ho & Salimans, Classifier-Free Diffusion Guidance, 2022, algorithm 1.
    """

    condition_dropout: float = traced(
        0.0,
        bounds=SHARE,
        help="Probability that an example's condition is dropped in a step; needed for --guidance in sampling.",
    )
    stream = Stream.CONDITION
    needs_condition = True

    def prepare(self, model: Any, batch: Batch, key: Key[Array, ""], time: Time) -> tuple[Any, Batch]:
        """The batch with some conditions dropped, alternative ones too."""
        mask = jax.random.bernoulli(key, 1.0 - self.condition_dropout, batch.x.shape[:1])
        mask = mask.astype(jnp.float32)
        alternative = None if batch.alternative is None else MaskedCondition(batch.alternative, mask)
        c = MaskedCondition(batch.c, mask)
        return model, dataclasses.replace(batch, c=c, alternative=alternative)


@dataclasses.dataclass(frozen=True)
class ConditionFirst(Hook):
    """Train the decoder with z = 0 in the first epochs, so that it learns all it can from the condition.

    The KL does not count until z comes in. Then the optimizers reset their moments: these were collected without a
    gradient of z, and the first steps would be far too large."""

    condition_first_epochs: float = traced(
        0.0,
        bounds=EPOCHS,
        help="Number of epochs at the start in which the decoder gets z = 0. Validation uses z, and so says nothing "
        "about them.",
    )
    needs_condition = True

    def delay(self) -> Float[Array, ""] | float:
        """`condition_first_epochs`."""
        return self.condition_first_epochs

    def _steps(self, time: Time) -> tuple[Array, Array]:
        """Steps made, and steps without z."""
        return time.step.astype(jnp.float32), jnp.asarray(self.condition_first_epochs * time.steps_per_epoch)

    def prepare(self, model: Any, batch: Batch, key: Key[Array, ""], time: Time) -> tuple[Any, Batch]:
        """The model whose decoder receives z = 0 in these epochs."""
        step, first = self._steps(time)

        def decode(params: PyTree, z: PyTree, c: PyTree) -> PyTree:
            return model.decode(params, jax.tree.map(lambda a: jnp.where(step >= first, a, 0.0), z), c)

        return Changed(model, decode=decode), batch

    def loss(
        self,
        objective: Callable[[PyTree, Batch], Terms],
        model: Any,
        params: PyTree,
        batch: Batch,
        time: Time,
    ) -> Terms:
        """The distortion alone in these epochs."""
        step, first = self._steps(time)
        terms = objective(params, batch)
        return terms._replace(loss=jnp.where(step >= first, terms.loss, terms.distortion))

    def restarts(self, time: Time) -> Bool[Array, ""]:
        """At the first step with z."""
        step, first = self._steps(time)
        return (step >= first) & (step < first + 1.0)


@dataclasses.dataclass(frozen=True)
class FittedVariance(Hook):
    """Set the likelihood's log-variance to the best value for each batch; validation and results use a running average.

    The likelihood `gaussian_optimal` brings this hook.

    References:
      Rybkin, Daniilidis & Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021.
    """

    def prepare(self, model: Any, batch: Batch, key: Key[Array, ""], time: Time) -> tuple[Any, Batch]:
        """The model whose likelihood has the log-variance under which the batch is likeliest."""

        def log_prob(outputs: PyTree, x: Array) -> Array:
            return model.log_prob(fit_logvar(outputs, x), x)

        return Changed(model, log_prob=log_prob), batch

    def after(
        self, model: Model, params: PyTree, kept: PyTree, terms: Terms, time: Time, runs: Bool[Array, ""]
    ) -> tuple[PyTree, PyTree]:
        """The parameters with the running average."""
        logvar = params["fitted"]["logvar"]
        of_batch = fitted_logvar(terms.distortion, math.prod(model.shape))
        averaged = _averaged(logvar, of_batch, time.step)
        return {**params, "fitted": {"logvar": jnp.where(runs, averaged, logvar)}}, kept


def _averaged(logvar: Float[Array, ""], of_batch: Float[Array, ""], step: Int[Array, ""]) -> Float[Array, ""]:
    """The logarithm of a running average of the batches' variances, after one more."""
    weight = jnp.maximum(1.0 / (step.astype(jnp.float32) + 1.0), _LEAST_WEIGHT)
    return jnp.logaddexp(jnp.log1p(-weight) + logvar, jnp.log(weight) + of_batch)


# By name of the option that switches each on.
HOOKS = Table(
    Hook,
    {
        "condition_first_epochs": ConditionFirst,
        "condition_dropout": ConditionDropout,
        "dropout": UnitDropout,
        "ema_decay": MovingAverage,
    },
)
