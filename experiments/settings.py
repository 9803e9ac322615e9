"""The flags of a training, and the `Run` they describe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

from absl import flags

from cvae_jax import config as settings
from cvae_jax.config import Config, Member
from cvae_jax.grid import FIELDS, Uniform, grid, random_members
from experiments import lists
from experiments.cli import UserError
from experiments.workdir import Run

FLAGS = flags.FLAGS


def define_shared_flags() -> None:
    """Flags of what all members of a sweep share."""
    default = Config()
    flags.DEFINE_string(
        "dataset", default.dataset,
        "digits; shapes or shapes32, drawn from known factors at 64x64 or 32x32; a TFDS name such as mnist, cifar10 "
        "or dsprites; or the path of an .npz.",
    )  # fmt: skip
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared TFDS datasets; TFDS's own default if not given."
    )
    flags.DEFINE_enum(
        "condition", default.condition, get_args(settings.ConditionName), "label, or none for a plain VAE."
    )
    flags.DEFINE_enum(
        "network", default.network, get_args(settings.NetworkName),
        "mlp: two dense layers of 512 on either side; conv: stride-2 convolutions.",
    )  # fmt: skip
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
        "binarize", None, get_args(settings.Binarize),
        "dynamic draws binary pixels anew at every step, static once, none keeps grey pixels. "
        "Default: dynamic with the bernoulli likelihood, none otherwise.",
    )  # fmt: skip
    flags.DEFINE_list(
        "augment", list(default.augment),
        "What happens to training images at every step: any of "
        f"{', '.join(get_args(settings.Augmentation))}, with commas between.",
    )  # fmt: skip
    flags.DEFINE_integer("epochs", default.epochs, "Passes over the training split.")
    flags.DEFINE_integer("batch_size", default.batch_size, "Examples per step.")
    flags.DEFINE_integer("data_seed", default.data_seed, "Of the order of examples and their binarization.")
    flags.DEFINE_enum(
        "compute_dtype", default.compute_dtype, get_args(settings.ComputeDtype),
        "Of the matrix products; parameters and losses stay float32.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "objective", default.objective, get_args(settings.ObjectiveName),
        "elbo; free_bits: no latent's KL is pushed below --free_bits; capacity: beta times the KL's distance to "
        "--kl_target; iwae: the bound of --num_samples draws; dreg: its doubly-reparameterized gradient; "
        "tcvae: beta weighs the total correlation; dipvae_i, dipvae_ii: the latents' covariance is drawn to the "
        "identity; factorvae: total correlation by a discriminator; multirate: one network for all betas from "
        "--beta_min to --beta_max.",
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
    flags.DEFINE_string(
        "hidden", ",".join(map(str, default.hidden)),
        "Widths of the mlp encoder's dense layers, mirrored in the decoder.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "activation", default.activation, get_args(settings.ActivationName), "Of the mlp's dense layers."
    )
    flags.DEFINE_enum(
        "learning_rate_schedule", default.learning_rate_schedule, get_args(settings.LearningRateSchedule),
        "constant, or iwae: --learning_rate times 10^(-i/7) in stage i, which lasts 3^i epochs.",
    )  # fmt: skip
    flags.DEFINE_string("workdir", None, "Folder of the results; a name made of the settings if not given.")
    flags.DEFINE_integer("checkpoint_every", 10, "Epochs between checkpoints; the end is always one.")


def define_member_flags() -> None:
    """Flags of what may differ between the members of a sweep, one value each."""
    default = Member()
    flags.DEFINE_float("beta", default.beta, "Weight of the KL, in a loss summed over pixels and latents.")
    flags.DEFINE_integer("latent_dim", default.latent_dim, "Number of latents.")
    flags.DEFINE_float("learning_rate", default.learning_rate, "Of Adam.")
    flags.DEFINE_float("adam_epsilon", default.adam_epsilon, "Added to the root of Adam's second moment.")
    flags.DEFINE_float(
        "warmup_epochs", default.warmup_epochs, "Epochs over which beta rises, see --schedule."
    )
    flags.DEFINE_float("free_bits", default.free_bits, "Least KL per latent, nats, with that objective.")
    flags.DEFINE_float("kl_target", default.kl_target, "KL to end at, nats, with the objective capacity.")
    flags.DEFINE_float("mi_weight", default.mi_weight, "Weight of the mutual information, with tcvae.")
    flags.DEFINE_float("marginal_weight", default.marginal_weight, "Weight of the marginals' KL, with tcvae.")
    flags.DEFINE_float(
        "dip_off_diagonal", default.dip_off_diagonal, "Weight of the squared covariances, with dipvae."
    )
    flags.DEFINE_float(
        "dip_diagonal", default.dip_diagonal, "Weight of the variances' squared distance to 1, with dipvae."
    )
    flags.DEFINE_float("tc_weight", default.tc_weight, "Weight of the total correlation, with factorvae.")
    flags.DEFINE_float(
        "discriminator_learning_rate", default.discriminator_learning_rate, "Of Adam, with factorvae."
    )
    flags.DEFINE_float("beta_min", default.beta_min, "Least beta that multirate trains for.")
    flags.DEFINE_float("beta_max", default.beta_max, "Largest beta that multirate trains for.")
    flags.DEFINE_float("weight_decay", default.weight_decay, "Decoupled weight decay, as in AdamW.")
    flags.DEFINE_float(
        "clip_norm", default.clip_norm, "Largest global norm of the gradient; inf does not clip."
    )
    flags.DEFINE_float("dropout", default.dropout, "Probability that a hidden unit is dropped in a step.")
    flags.DEFINE_float(
        "ema_decay", default.ema_decay,
        "Of the exponential moving average of the parameters that all results use; 0 uses the latest parameters.",
    )  # fmt: skip
    flags.DEFINE_float(
        "patience", default.patience,
        "Epochs without a better validation loss, after the warm-up, before training stops; inf never stops.",
    )  # fmt: skip
    flags.DEFINE_integer("seed", default.seed, "Of the initialization and the latent noise.")


def define_grid_flags() -> None:
    """Flags of what differs between the members of a sweep, many values each."""
    default = Member()
    for name, text, help_text in (
        ("beta", f"{default.beta:g}", "Weights of the KL."),
        ("latent_dim", str(default.latent_dim), "Numbers of latents."),
        ("learning_rate", f"{default.learning_rate:g}", "Learning rates of Adam."),
        ("adam_epsilon", f"{default.adam_epsilon:g}", "Added to the root of Adam's second moment."),
        ("warmup_epochs", f"{default.warmup_epochs:g}", "Epochs over which beta rises, see --schedule."),
        ("free_bits", f"{default.free_bits:g}", "Least KLs per latent, nats, with that objective."),
        ("kl_target", f"{default.kl_target:g}", "KLs to end at, nats, with the objective capacity."),
        ("mi_weight", f"{default.mi_weight:g}", "Weights of the mutual information, with tcvae."),
        ("marginal_weight", f"{default.marginal_weight:g}", "Weights of the marginals' KL, with tcvae."),
        ("dip_off_diagonal", f"{default.dip_off_diagonal:g}", "Weights of the covariances, with dipvae."),
        ("dip_diagonal", f"{default.dip_diagonal:g}", "Weights of the variances, with dipvae."),
        ("tc_weight", f"{default.tc_weight:g}", "Weights of the total correlation, with factorvae."),
        (
            "discriminator_learning_rate",
            f"{default.discriminator_learning_rate:g}",
            "Learning rates of Adam, with factorvae.",
        ),
        ("beta_min", f"{default.beta_min:g}", "Least betas that multirate trains for."),
        ("beta_max", f"{default.beta_max:g}", "Largest betas that multirate trains for."),
        ("weight_decay", f"{default.weight_decay:g}", "Decoupled weight decays."),
        ("clip_norm", f"{default.clip_norm:g}", "Largest global norms of the gradient; inf does not clip."),
        ("dropout", f"{default.dropout:g}", "Probabilities that a hidden unit is dropped in a step."),
        ("ema_decay", f"{default.ema_decay:g}", "Of the parameters' moving averages; 0 uses the latest."),
        ("patience", f"{default.patience:g}", "Epochs without a better validation before a member stops."),
        ("seed", str(default.seed), "Seeds of the initialization and the latent noise."),
    ):
        flags.DEFINE_string(
            name, text,
            f"{help_text} Values with commas between, linspace(a,b,n), logspace(a,b,n), range(a,b), or with "
            "--num_random also uniform(a,b), loguniform(a,b).",
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
    return Config(
        **values | {"binarize": binarize, "augment": tuple(FLAGS.augment), "hidden": _widths(FLAGS.hidden)}
    )


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
