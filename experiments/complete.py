"""Complete images from some of their quadrants: `python -m experiments.complete --dataset=mnist --observed=1`.

Trains a deterministic network, a Gaussian stochastic network and a conditional VAE with the same layers, and compares
their likelihoods of the hidden pixels of the test split.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import write_json
from cvae_jax.training.config import from_flat
from experiments.command_line import caching, cli, paths, usage
from experiments.reports.measures import Wanted, require_no_error, with_error
from experiments.tasks.completion import comparison
from experiments.train import train

FLAGS = flags.FLAGS


def runs() -> dict[str, Run]:
    """The three trainings of the flags, by objective."""

    def run(objective: str) -> Run:
        config = from_flat(
            dataset=paths.dataset(FLAGS.dataset), condition="observed", observed=FLAGS.observed, network=FLAGS.network,
            epochs=FLAGS.epochs, learning_rate=FLAGS.learning_rate, seed=FLAGS.seed,
            **comparison.options_of(objective, FLAGS.latent_dim),
        )  # fmt: skip
        return Run("train", (config,), data_dir=paths.data_dir(), checkpoint_every=5)

    return {objective: run(objective) for objective in comparison.MODELS}


def main() -> int:
    folder = Path(FLAGS.workdir or f"runs/complete-{Path(FLAGS.dataset).stem}-{FLAGS.observed}")
    results, written = {}, {}
    for objective, run in runs().items():
        print(f"{comparison.MODELS[objective]}:", flush=True)
        train(run, folder / objective, Wanted())
        results[objective] = comparison.scores_of(
            objective, folder / objective, FLAGS.nll_samples, caching.use()
        )
        written[objective] = {proposal: score._asdict() for proposal, score in results[objective].items()}
        write_json(folder / "results.json", {"nll_samples": FLAGS.nll_samples} | written)
    published = FLAGS.dataset == "mnist"
    print(comparison.table(results, FLAGS.observed, FLAGS.nll_samples, published=published))
    require_no_error(with_error(written, []))
    print(f"\nresults.json and completions.png in {folder}")
    return 0


def _define_data() -> None:
    flags.DEFINE_string("dataset", "mnist", "A dataset of images, see --dataset of train.")
    paths.define_data_dir()
    flags.DEFINE_integer(
        "observed", 1,
        "Quadrants that the models see: 1 is the bottom left, 2 the left half, 3 all but the bottom right.",
    )  # fmt: skip


def _define_training() -> None:
    flags.DEFINE_enum("network", "conv", ("mlp", "conv"), "Layers of the models, see --network of train.")
    flags.DEFINE_integer("latent_dim", 32, "Number of latent dimensions.")
    flags.DEFINE_integer("epochs", 50, "Passes over the training split, for each of the three models.")
    flags.DEFINE_float("learning_rate", 1e-3, "Learning rate of Adam.")
    flags.DEFINE_integer("seed", 0, "Seed of the initial weights and of the draws of z.")


def _define_output() -> None:
    flags.DEFINE_integer("nll_samples", 100, "Draws of z with which a likelihood is estimated.")
    flags.DEFINE_string(
        "workdir", None, "Folder of the results; if not set, runs/ and a name made of the settings."
    )


if __name__ == "__main__":
    sections = [
        usage.section("Data", _define_data),
        usage.section("Training", _define_training),
        usage.section("Output", _define_output),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
