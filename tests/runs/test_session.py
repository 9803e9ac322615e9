"""A run with its dataset and model, and what it needs of memory."""

import pytest

from cvae_jax.errors import SettingError
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import open_session
from cvae_jax.training import memory
from cvae_jax.training.config import from_flat


def a_run(**options):
    return Run("train", (from_flat(**options),))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden": (2**31 - 1, 2**31 - 1)}, "hidden is 2147483647,2147483647, latent_dim is 16"),
        ({"latent_dim": 2**31 - 1}, "latent_dim is 2147483647"),
        ({"objective": "iwae", "num_samples": 2**31 - 1}, "num_samples is 2147483647"),
        ({"prior": "vamp", "pseudo_inputs": 2**31 - 1}, "pseudo_inputs is 2147483647"),
        ({"objective": "factorvae", "discriminator_width": 2**31 - 1}, "discriminator_width is 2147483647"),
        ({"prior": "mixture", "mixture_parts": 2**31 - 1}, "mixture_parts is 2147483647"),
    ],
)
def test_models_that_no_memory_holds_are_refused_before_anything_is_made(tmp_path, settings, named):
    with pytest.raises(SettingError) as error:
        open_session(a_run(**settings), tmp_path)
    assert named in str(error.value)
    assert "this takes at least " in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_is_free_may_be_taken():
    memory.require_free("num is 1", 1)
    with pytest.raises(
        SettingError, match=r"num is 1: this takes at least \S+ GiB .* expected at most the \S+ GiB"
    ):
        memory.require_free("num is 1", 2**60)
