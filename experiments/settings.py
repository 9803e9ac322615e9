"""The flags of a training, and the `Run` they describe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

from absl import flags
from cvae_jax.config import Config, Member

from cvae_jax import config as settings
from cvae_jax.data.reading import usual_condition
from cvae_jax.errors import UserError
from cvae_jax.training.grid import FIELDS, Uniform, grid, random_members
from experiments import lists
from experiments.workdir import Run

FLAGS = flags.FLAGS


def define_shared_flags() -> None:
    """Flags of what all members of a sweep share."""
    default = Config()
    _define_data_flags(default)
    _define_model_flags(default)
    _define_training_flags(default)
    flags.DEFINE_string("workdir", None, "Folder of the results; a name made of the settings if not given.")
    flags.DEFINE_integer("checkpoint_every", 10, "Epochs between checkpoints; the end is always one.")


def _define_data_flags(default: Config) -> None:
    """Flags of what is trained on."""
    flags.DEFINE_string(
        "dataset", default.dataset,
        "digits; shapes or shapes32, drawn from known factors at 64x64 or 32x32; a TFDS name such as mnist, cifar10 "
        "or dsprites; or the path of an .npz.",
    )  # fmt: skip
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared TFDS datasets; TFDS's own default if not given."
    )
    flags.DEFINE_enum(
        "binarize", None, get_args(settings.Binarize),
        "dynamic draws binary pixels anew at every step, static once, none keeps grey pixels. "
        "Default: dynamic with the bernoulli likelihood, none otherwise.",
    )  # fmt: skip
    flags.DEFINE_list(
        "augment", list(default.augment),
        "What happens to training images at every step: any of "
        f"{', '.join(get_args(settings.Augmentation))}, with commas between.",
    )  # fmt: skip
    flags.DEFINE_integer("batch_size", default.batch_size, "Examples per step.")
    flags.DEFINE_integer("data_seed", default.data_seed, "Of the order of examples and their binarization.")


def _define_model_flags(default: Config) -> None:
    """Flags of what is trained."""
    _define_condition_flags(default)
    flags.DEFINE_enum(
        "network", default.network, get_args(settings.NetworkName),
        "mlp: dense layers, see --hidden; conv: stride-2 convolutions.",
    )  # fmt: skip
    flags.DEFINE_string(
        "hidden", ",".join(map(str, default.hidden)),
        "Widths of the mlp encoder's dense layers, mirrored in the decoder.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "activation", default.activation, get_args(settings.ActivationName), "Of the mlp's dense layers."
    )
    flags.DEFINE_enum(
        "likelihood", default.likelihood, get_args(settings.LikelihoodName),
        "p(x|z,c): bernoulli (cross entropy of binary pixels), continuous_bernoulli (the same of grey pixels, "
        "normalized), gaussian with fixed --sigma (squared error, normalized), gaussian_learned with one sigma that is "
        "learned from there, gaussian_optimal with the one that fits best, or logistic_mixture of 8-bit pixels (bits "
        "per dimension are reported too).",
    )  # fmt: skip
    flags.DEFINE_float(
        "sigma", default.sigma,
        "Standard deviation of the gaussian likelihood, pixels in [0, 1]; that of gaussian_learned starts here.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "num_components", default.num_components, "Logistics per pixel of the logistic_mixture likelihood."
    )
    flags.DEFINE_enum(
        "compute_dtype", default.compute_dtype, get_args(settings.ComputeDtype),
        "Of the matrix products; parameters and losses stay float32.",
    )  # fmt: skip


def _define_condition_flags(default: Config) -> None:
    """Flags of what the model is told, and of the prior."""
    flags.DEFINE_string(
        "condition", None,
        "label, vector, image, text or audio; several of them with commas between; observed, to complete the quadrants "
        "that --observed does not give; or none for a plain VAE. Default: what the dataset is made for, mostly label.",
    )  # fmt: skip
    flags.DEFINE_list(
        "condition_feature", list(default.condition_feature),
        "Which feature of a TFDS dataset, or array of an .npz, each condition is, where that is no matter of course.",
    )  # fmt: skip
    flags.DEFINE_string(
        "target_feature", default.target_feature, "Which feature of a TFDS dataset is modelled."
    )
    flags.DEFINE_integer(
        "observed", default.observed,
        "With the condition observed: 1 gives the bottom left quadrant, 2 the left half, 3 all but the bottom right.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "conditioning", default.conditioning, get_args(settings.Conditioning),
        "concat: the condition adds a term to each channel of every layer; film: it scales them too.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "share_condition", default.share_condition,
        "Whether encoder, decoder and prior share one encoder of the condition.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "prior", default.prior, get_args(settings.PriorName),
        "p(z|c): standard normal; conditional, a Gaussian made from the condition; mixture, --mixture_parts of them; "
        "vamp, the mean posterior of --pseudo_inputs learned inputs; flow, a normalizing flow made from the condition.",
    )  # fmt: skip
    flags.DEFINE_integer("mixture_parts", default.mixture_parts, "Gaussians of the mixture prior.")
    flags.DEFINE_integer("pseudo_inputs", default.pseudo_inputs, "Of the vamp prior.")


def _define_training_flags(default: Config) -> None:
    """Flags of how it is trained."""
    flags.DEFINE_integer("epochs", default.epochs, "Passes over the training split.")
    flags.DEFINE_enum(
        "objective", default.objective, get_args(settings.ObjectiveName),
        "elbo; free_bits: no latent's KL is pushed below --free_bits; capacity: beta times the KL's distance to "
        "--kl_target; iwae: the bound of --num_samples draws; dreg: its doubly-reparameterized gradient; "
        "tcvae: beta weighs the total correlation; dipvae_i, dipvae_ii: the latents' covariance is drawn to the "
        "identity; factorvae: total correlation by a discriminator; multirate: one network for all betas from "
        "--beta_min to --beta_max; gsnn: z is drawn from the prior in training, too; hybrid: --cvae_weight times elbo, "
        "the rest gsnn; nn: a deterministic network without latents.",
    )  # fmt: skip
    flags.DEFINE_integer("num_samples", default.num_samples, "Draws of z per example, with iwae and dreg.")
    flags.DEFINE_bool(
        "stratified", default.stratified, "With tcvae, whether q(z) is estimated from a batch without bias."
    )
    flags.DEFINE_integer(
        "discriminator_width", default.discriminator_width, "Of each of its six layers, with factorvae."
    )
    flags.DEFINE_enum(
        "schedule", default.schedule, get_args(settings.Schedule),
        "How beta (or the target of capacity) rises over --warmup_epochs; cyclical: again in every such cycle.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "learning_rate_schedule", default.learning_rate_schedule, get_args(settings.LearningRateSchedule),
        "constant; cosine: --learning_rate falls to none over --epochs; or iwae: times 10^(-i/7) in stage i, which "
        "lasts 3^i epochs.",
    )  # fmt: skip


_MEMBER_HELP = {
    "beta": "Weight of the KL, in a loss summed over pixels and latents; see --objective.",
    "latent_dim": "Number of latents.",
    "learning_rate": "Of Adam.",
    "adam_epsilon": "Added to the root of Adam's second moment.",
    "warmup_epochs": "Epochs over which beta rises, after --condition_first_epochs; see --schedule.",
    "free_bits": "Least KL per latent, nats, with that objective.",
    "kl_target": "KL to end at, nats, with the objective capacity.",
    "mi_weight": "Weight of the mutual information, with tcvae.",
    "marginal_weight": "Weight of the marginals' KL, with tcvae.",
    "dip_off_diagonal": "Weight of the squared covariances, with dipvae_i and dipvae_ii.",
    "dip_diagonal": "Weight of the variances' squared distance to 1, with dipvae_i and dipvae_ii.",
    "tc_weight": "Weight of the total correlation, with factorvae.",
    "discriminator_learning_rate": "Of the discriminator's Adam, with factorvae.",
    "beta_min": "Least beta that multirate trains for.",
    "beta_max": "Largest beta that multirate trains for.",
    "cvae_weight": "Weight of the CVAE's loss, with hybrid.",
    "condition_first_epochs": "Epochs in which the decoder sees z = 0, to learn what the condition alone says; "
    "validation, which tells it z, is no guide until then.",
    "condition_dropout": "Probability that an example's condition is withheld in a step; --guidance needs it.",
    "rewording_weight": "Weight of the divergence between the priors of two wordings of a condition, of a dataset that "
    "has a second wording: captions, or an .npz with c_reworded; with --learning_rate_schedule=cosine it is 0 in "
    "the first epoch and rises towards this as the learning rate falls, and in the last fifth of the epochs it weighs "
    "draws that come from another part of a mixture, too.",
    "weight_decay": "Decoupled weight decay, as in AdamW.",
    "clip_norm": "Largest global norm of the gradient; inf does not clip.",
    "dropout": "Probability that a hidden unit is dropped in a step.",
    "ema_decay": "Of the parameters' moving average, which all results are of; 0 uses the latest parameters.",
    "patience": "Epochs without a better validation until training stops; inf never stops.",
    "seed": "Of the initialization and the latent noise.",
}


def define_member_flags() -> None:
    """Flags of what may differ between the members of a sweep, one value each."""
    for name, default in dataclasses.asdict(Member()).items():
        define = flags.DEFINE_integer if isinstance(default, int) else flags.DEFINE_float
        define(name, default, _MEMBER_HELP[name])


def define_grid_flags() -> None:
    """Flags of what differs between the members of a sweep, many values each."""
    for name, default in dataclasses.asdict(Member()).items():
        flags.DEFINE_string(
            name, f"{default:g}",
            f"{_MEMBER_HELP[name]} Values with commas between, linspace(a,b,n), logspace(a,b,n), range(a,b), or "
            "with --num_random also uniform(a,b), loguniform(a,b).",
        )  # fmt: skip
    flags.DEFINE_integer("num_random", None, "Draw this many members at random instead of all combinations.")
    flags.DEFINE_integer("search_seed", 0, "Of the draws of --num_random.")
    flags.DEFINE_integer(
        "members_per_program", None,
        "Members that train at once; the others follow in equal parts through the same compiled program. "
        "Default: as many as fit into the devices' free memory (4 GiB is assumed where a device does not say).",
    )  # fmt: skip


def grid_members() -> tuple[Member, ...]:
    """The members that the flags of a sweep describe."""
    whole = {"latent_dim", "seed"}
    axes = {name: lists.parse(name, str(FLAGS[name].value), whole=name in whole) for name in FIELDS}
    if FLAGS.num_random is not None:
        return random_members(FLAGS.num_random, FLAGS.search_seed, **axes)
    values = {}
    for name, axis in axes.items():
        if isinstance(axis, Uniform):
            raise UserError(f"{name} is {FLAGS[name].value!r}, a distribution: expected --num_random with it")
        values[name] = axis
    return grid(**values)


def sweep_run(members: tuple[Member, ...], members_per_program: int) -> Run:
    """The sweep that the flags describe."""
    return Run(
        kind="sweep",
        config=shared_config(),
        members=members,
        members_per_program=members_per_program,
        data_dir=FLAGS.data_dir,
        checkpoint_every=FLAGS.checkpoint_every,
    )


def shared_config() -> Config:
    """The configuration that the flags describe."""
    binarize = FLAGS.binarize or ("dynamic" if FLAGS.likelihood == "bernoulli" else "none")
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Config)}
    made = {
        "binarize": binarize,
        "condition": usual_condition(FLAGS.dataset) if FLAGS.condition is None else FLAGS.condition,
        "condition_feature": tuple(FLAGS.condition_feature),
        "augment": tuple(FLAGS.augment),
        "hidden": _widths(FLAGS.hidden),
    }
    return Config(**values | made)


def _widths(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"hidden is {text!r}, expected whole numbers with commas between") from None


def member() -> Member:
    """The member that the flags describe."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in dataclasses.fields(Member)}
    return Member(**values)


def single_run() -> tuple[Run, Path]:
    """The run of one member that the flags describe, and its workdir."""
    config, one = shared_config(), member()
    dataset = Path(config.dataset).stem
    name = f"{dataset}-{config.network}-beta{one.beta:g}-z{one.latent_dim}-seed{one.seed}"
    run = Run(
        kind="train",
        config=config,
        members=(one,),
        members_per_program=1,
        data_dir=FLAGS.data_dir,
        checkpoint_every=FLAGS.checkpoint_every,
    )
    return run, Path(FLAGS.workdir or f"runs/{name}")
