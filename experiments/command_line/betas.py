"""`--beta` of scripts that look at a trained model: where on its curve a multi-rate model is set to."""

from __future__ import annotations

from cvae_jax.errors import UserError
from cvae_jax.objectives import MultiRate
from cvae_jax.runs.run import Run
from cvae_jax.training.config import name_of
from cvae_jax.training.grid import Uniform
from experiments.command_line import lists


def chosen(run: Run, member: int, text: str) -> list[float]:
    """The values of β that a flag's text names.

    Raises:
      UserError: if the run has one β alone, or was not trained at one of these.
    """
    objective = run.members[member].objective
    if not isinstance(objective, MultiRate):
        raise UserError(
            f"beta is {text}, expected none: the objective is {name_of(run.config, 'objective')}, and only a multirate "
            "model has more than the one it was trained with"
        )
    values = lists.parse("beta", text, whole=False)
    if isinstance(values, Uniform):
        raise UserError(f"beta is {text!r}, a distribution: expected values")
    for value in values:
        # The ends of logspace are rounded.
        if not objective.beta_min * (1 - 1e-6) <= value <= objective.beta_max * (1 + 1e-6):
            raise UserError(
                f"beta is {value:g}, expected between {objective.beta_min:g} and {objective.beta_max:g}, where the "
                "model was trained"
            )
    return values
