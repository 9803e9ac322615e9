"""`--beta` of scripts that look at a trained model: where on its curve a multi-rate model is set to."""

from __future__ import annotations

from cvae_jax.config import Member

from cvae_jax.errors import UserError
from cvae_jax.training.grid import Uniform
from experiments import lists
from experiments.workdir import Run


def chosen(run: Run, member: int, text: str) -> list[float]:
    """The values of β that a flag's text names.

    Raises:
      UserError: if the run has one β alone, or was not trained at one of these.
    """
    if run.config.objective != "multirate":
        raise UserError(
            f"beta is {text}, expected none: the objective is {run.config.objective}, and only a multirate model has "
            "more than the one it was trained with"
        )
    values = lists.parse("beta", text, whole=False)
    if isinstance(values, Uniform):
        raise UserError(f"beta is {text!r}, a distribution: expected values")
    settings: Member = run.members[member]
    for value in values:
        # The ends of logspace are rounded.
        if not settings.beta_min * (1 - 1e-6) <= value <= settings.beta_max * (1 + 1e-6):
            raise UserError(
                f"beta is {value:g}, expected between {settings.beta_min:g} and {settings.beta_max:g}, where the model "
                "was trained"
            )
    return values
