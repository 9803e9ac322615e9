"""Members of a sweep: all combinations or draws, counted before they are made, all different in float32."""

import math

import pytest

from cvae_jax.errors import SettingError
from cvae_jax.training.config import Config
from cvae_jax.training.grid import grid, members, random_search


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
