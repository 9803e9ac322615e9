"""The configuration of a training: its parts, and their options by flat names, as on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from cvae_jax.conditions import CONDITIONS
from cvae_jax.conditions.base import Condition
from cvae_jax.data.settings import Data
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import LIKELIHOODS, Bernoulli
from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.networks import MLP, NETWORKS
from cvae_jax.networks.base import Network
from cvae_jax.objectives import OBJECTIVES, Elbo
from cvae_jax.objectives.base import Need, Objective
from cvae_jax.options import (
    COUNT,
    EPOCHS,
    SEED,
    Option,
    Part,
    Real,
    Table,
    options_of,
    static,
    traced,
    with_values,
)
from cvae_jax.priors import PRIORS, Standard
from cvae_jax.priors.base import Prior
from cvae_jax.training.hooks import HOOKS, FittedVariance, Hook, is_on
from cvae_jax.training.optimizer import OPTIMIZERS, AdamW, Optimizer
from cvae_jax.training.schedules import (
    LEARNING_RATE_SCHEDULES,
    WARMUPS,
    Constant,
    LinearWarmup,
    Schedule,
    Time,
    Warmup,
)

# The choices by the name of the field and flag that selects one.
TABLES: dict[str, Table] = {
    "network": NETWORKS,
    "likelihood": LIKELIHOODS,
    "prior": PRIORS,
    "objective": OBJECTIVES,
    "schedule": WARMUPS,
    "learning_rate_schedule": LEARNING_RATE_SCHEDULES,
    "optimizer": OPTIMIZERS,
}


@dataclasses.dataclass(frozen=True)
class Scheduled(Part):
    """A schedule of one option.

    Attributes:
      option: flat name of the traced option.
      schedule: its factor over the steps.
    """

    option: str
    schedule: Schedule


@dataclasses.dataclass(frozen=True)
class Config(Part):
    """All settings of one training. Members of a sweep can differ only in traced options.

    Attributes:
      data: the dataset, and what happens to its examples.
      condition: what c is made of, one or several; None for what the dataset is made for, () for a plain VAE.
      network, likelihood, prior, objective, optimizer: the parts.
      schedule: factor of the objective's annealed option, mostly β.
      learning_rate_schedule: factor of the learning rate.
      schedules: factors of further options of the objective, the optimizer and hooks.
      hooks: optional features of a training step.

    Example:
      >>> from cvae_jax.networks import Conv
      >>> config = Config(network=Conv(), objective=Elbo(beta=2.0), latent_dim=8)
      >>> flat(config)["beta"], flat(replace(config, beta=4.0))["beta"]
      (2.0, 4.0)
    """

    data: Data = Data()
    condition: tuple[Condition, ...] | None = None
    network: Network = MLP()
    likelihood: Likelihood = Bernoulli()
    prior: Prior = Standard()
    objective: Objective = Elbo()
    optimizer: Optimizer = AdamW()
    schedule: Warmup = LinearWarmup()
    learning_rate_schedule: Schedule = Constant()
    schedules: tuple[Scheduled, ...] = ()
    hooks: tuple[Hook, ...] = ()
    latent_dim: int = traced(16, bounds=COUNT, help="Number of latent dimensions.")
    seed: int = traced(0, bounds=SEED, help="Seed of the initial weights and of the draws of z.")
    patience: float = traced(
        math.inf,
        bounds=Real(1.0, infinite="never stops", what="number of epochs"),
        help="Stop after so many epochs without a better validation loss, counted from the end of --warmup_epochs and "
        "--condition_first_epochs at the earliest.",
    )
    batch_size: int = static(128, bounds=COUNT, help="Examples per training step.")
    epochs: int = static(100, bounds=COUNT, help="Passes over the training split.")
    compute_dtype: str = static(
        "float32",
        choices=("float32", "bfloat16"),
        help="Type of the matrix products; parameters, losses and the optimizer stay float32.",
    )
    conditioning: str = static(
        "concat",
        choices=("concat", "film"),
        help="How the condition enters each layer: concat adds a term to every channel, film also scales it.",
    )
    share_condition: bool = static(
        True, help="Whether encoder, decoder and prior share the network that embeds the condition."
    )

    def check(self) -> None:
        """Refuse parts that cannot be combined."""
        if isinstance(self.condition, Condition):
            object.__setattr__(self, "condition", (self.condition,))
        kinds = [type(hook) for hook in self.all_hooks]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise SettingError(f"hooks has {kind.__name__} twice, expected each hook at most once")
        owners(self)
        _check_needs(self)
        _check_schedules(self)
        _check_condition(self)
        _check_data(self)
        if self.batch_size < self.objective.smallest_batch:
            raise SettingError(
                f"batch_size is {self.batch_size}, expected ≥ {self.objective.smallest_batch} with the objective "
                f"{name_of(self, 'objective')}: it compares the latents of a batch"
            )
        if not self.objective.annealed and self.schedule.warmup_epochs:
            raise SettingError(
                f"warmup_epochs is {self.schedule.warmup_epochs}, expected 0 with the objective "
                f"{name_of(self, 'objective')}, which has nothing that rises"
            )

    @property
    def binarize(self) -> str:
        """How grey pixels become binary: `dynamic`, `static`, or `none`."""
        return self.data.binarization(self.likelihood)

    @property
    def all_hooks(self) -> tuple[Hook, ...]:
        """All hooks: those of the configuration, and the one that a likelihood with a fitted variance adds."""
        return (*self.hooks, *((FittedVariance(),) if self.likelihood.fits_batch else ()))


def name_of(config: Config, kind: str) -> str:
    """The name of the network, likelihood, prior, condition, … of a configuration.

    Several conditions are separated by commas. `none` means no condition, `data` means that the dataset decides.
    """
    if kind != "condition":
        return TABLES[kind].name_of(getattr(config, kind))
    if config.condition is None:
        return "data"
    return ",".join(map(CONDITIONS.name_of, config.condition)) or "none"


def _names(kind: str, need: Need) -> str:
    return " or ".join(name for name, part in TABLES[kind].items() if need.holds(part))


def _check_needs(config: Config) -> None:
    users = [(f"the objective {name_of(config, 'objective')}", config.objective)]
    users += [
        (next(iter(options_of(type(hook))), type(hook).__name__), hook)
        for hook in config.hooks
        if is_on(hook)
    ]
    for user, part in users:
        for need in part.needs:
            if not need.holds(getattr(config, need.kind)):
                raise SettingError(
                    f"{need.kind} is {name_of(config, need.kind)!r}, expected {_names(need.kind, need)} with {user}"
                )


def _check_schedules(config: Config) -> None:
    for each in config.schedules:
        possible = [name for name, owner in owners(config).items() if _is_scalable(owner)]
        if each.option not in possible:
            raise SettingError(f"schedules has one of {each.option!r}, expected one of {', '.join(possible)}")


def _is_scalable(owner: Owner) -> bool:
    """Whether an option can change over the steps of a training; a number of epochs is of the whole."""
    in_step = owner.path[:1] in (("objective",), ("optimizer",), ("hooks",))
    return in_step and owner.option.traced and owner.option.bounds is not EPOCHS


def _check_condition(config: Config) -> None:
    conditions = config.condition
    if conditions is None:
        return
    if len(conditions) > 1 and any(condition.fixes_output for condition in conditions):
        raise SettingError(f"condition is {name_of(config, 'condition')!r}, expected observed alone")
    if any(condition.fixes_output for condition in conditions) and config.binarize == "none":
        raise SettingError(
            "condition is 'observed', expected it with the bernoulli likelihood of binary pixels: "
            "binarize is 'none'"
        )
    features = config.data.condition_feature
    if features and len(features) != len(conditions):
        raise SettingError(
            f"condition_feature is {','.join(features)}, expected one for each of the {len(conditions)} conditions"
        )
    if not conditions:
        require_without_condition(config)


def require_without_condition(config: Config) -> None:
    """For a model without a condition: refuse parts that need one.

    Raises:
      SettingError: naming the part.
    """
    if config.prior.needs_condition:
        free = [name for name, prior in PRIORS.items() if not cast("type[Prior]", prior).needs_condition]
        raise SettingError(
            f"prior is {name_of(config, 'prior')!r}, expected {', '.join(free)} without a condition"
        )
    for hook in config.hooks:
        if hook.needs_condition and is_on(hook):
            option = next(iter(options_of(type(hook))))
            raise SettingError(f"{option} is {getattr(hook, option)}, expected 0 without a condition")


def _check_data(config: Config) -> None:
    if config.binarize != "none" and not config.likelihood.binary:
        raise SettingError(
            f"binarize is {config.binarize!r}, expected none with the {name_of(config, 'likelihood')} likelihood"
        )
    if config.binarize == "static" and {"rotate", "scale"} & set(config.data.augment):
        raise SettingError(
            f"augment is {','.join(config.data.augment)}, expected neither rotate nor scale with binarize='static': "
            "they would make binary pixels grey"
        )


class Owner(NamedTuple):
    """The place of an option in a configuration.

    Attributes:
      where: what a person calls its owner, such as `the objective elbo`; empty for the configuration itself.
      path: names of fields and indices of tuples, from the configuration to the part.
      part: the owner.
      option: what is known of the option.
    """

    where: str
    path: tuple[str | int, ...]
    part: Part
    option: Option


def parts_of(config: Config) -> Iterator[tuple[str, tuple[str | int, ...], Part]]:
    """All parts of a configuration: the name, the path and the object of each."""
    yield "", (), config
    yield "the data", ("data",), config.data
    for i, condition in enumerate(config.condition or ()):
        yield f"the condition {CONDITIONS.name_of(condition)}", ("condition", i), condition
    for kind in TABLES:
        yield f"the {kind} {name_of(config, kind)}", (kind,), getattr(config, kind)
    for i, hook in enumerate(config.hooks):
        yield f"the hook {type(hook).__name__}", ("hooks", i), hook


def owners(config: Config) -> dict[str, Owner]:
    """All options of a configuration by flat name.

    Raises:
      SettingError: if two parts have an option of the same name.
    """
    found: dict[str, Owner] = {}
    for where, path, part in parts_of(config):
        for name, option in options_of(type(part)).items():
            if name in found:
                raise SettingError(
                    f"{name} is an option of {found[name].where or 'every configuration'} and of {where}, expected "
                    "different names"
                )
            found[name] = Owner(where, path, part, option)
    return found


def flat(config: Config) -> dict[str, Any]:
    """All choices and options of a configuration by flat name, as `from_flat` takes them."""
    choices: dict[str, Any] = {kind: name_of(config, kind) for kind in TABLES}
    if config.condition is not None:
        choices["condition"] = name_of(config, "condition")
    return choices | {name: getattr(owner.part, name) for name, owner in owners(config).items()}


def from_flat(**options: Any) -> Config:
    """Make a configuration from choices and options by flat name, the names of the command line.

    Example:
      >>> from_flat(objective="tcvae", mi_weight=2.0, latent_dim=4).objective
      TotalCorrelation(beta=1.0, mi_weight=2.0, marginal_weight=1.0, stratified=True)

    Raises:
      SettingError: naming an option that does not exist, whose owner is not chosen, or whose value cannot be used.
    """
    return replace(Config(), **options)


def replace(config: Config, **options: Any) -> Config:
    """A configuration with other choices and options, by flat name.

    Choices are names, as on the command line, or parts. A hook's first option adds the hook.

    Raises:
      SettingError: as `from_flat`.
    """
    changed: dict[str, Any] = {}
    for kind, table in TABLES.items():
        if kind in options:
            changed[kind] = _chosen(table, options.pop(kind), getattr(config, kind))
    if "condition" in options:
        changed["condition"] = conditions_of(options.pop("condition"), config.condition)
    for name in ("data", "hooks", "schedules"):
        if name in options:
            changed[name] = options.pop(name)
    # Parts are combined once, with all their options.
    draft = with_values(config, **changed)
    draft = with_values(draft, hooks=(*draft.hooks, *_new_hooks(draft, options)))
    known = owners(draft)
    values: dict[tuple[str | int, ...], dict[str, Any]] = {(kind,): {} for kind in TABLES}
    for name, value in options.items():
        if name not in known:
            raise SettingError(_unknown(draft, name, value))
        if name == "latent_dim" and not draft.objective.uses_latents:
            raise SettingError(
                f"latent_dim is {value}, expected none with the objective {name_of(draft, 'objective')}, which uses "
                "no latents"
            )
        values.setdefault(known[name].path, {})[name] = value
    own = values.pop((), {})
    fields: dict[str, Any] = {field.name: getattr(draft, field.name) for field in dataclasses.fields(Config)}
    for (field, *index), changes in values.items():
        if index:
            parts = list(fields[str(field)])
            parts[int(index[0])] = dataclasses.replace(parts[int(index[0])], **changes)
            fields[str(field)] = tuple(parts)
        else:
            fields[str(field)] = dataclasses.replace(fields[str(field)], **changes)
    return Config(**fields | own)


def _chosen(table: Table, choice: Any, current: Part) -> Part:
    """The part of a choice: the current one if it is of that name, else one that keeps what options they share."""
    if isinstance(choice, Part):
        return choice
    part = table.find(choice)
    if type(current) is part:
        return current
    shared = options_of(part).keys() & options_of(type(current)).keys()
    return with_values(part(), **{name: getattr(current, name) for name in shared})


def conditions_of(choice: Any, current: tuple[Condition, ...] | None = None) -> tuple[Condition, ...] | None:
    """Turn a choice into conditions: it is names separated by commas, `none`, None, or the conditions themselves."""
    if choice is None or isinstance(choice, tuple):
        return choice
    if isinstance(choice, Condition):
        return (choice,)
    names = [] if choice == "none" else choice.split(",")
    if "none" in names:
        raise SettingError(f"condition is {choice!r}, expected none alone")
    known = {CONDITIONS.name_of(condition): condition for condition in current or ()}
    return tuple(known[name] if name in known else CONDITIONS.find(name)() for name in names)  # pyright: ignore[reportReturnType]


def _new_hooks(config: Config, options: Mapping[str, Any]) -> list[Hook]:
    """The hooks that options switch on."""
    present = {type(hook) for hook in config.hooks}
    return [HOOKS[name]() for name in HOOKS if name in options and HOOKS[name] not in present]  # pyright: ignore[reportReturnType]


def owners_of(name: str) -> list[tuple[str, str]]:
    """The choices that have this option, as pairs such as ("likelihood", "gaussian").

    Example:
      >>> owners_of("sigma")
      [('likelihood', 'gaussian'), ('likelihood', 'gaussian_learned')]
    """
    tables = {**TABLES, "condition": CONDITIONS, "hook": HOOKS}
    return [
        (kind, choice) for kind, table in tables.items() for choice, part in table.items()
        if name in options_of(part)
    ]  # fmt: skip


def _unknown(config: Config, name: str, value: Any) -> str:
    """Why an option cannot be set."""
    found = owners_of(name)
    if not found:
        known = {*TABLES, "condition", *owners(config)}
        known |= {option for table in (*TABLES.values(), CONDITIONS, HOOKS) for part in table.values()
                  for option in options_of(part)}  # fmt: skip
        close = difflib.get_close_matches(name, sorted(known), n=2)
        return f"unknown option {name!r}" + (f", did you mean {' or '.join(close)}?" if close else "")
    kind = found[0][0]
    names = " or ".join(choice for _, choice in found)
    if kind == "hook":
        return f"{name} is {value}, expected none without {names}"
    if kind == "condition":
        chosen = "of the data" if config.condition is None else name_of(config, "condition")
    else:
        chosen = name_of(config, kind)
    return f"{name} is {value}, expected none with the {kind} {chosen}: it is an option of the {kind} {names}"


def traced_options(config: Config) -> dict[str, Any]:
    """The options that may differ between the members of a sweep, by flat name."""
    return {name: getattr(owner.part, name) for name, owner in owners(config).items() if owner.option.traced}


def at(config: Config, time: Time) -> Config:
    """The configuration at a time of the training: traced options are multiplied by their schedules.

    Args:
      config: of one member, its traced options arrays.
      time: of the step.
    """
    schedules = [
        (config.objective.annealed, config.schedule),
        ("learning_rate", config.learning_rate_schedule),
        *((each.option, each.schedule) for each in config.schedules),
    ]
    known = owners(config)
    for name, schedule in schedules:
        if name and not isinstance(schedule, Constant):
            config = _scaled(config, known[name].path, name, schedule.factor(time))
    return config


def _scaled(config: Config, path: tuple[str | int, ...], name: str, factor: Any) -> Config:
    """The configuration with one option multiplied by a factor."""
    if not path:
        return with_values(config, **{name: getattr(config, name) * factor})
    field, *index = path
    if not index:
        part = getattr(config, str(field))
        return with_values(config, **{str(field): with_values(part, **{name: getattr(part, name) * factor})})
    parts = list(getattr(config, str(field)))
    part = parts[int(index[0])]
    parts[int(index[0])] = with_values(part, **{name: getattr(part, name) * factor})
    return with_values(config, **{str(field): tuple(parts)})
