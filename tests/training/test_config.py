"""Configurations: parts that can be combined, options by flat name and their owners, and schedules of options."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.conditions import Label, Text
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import GaussianLearned
from cvae_jax.networks import MLP, Conv
from cvae_jax.objectives import OBJECTIVES, Elbo, FreeBits, TotalCorrelation
from cvae_jax.options import static
from cvae_jax.priors import PRIORS, Conditional
from cvae_jax.training.config import (
    TABLES,
    Config,
    Scheduled,
    at,
    flat,
    from_flat,
    owners,
    owners_of,
    replace,
    traced_options,
)
from cvae_jax.training.hooks import HOOKS, ConditionFirst, MovingAverage, UnitDropout
from cvae_jax.training.optimizer import AdamW
from cvae_jax.training.schedules import CosineDecay, CosineWarmup, CyclicalWarmup, LinearWarmup, Time

# What objectives can be combined with, where not with every prior.
PRIORS_OF = {
    **dict.fromkeys(("free_bits", "tcvae", "dipvae_i", "dipvae_ii", "factorvae", "nn"), ("standard",)),
    "gsnn": ("conditional",),
    "hybrid": ("conditional", "mixture", "vamp", "flow"),
    "multirate": ("standard", "conditional", "mixture", "flow"),
}


# What can be combined


@pytest.mark.parametrize(("objective", "prior"), list(itertools.product(OBJECTIVES, PRIORS)))
def test_an_objective_names_the_priors_it_can_be_combined_with(objective, prior):
    possible = PRIORS_OF.get(objective, tuple(PRIORS))
    if prior in possible:
        config = from_flat(objective=objective, prior=prior)
        assert (type(config.objective), type(config.prior)) == (OBJECTIVES[objective], PRIORS[prior])
    else:
        message = f"prior is '{prior}', expected {' or '.join(possible)} with the objective {objective}$"
        with pytest.raises(SettingError, match=message):
            from_flat(objective=objective, prior=prior)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_several_draws_need_a_variance_that_is_not_fitted_to_one(objective):
    others = "bernoulli or continuous_bernoulli or gaussian or gaussian_learned or logistic_mixture"
    message = f"likelihood is 'gaussian_optimal', expected {others} with the objective {objective}$"
    with pytest.raises(SettingError, match=message):
        from_flat(objective=objective, likelihood="gaussian_optimal")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prior": "conditional"},
            "prior is 'conditional', expected standard, vamp, flow without a condition",
        ),
        ({"prior": "mixture"}, "prior is 'mixture', expected standard, vamp, flow without a condition"),
        ({"condition_dropout": 0.1}, "condition_dropout is 0.1, expected 0 without a condition"),
        ({"condition_first_epochs": 2.0}, "condition_first_epochs is 2.0, expected 0 without a condition"),
    ],
)
def test_what_needs_a_condition_is_refused_without_one(options, message):
    with pytest.raises(SettingError, match=message):
        from_flat(condition="none", **options)


def test_a_hook_that_is_off_needs_no_condition():
    (hook,) = from_flat(condition="none", condition_first_epochs=0.0).hooks
    assert hook == ConditionFirst()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": "observed,label"}, "condition is 'observed,label', expected observed alone"),
        ({"condition": "none,label"}, "condition is 'none,label', expected none alone"),
        ({"condition": "smell"}, "condition is 'smell', expected one of label, vector, image"),
        (
            {"condition": "observed", "likelihood": "gaussian"},
            "condition is 'observed', expected it with the bernoulli likelihood .* binarize is 'none'",
        ),
        (
            {"condition": "text,label", "condition_feature": ("caption",)},
            "condition_feature is caption, expected one for each of the 2 conditions",
        ),
        (
            {"likelihood": "gaussian", "binarize": "dynamic"},
            "binarize is 'dynamic', expected none with the gaussian likelihood",
        ),
        (
            {"augment": ("shift", "rotate"), "binarize": "static"},
            "augment is shift,rotate, expected neither rotate nor scale with binarize='static'",
        ),
    ],
)
def test_data_and_conditions_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**options)


@pytest.mark.parametrize("objective", ["multirate", "gsnn", "nn"])
def test_an_objective_without_anything_annealed_has_no_warm_up(objective):
    fields = {"objective": objective, "prior": "conditional" if objective == "gsnn" else "standard"}
    assert from_flat(**fields, warmup_epochs=0.0).schedule == LinearWarmup()
    message = f"warmup_epochs is 3.0, expected 0 with the objective {objective}, which has nothing that rises"
    with pytest.raises(SettingError, match=message):
        from_flat(**fields, warmup_epochs=3.0)


def test_a_network_without_latents_has_no_number_of_them():
    with pytest.raises(
        SettingError, match="latent_dim is 8, expected none with the objective nn, which uses no"
    ):
        from_flat(objective="nn", latent_dim=8)


# Options by flat name


def test_flat_options_make_the_configuration_they_are_of():
    config = Config(
        network=Conv(), likelihood=GaussianLearned(sigma=0.3), prior=Conditional(), objective=Elbo(beta=2.0),
        optimizer=AdamW(weight_decay=0.1), schedule=CosineWarmup(warmup_epochs=2.0), hooks=(UnitDropout(0.1),),
        learning_rate_schedule=CosineDecay(), condition=(Text(), Label()), latent_dim=3, patience=5.0,
    )  # fmt: skip
    options = flat(config)
    chosen = {
        "network": "conv",
        "prior": "conditional",
        "condition": "text,label",
        "sigma": 0.3,
        "dropout": 0.1,
    }
    assert chosen.items() <= options.items()
    assert from_flat(**options) == config


@pytest.mark.parametrize("kind", TABLES)
def test_every_choice_can_be_made_by_name(kind):
    for name, part in TABLES[kind].items():
        needed = {"gsnn": {"prior": "conditional"}, "hybrid": {"prior": "conditional"}}.get(name, {})
        config = from_flat(**{kind: name, **needed})
        assert getattr(config, kind) == part()
        options = flat(config)
        if not config.objective.uses_latents:
            del options["latent_dim"]
        assert from_flat(**options) == config


def test_replacing_an_option_keeps_the_others():
    config = from_flat(
        objective="tcvae", beta=2.0, mi_weight=3.0, network="conv", condition="label", dropout=0.1
    )
    changed = replace(config, beta=4.0, dropout=0.2, epochs=7)
    expected = flat(config) | {"beta": 4.0, "dropout": 0.2, "epochs": 7}
    assert flat(changed) == expected
    assert replace(config) == config


def test_a_choice_may_be_a_part():
    config = from_flat(network=MLP(hidden=(3,)), objective=FreeBits(free_bits=0.5), condition=Label())
    assert (config.network.hidden, config.objective.free_bits, config.condition) == ((3,), 0.5, (Label(),))
    assert Config(condition=Label()) == Config(condition=(Label(),))


@pytest.mark.parametrize("option", HOOKS)
def test_an_option_of_a_hook_switches_the_hook_on(option):
    assert Config().hooks == ()
    # An application's hook of captions needs such a prior.
    (hook,) = from_flat(prior="conditional", **{option: 0.5}).hooks
    assert type(hook) is HOOKS[option]
    assert getattr(hook, option) == 0.5
    (changed,) = replace(Config(prior=Conditional(), hooks=(hook,)), **{option: 0.25}).hooks
    assert getattr(changed, option) == 0.25


# Owners


def test_every_option_has_one_owner():
    found = owners(from_flat(condition="label", ema_decay=0.9))
    where = {name: found[name].where for name in ("beta", "hidden", "dataset", "ema_decay", "latent_dim")}
    assert where == {
        "beta": "the objective elbo", "hidden": "the network mlp", "dataset": "the data",
        "ema_decay": "the hook MovingAverage", "latent_dim": "",
    }  # fmt: skip
    assert (found["ema_decay"].path, found["beta"].path) == (("hooks", 0), ("objective",))
    assert owners_of("num_samples") == [("objective", "iwae"), ("objective", "dreg")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mi_weight": 2.0},
            "mi_weight is 2.0, expected none with the objective elbo: .* the objective tcvae$",
        ),
        (
            {"sigma": 0.2},
            "sigma is 0.2, expected none with the likelihood bernoulli: it is an option of the likelihood gaussian or "
            "gaussian_learned$",
        ),
        (
            {"pseudo_inputs": 5},
            "pseudo_inputs is 5, expected none with the prior standard: .* the prior vamp$",
        ),
        (
            {"observed": 2},
            "observed is 2, expected none with the condition of the data: .* the condition observed$",
        ),
        (
            {"observed": 2, "condition": "label"},
            "observed is 2, expected none with the condition label: it is",
        ),
    ],
)
def test_an_option_whose_owner_is_not_chosen_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learning_rat", r"unknown option 'learning_rat', did you mean learning_rate"),
        ("mi_wieght", r"unknown option 'mi_wieght', did you mean mi_weight"),
        ("qqq", r"unknown option 'qqq'$"),
    ],
)
def test_an_unknown_option_is_refused_with_a_suggestion(name, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**{name: 1.0})


def test_two_owners_of_one_name_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Weighted(MLP):
        beta: float = static(1.0, help="Of something else.")

    with pytest.raises(
        SettingError, match=r"beta is an option of the network .*Weighted and of the objective elbo"
    ):
        Config(network=Weighted())

    @dataclasses.dataclass(frozen=True)
    class Seeded(Elbo):
        seed: int = static(1, help="Of something else.")

    with pytest.raises(
        SettingError, match=r"seed is an option of every configuration and of the objective .*Seeded"
    ):
        Config(objective=Seeded())


def test_a_hook_twice_is_refused():
    with pytest.raises(SettingError, match="hooks has MovingAverage twice, expected each hook at most once"):
        Config(hooks=(MovingAverage(0.9), UnitDropout(0.1), MovingAverage(0.5)))


# Traced options


def test_traced_options_are_those_that_members_may_differ_in():
    config = from_flat(objective="tcvae", mi_weight=2.0, network="conv", dropout=0.1, schedule="cosine")
    assert traced_options(config) == {
        "latent_dim": 16, "seed": 0, "patience": math.inf, "beta": 1.0, "mi_weight": 2.0, "marginal_weight": 1.0,
        "warmup_epochs": 0.0, "learning_rate": 1e-3, "adam_epsilon": 1e-8, "weight_decay": 0.0,
        "clip_norm": math.inf, "dropout": 0.1,
    }  # fmt: skip


def test_traced_options_are_the_leaves_of_a_configuration():
    config = from_flat(objective="dreg", num_samples=3, ema_decay=0.5, condition="label")
    assert len(jax.tree.leaves(config)) == len(traced_options(config))
    doubled = jax.tree.map(lambda value: 2 * value, config)
    assert traced_options(doubled) == {name: 2 * value for name, value in traced_options(config).items()}
    assert jax.tree.structure(replace(config, beta=3.0, seed=4)) == jax.tree.structure(config)
    assert jax.tree.structure(replace(config, num_samples=4)) != jax.tree.structure(config)


# Schedules


def at_step(config, step, epochs=4):
    return at(config, Time(jnp.int32(step), steps_per_epoch=10, epochs=epochs))


def test_each_option_follows_its_own_schedule():
    config = from_flat(
        objective=TotalCorrelation(beta=4.0, mi_weight=3.0), schedule=LinearWarmup(2.0), learning_rate=1e-2,
        learning_rate_schedule="cosine", dropout=0.2, ema_decay=0.9,
        schedules=(Scheduled("mi_weight", CyclicalWarmup(1.0)), Scheduled("dropout", CosineWarmup(4.0)),
                   Scheduled("weight_decay", CosineDecay())),
        weight_decay=0.1,
    )  # fmt: skip
    for step in (0, 3, 5, 10, 17, 25, 39, 40):
        cosine = 0.5 * (1 + np.cos(np.pi * min(step // 10, 4) / 4))
        changed = {
            "beta": 4.0 * min(step / 20, 1),
            "mi_weight": 3.0 * min(2 * (step / 10 % 1), 1),
            "learning_rate": 1e-2 * cosine,
            "weight_decay": 0.1 * cosine,
            "dropout": 0.2 * 0.5 * (1 - np.cos(np.pi * min(step / 40, 1))),
        }
        found = traced_options(at_step(config, step))
        expected = traced_options(config) | changed
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_schedules_of_one_option_multiply():
    config = from_flat(beta=4.0, warmup_epochs=2.0, schedules=(Scheduled("beta", CosineDecay()),))
    np.testing.assert_allclose(at_step(config, 10).objective.beta, 4.0 * 0.5 * 0.5 * (1 + 2**-0.5), rtol=1e-6)


def test_without_schedules_a_configuration_stays_as_it_is():
    config = from_flat(objective="nn", learning_rate=0.1)
    assert at_step(config, 25) is config
    # A warm-up of 0 epochs is an array in the program, since members may differ in it.
    assert traced_options(at_step(from_flat(beta=2.0), 0))["beta"] == 2.0


@pytest.mark.parametrize(
    "option", ["latent_dim", "seed", "patience", "hidden", "mi_weight", "ema_decay", "betta", "warmup_epochs"]
)
def test_what_no_step_reads_has_no_schedule(option):
    possible = "beta, learning_rate, adam_epsilon, weight_decay, clip_norm, dropout$"
    with pytest.raises(SettingError, match=f"schedules has one of '{option}', expected one of {possible}"):
        from_flat(schedules=(Scheduled(option, CosineDecay()),), dropout=0.1, condition_first_epochs=1.0)
