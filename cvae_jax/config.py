"""The two kinds of setting: `Config` shapes the program, a `Member` holds the numbers of one training.

`hparams.py` turns a `Member` into the pytree a compiled program takes, so that whatever it holds can differ between
the members of one sweep.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from cvae_jax.errors import SettingError
from cvae_jax.options import BOUNDS, as_float32, require_one_of, require_within

NetworkName = Literal["mlp", "conv"]
ConditionName = Literal["label", "vector", "image", "text", "audio", "observed"]
Conditioning = Literal["concat", "film"]
PriorName = Literal["standard", "conditional", "mixture", "vamp", "flow"]
LikelihoodName = Literal[
    "bernoulli",
    "continuous_bernoulli",
    "gaussian",
    "gaussian_learned",
    "gaussian_optimal",
    "logistic_mixture",
]
Binarize = Literal["dynamic", "static", "none"]
ComputeDtype = Literal["float32", "bfloat16"]
ObjectiveName = Literal[
    "elbo",
    "free_bits",
    "capacity",
    "iwae",
    "dreg",
    "tcvae",
    "dipvae_i",
    "dipvae_ii",
    "factorvae",
    "multirate",
    "gsnn",
    "hybrid",
    "nn",
]
# These take the KL apart by latent, or z by its distance to N(0, I).
_OF_THE_STANDARD_PRIOR = ("free_bits", "tcvae", "dipvae_i", "dipvae_ii", "factorvae", "nn")
Schedule = Literal["linear", "cosine", "cyclical"]
ActivationName = Literal["silu", "tanh"]
LearningRateSchedule = Literal["constant", "cosine", "iwae"]
# Their order is part of every result: each draws from its own number. Append only.
Augmentation = Literal["shift", "rotate", "scale", "flip", "cutout"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What changes a shape or a program, shared by every member of a sweep.

    Attributes:
      dataset: `digits`, `shapes`, `shapes32`, a TFDS name, or the path of an `.npz` file.
      target_feature: what of a TFDS dataset is modelled.
      condition: `label`, `vector`, `image`, `text` or `audio`; several of them with commas between; `observed`, to
        complete the rest of binary images; or `none` for a plain VAE.
      condition_feature: what of a TFDS dataset each condition is; empty for what each is usually called.
      observed: quadrants of the image that are given with the condition `observed`: 1, 2 or 3.
      conditioning: how the condition enters each layer: `concat`, which adds a term to each channel, or `film`, which
        scales it too.
      share_condition: whether encoder, decoder and prior share one encoder of the condition.
      prior: p(z|c): `standard` normal; `conditional`, a Gaussian made from the condition; `mixture`, `mixture_parts`
        of them; `vamp`, the mean posterior of `pseudo_inputs` learned inputs; or `flow`, a normalizing flow made from
        the condition.
      mixture_parts: Gaussians of the `mixture` prior.
      pseudo_inputs: of the `vamp` prior.
      network: `mlp` or `conv`.
      likelihood: p(x|z,c): `bernoulli` of binary pixels; `continuous_bernoulli` of grey ones; `gaussian` with fixed
        `sigma`, `gaussian_learned` with one that is learned, `gaussian_optimal` with the one that fits best; or
        `logistic_mixture` of 8-bit pixels.
      sigma: standard deviation of the Gaussian likelihood, in units of x; where that of `gaussian_learned` starts.
      num_components: logistics per pixel of `logistic_mixture`.
      binarize: `dynamic` redraws binary pixels at every step, `static` once, `none` keeps grey.
      augment: what happens to grey training images at every step, see `augment.py`.
      batch_size: examples per step.
      epochs: passes over the training split.
      data_seed: of the order of examples and their binarization, shared by all members.
      compute_dtype: of the matrix products; parameters, losses and the optimizer stay float32.
      objective: what training minimizes, see `objectives.py`.
      num_samples: draws of z per example of `iwae` and `dreg`.
      schedule: how β rises over a member's `warmup_epochs`, or the target of `capacity`.
      stratified: whether `tcvae` estimates q(z) from a batch by stratified weights, without bias.
      discriminator_width: of the six layers of `factorvae`'s discriminator.
      hidden: widths of the encoder's dense layers, mirrored in the decoder; of `mlp`.
      activation: after each of them.
      learning_rate_schedule: `constant`; `cosine`, which lowers the rate to none after `epochs`; or `iwae`, which
        lowers it in stages of 1, 3, 9, … epochs.
    """

    dataset: str = "digits"
    target_feature: str = "image"
    condition: str = "label"
    condition_feature: tuple[str, ...] = ()
    observed: int = 1
    conditioning: Conditioning = "concat"
    share_condition: bool = True
    prior: PriorName = "standard"
    mixture_parts: int = 16
    pseudo_inputs: int = 50
    network: NetworkName = "mlp"
    likelihood: LikelihoodName = "bernoulli"
    sigma: float = 0.1
    num_components: int = 5
    binarize: Binarize = "dynamic"
    augment: tuple[Augmentation, ...] = ()
    batch_size: int = 128
    epochs: int = 100
    data_seed: int = 0
    compute_dtype: ComputeDtype = "float32"
    objective: ObjectiveName = "elbo"
    num_samples: int = 1
    schedule: Schedule = "linear"
    stratified: bool = True
    discriminator_width: int = 1000
    hidden: tuple[int, ...] = (512, 512)
    activation: ActivationName = "silu"
    learning_rate_schedule: LearningRateSchedule = "constant"

    def __post_init__(self) -> None:
        """Refuse what no program can be built from."""
        _require_within_bounds(self)
        for name in self.conditions:
            require_one_of("condition", name, (*get_args(ConditionName), "none"))
        require_one_of("conditioning", self.conditioning, get_args(Conditioning))
        require_one_of("prior", self.prior, get_args(PriorName))
        require_one_of("network", self.network, get_args(NetworkName))
        require_one_of("likelihood", self.likelihood, get_args(LikelihoodName))
        require_one_of("binarize", self.binarize, get_args(Binarize))
        require_one_of("compute_dtype", self.compute_dtype, get_args(ComputeDtype))
        require_one_of("objective", self.objective, get_args(ObjectiveName))
        require_one_of("schedule", self.schedule, get_args(Schedule))
        require_one_of("activation", self.activation, get_args(ActivationName))
        require_one_of("learning_rate_schedule", self.learning_rate_schedule, get_args(LearningRateSchedule))
        _require_usable_augmentation(self)
        _require_usable_condition(self)
        _require_usable_prior(self)
        if self.binarize != "none" and self.likelihood != "bernoulli":
            raise SettingError(
                f"binarize is {self.binarize!r}, expected none with the {self.likelihood} likelihood"
            )
        if self.likelihood == "gaussian_optimal" and self.objective in ("iwae", "dreg"):
            raise SettingError(
                f"objective is {self.objective!r}, expected one that takes one draw of z with the gaussian_optimal "
                "likelihood, which fits its sigma to that draw; gaussian_learned takes more"
            )
        if self.num_samples > 1 and self.objective not in ("iwae", "dreg"):
            raise SettingError(
                f"num_samples is {self.num_samples}, expected 1 with the objective {self.objective}: "
                "iwae and dreg take more"
            )
        if self.batch_size < 2 and self.objective in ("tcvae", "dipvae_i", "dipvae_ii", "factorvae"):
            raise SettingError(
                f"batch_size is {self.batch_size}, expected ≥ 2 with the objective {self.objective}: "
                "it compares the latents of a batch"
            )
        if not self.hidden:
            raise SettingError("hidden is empty, expected at least one width")
        for name in ("hidden", "activation"):
            default = Config.__dataclass_fields__[name].default
            if self.network != "mlp" and getattr(self, name) != default:
                raise SettingError(
                    f"{name} is {getattr(self, name)}, expected {default} with the {self.network} network: "
                    "mlp takes others"
                )

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions."""
        return tuple(self.condition.split(","))


def _require_usable_augmentation(config: Config) -> None:
    for name in config.augment:
        require_one_of("augment", name, get_args(Augmentation))
    if len(set(config.augment)) < len(config.augment):
        raise SettingError(f"augment is {','.join(config.augment)}, expected each at most once")
    if config.binarize == "static" and {"rotate", "scale"} & set(config.augment):
        raise SettingError(
            f"augment is {','.join(config.augment)}, expected neither rotate nor scale with binarize='static': "
            "they would make binary pixels grey"
        )


def _require_usable_condition(config: Config) -> None:
    if len(config.conditions) > 1 and not {"none", "observed"}.isdisjoint(config.conditions):
        raise SettingError(f"condition is {config.condition!r}, expected none and observed alone")
    if config.condition == "observed" and config.binarize == "none":
        raise SettingError(
            "condition is 'observed', expected it with the bernoulli likelihood of binary pixels: "
            "binarize is 'none'"
        )
    if config.condition_feature and len(config.condition_feature) != len(config.conditions):
        raise SettingError(
            f"condition_feature is {','.join(config.condition_feature)}, expected one for each of "
            f"condition {config.condition}"
        )


def _require_usable_prior(config: Config) -> None:
    if config.prior in ("conditional", "mixture") and config.condition == "none":
        raise SettingError(f"prior is {config.prior!r}, expected standard, vamp or flow without a condition")
    if config.prior != "standard" and config.objective in _OF_THE_STANDARD_PRIOR:
        raise SettingError(
            f"prior is {config.prior!r}, expected standard with the objective {config.objective}"
        )
    if config.prior != "conditional" and config.objective == "gsnn":
        raise SettingError(f"prior is {config.prior!r}, expected conditional with the objective gsnn")
    if config.prior == "standard" and config.objective == "hybrid":
        raise SettingError(
            "prior is 'standard', expected conditional, mixture, vamp or flow with the objective hybrid"
        )
    if config.prior == "vamp" and config.objective == "multirate":
        raise SettingError(
            "prior is 'vamp', expected standard, conditional, mixture or flow with the objective multirate"
        )


@dataclasses.dataclass(frozen=True)
class Member:
    """The settings of one training that may differ between the members of a sweep.

    Attributes:
      beta: weight of the KL in the training loss, ≥ 0; of its distance to the target in `capacity`; of the total
        correlation in `tcvae`; what a `multirate` model is evaluated and sampled at.
      latent_dim: number of latents, ≥ 1.
      learning_rate: of Adam, > 0; where its schedule starts.
      adam_epsilon: added to the root of Adam's second moment, > 0.
      warmup_epochs: epochs, after `condition_first_epochs`, over which β rises from 0, or the target of `capacity`; 0
        starts at its end. With a cyclical schedule the length of a cycle.
      free_bits: least KL per latent that `free_bits` asks for, nats, ≥ 0.
      kl_target: KL that `capacity` ends at, nats, ≥ 0.
      mi_weight, marginal_weight: of the mutual information and of the marginals' KL in `tcvae`, ≥ 0.
      dip_off_diagonal, dip_diagonal: of the two parts of the penalty in `dipvae_i` and `dipvae_ii`, ≥ 0.
      tc_weight: of the total correlation in `factorvae`, ≥ 0.
      discriminator_learning_rate: of `factorvae`'s discriminator, > 0.
      beta_min, beta_max: the range of β that `multirate` trains for, > 0.
      cvae_weight: of the CVAE's loss in `hybrid`, the rest is the GSNN's, 0 ≤ cvae_weight ≤ 1.
      condition_first_epochs: epochs at the beginning in which the decoder is told 0 for z and learns what the condition
        alone says; the KL does not count until they end.
      condition_dropout: probability that an example's condition is withheld in a training step, 0 ≤
        condition_dropout < 1; guidance needs it.
      rewording_weight: of the divergence between the priors of two wordings of a condition, ≥ 0; with the `cosine`
        it is 0 in the first epoch and rises as the learning rate falls, see `training.scheduled`.
      weight_decay: decoupled, as in AdamW; 0 is Adam.
      clip_norm: largest global norm of the gradient; inf does not clip.
      dropout: probability that a hidden unit is dropped in a training step, 0 ≤ dropout < 1.
      ema_decay: of the exponential moving average of the parameters that validation, the best parameters and with them
        all results use, 0 ≤ ema_decay < 1; 0 uses the latest parameters.
      patience: epochs without a better validation loss, counted from the end of the warm-up and of
        `condition_first_epochs` at the earliest, after which the member stops, ≥ 1; inf never stops.
      seed: of the initialization and of the latent noise.
    """

    beta: float = 1.0
    latent_dim: int = 16
    learning_rate: float = 1e-3
    adam_epsilon: float = 1e-8
    warmup_epochs: float = 0.0
    free_bits: float = 0.0
    kl_target: float = 0.0
    mi_weight: float = 1.0
    marginal_weight: float = 1.0
    dip_off_diagonal: float = 10.0
    dip_diagonal: float = 10.0
    tc_weight: float = 10.0
    discriminator_learning_rate: float = 1e-4
    beta_min: float = 0.1
    beta_max: float = 10.0
    cvae_weight: float = 0.5
    condition_first_epochs: float = 0.0
    condition_dropout: float = 0.0
    rewording_weight: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = math.inf
    dropout: float = 0.0
    ema_decay: float = 0.0
    patience: float = math.inf
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can use."""
        _require_within_bounds(self)
        if as_float32(self.beta_min) >= as_float32(self.beta_max):
            raise SettingError(f"beta_min is {self.beta_min}, expected less than beta_max {self.beta_max}")


def _require_within_bounds(settings: Config | Member) -> None:
    for field in dataclasses.fields(settings):
        if field.name in BOUNDS:
            value = getattr(settings, field.name)
            for each in value if isinstance(value, tuple) else (value,):
                require_within(field.name, each)


def require_compatible(config: Config, member: Member) -> None:
    """Refuse a member that the configured objective cannot train.

    Raises:
      SettingError: naming the setting.
    """
    if member.condition_first_epochs > 0 and config.condition == "none":
        raise SettingError(
            f"condition_first_epochs is {member.condition_first_epochs}, expected 0 without a condition"
        )
    if member.rewording_weight > 0 and config.prior not in ("conditional", "mixture"):
        raise SettingError(
            f"rewording_weight is {member.rewording_weight}, expected 0 with the prior {config.prior}, or the prior "
            "conditional or mixture"
        )
    if config.objective == "multirate":
        if not member.beta_min <= member.beta <= member.beta_max:
            raise SettingError(
                f"beta is {member.beta}, expected between beta_min {member.beta_min} and beta_max "
                f"{member.beta_max} with the objective multirate"
            )
        if member.warmup_epochs > 0:
            raise SettingError(
                f"warmup_epochs is {member.warmup_epochs}, expected 0 with the objective multirate: "
                "it trains every beta at once"
            )
