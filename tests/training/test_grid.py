"""Members of a sweep: all combinations or draws, counted before they are made, all different in float32."""

import math

import pytest

from cvae_jax.errors import SettingError
from cvae_jax.training.config import Config, from_flat, traced_options
from cvae_jax.training.grid import Uniform, grid, members, random_search


def refused(call, *parts):
    """Assert that a call raises one line that holds all parts."""
    with pytest.raises(SettingError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message


def test_members_alike_in_float32_are_one_member_twice():
    with pytest.raises(SettingError, match=r"member 1 is member 0 again in float32 \(beta=1\.00000000001"):
        members(Config(), grid(beta=[1.0, 1.00000000001]))
    assert len(members(Config(), grid(clip_norm=[math.inf, 1.0]))) == 2


def test_grids_are_counted_before_they_are_made():
    axis = list(range(1, 1001))
    with pytest.raises(SettingError, match="the grid has 1,000,000,000 members, expected at most 100,000"):
        grid(beta=axis, latent_dim=axis, seed=axis)
    with pytest.raises(SettingError, match="num_random is 1000000000, expected at most 100,000"):
        random_search(Config(), 10**9, 0, beta=axis)


def test_random_searches_that_cannot_end_do_not_begin():
    with pytest.raises(SettingError, match="num_random is 90000, but only 6 different members were found"):
        random_search(Config(), 90_000, 0, beta=[1.0, 2.0, 2.0], latent_dim=[1, 2, 3])


def test_an_option_that_shapes_the_program_is_no_axis():
    with pytest.raises(
        SettingError, match="batch_size has several values, expected one: it shapes the program"
    ):
        members(Config(), grid(batch_size=[16, 32]))


# All combinations


def of_grid(**axes):
    return members(Config(), grid(**axes))


def test_the_last_axis_changes_fastest():
    found = of_grid(beta=[1.0, 4.0], latent_dim=[2, 8], seed=[0, 1, 2])
    settings = [(m.objective.beta, m.latent_dim, m.seed) for m in found]
    assert settings == [(b, d, s) for b in (1.0, 4.0) for d in (2, 8) for s in (0, 1, 2)]


def test_settings_not_named_keep_their_default():
    assert of_grid(beta=[2.0]) == (from_flat(beta=2.0),)
    assert of_grid() == (Config(),)


def test_an_empty_grid_is_refused():
    refused(lambda: grid(beta=[1.0], seed=[]), "seed has no values", "the grid is empty")


def test_a_member_that_comes_twice_is_refused():
    message = "member 2 is member 0 again (beta=1.0"
    refused(lambda: of_grid(beta=[1.0, 2.0, 1.0]), message, "expected all different")
    refused(lambda: members(Config(), ({}, {})), "member 1 is member 0 again")


def test_a_value_that_no_training_can_use_is_refused():
    refused(lambda: of_grid(beta=[1.0, -1.0]), "beta is -1.0, expected a finite number ≥ 0")


# Random search


AXES = {
    "beta": Uniform(0.1, 10.0, log=True),
    "latent_dim": Uniform(2, 4),
    "learning_rate": Uniform(1e-4, 1e-2),
    "clip_norm": [1.0, math.inf],
    "seed": [0],
}


def drawn(num, search_seed, **axes):
    return members(Config(), random_search(Config(), num, search_seed, **axes))


def test_draws_lie_between_the_ends():
    options = [traced_options(member) for member in drawn(300, 0, **AXES)]
    assert len({tuple(each.values()) for each in options}) == 300
    assert all(0.1 <= m["beta"] <= 10 and 1e-4 <= m["learning_rate"] <= 1e-2 for m in options)
    assert {m["latent_dim"] for m in options} == {2, 3, 4}
    assert {m["clip_norm"] for m in options} == {1.0, math.inf}
    assert all(type(value) in (int, float) for value in options[0].values())
    # The logarithm is uniform: as many below 1 as above.
    assert 120 < sum(m["beta"] < 1 for m in options) < 180
    # Ends are as likely as what lies between them.
    assert 70 < sum(m["latent_dim"] == 2 for m in options) < 130


def test_draws_are_reproducible_and_more_of_them_begin_alike():
    found = drawn(8, 3, **AXES)
    assert found == drawn(8, 3, **AXES)
    assert found[:5] == drawn(5, 3, **AXES)
    assert found != drawn(8, 4, **AXES)


def test_too_few_different_members_are_refused():
    refused(lambda: drawn(4, 0, beta=[1.0, 2.0]), "num_random is 4, but only 2 different members were found")
    refused(lambda: drawn(0, 0), "num_random is 0, expected a whole number ≥ 1")
    refused(lambda: drawn(1, -1), "search_seed is -1, expected a whole number ≥ 0")


def test_options_of_hooks_are_drawn_and_others_refused():
    found = drawn(4, 0, ema_decay=Uniform(0.1, 0.9), seed=Uniform(0, 3))
    assert all(0.1 <= member.hooks[0].ema_decay <= 0.9 for member in found)
    assert all(type(member.seed) is int for member in found)
    refused(
        lambda: drawn(2, 0, mi_weight=Uniform(0, 1)), "mi_weight is 1, expected none with the objective elbo"
    )
    refused(lambda: drawn(2, 0, depth=Uniform(0, 1)), "unknown option 'depth'")
