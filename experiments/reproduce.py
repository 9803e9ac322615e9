"""Repeat a published result: `python -m experiments.reproduce --experiment=iwae-k5 --stages=4`.

Trains the network of the paper, on its data and by its schedule, or by the first stages of that schedule: the same
command with more stages continues such a run. docs/results.md lists what differs from the paper's code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.runs.run import Run
from cvae_jax.training.config import Config, from_flat, replace
from experiments.command_line import caching, cli, paths, usage
from experiments.reports.measures import Wanted
from experiments.train import train

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Published:
    """A result to repeat.

    Attributes:
      config: its settings; the epochs are the schedule's.
      stages: of its learning rate's schedule, stage i lasting 3ⁱ epochs.
      nll: the test split's negative log-likelihood in the paper, nats per example.
      nll_samples: draws of z that estimate it.
    """

    config: Config
    stages: int
    nll: float
    nll_samples: int


def _iwae(num_samples: int, nll: float) -> Published:
    """A one-layer row of table 1 of Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016.

    The paper's Adam adds 1e-4 to the gradient of a loss summed over a batch of 20; of the mean, that is 1e-4/20. Its
    code also has β₁ = 0.99, second moments that begin at 1, updates by the moments of the step before, output biases at
    the log-odds of the mean image, and 59,600 training images; none of that is repeated here.
    """
    batch_size = 20
    config = from_flat(
        dataset="mnist", condition="none", hidden=(200, 200), activation="tanh", batch_size=batch_size, latent_dim=50,
        learning_rate=1e-3, adam_epsilon=1e-4 / batch_size, learning_rate_schedule="iwae",
    )  # fmt: skip
    if num_samples > 1:
        config = replace(config, objective="iwae", num_samples=num_samples)
    return Published(config, stages=8, nll=nll, nll_samples=5000)


EXPERIMENTS = {
    "iwae-k1": _iwae(num_samples=1, nll=86.76),
    "iwae-k5": _iwae(num_samples=5, nll=85.54),
    "iwae-k50": _iwae(num_samples=50, nll=84.78),
}


def run_of(published: Published, *, stages: int, data_dir: str | None) -> Run:
    """The training behind a published result, or the first stages of it."""
    return Run("train", (replace(published.config, epochs=(3**stages - 1) // 2),), data_dir=data_dir)


def main() -> int:
    published = EXPERIMENTS[FLAGS.experiment]
    stages = published.stages if FLAGS.stages is None else FLAGS.stages
    if not 1 <= stages <= published.stages:
        raise UserError(f"stages is {stages}, expected 1 to {published.stages}")
    run = run_of(published, stages=stages, data_dir=paths.data_dir())
    workdir = Path(FLAGS.workdir or f"runs/{FLAGS.experiment}")
    summary = train(run, workdir, Wanted(nll_samples=published.nll_samples))
    test = summary["test"]
    name = "nll" if "nll" in test else "conditional_nll"
    print(
        f"{FLAGS.experiment}, {stages} of {published.stages} stages ({run.config.epochs} epochs): test {name} "
        f"{test[name]:.2f} ± {test[f'{name}_standard_error']:.2f} nats, {test['active_units']} active latents; "
        f"published {published.nll:.2f}"
    )
    return 0


def _define_experiment() -> None:
    flags.DEFINE_enum("experiment", None, list(EXPERIMENTS), "Result to repeat. Required.", required=True)
    flags.DEFINE_integer(
        "stages", None, "Train only the first stages of the paper's schedule; if not set, all."
    )
    paths.define_data_dir()


def _define_output() -> None:
    flags.DEFINE_string(
        "workdir", None, "Folder of the results; if not set, runs/ and the experiment's name."
    )


if __name__ == "__main__":
    sections = [
        usage.section("Experiment", _define_experiment),
        usage.section("Output", _define_output),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
