"""Complete images from some of their quadrants: `python -m experiments.complete --dataset=mnist --observed=1`.

Trains a deterministic network, a Gaussian stochastic network and a conditional VAE with the same layers, and compares
their likelihoods of the hidden pixels of the test split.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from cvae_jax.files import write_atomically
from cvae_jax.runs.run import Run
from cvae_jax.runs.workdir import read_run, write_json
from cvae_jax.training.config import from_flat
from experiments import caching, cli
from experiments.measures import Wanted, require_no_error, with_error
from experiments.train import train

if TYPE_CHECKING:
    from cvae_jax.runs.session import Session, Trained

FLAGS = flags.FLAGS

# −log p(hidden pixels) of MNIST by Monte Carlo, with 1, 2 and 3 quadrants observed, nats.
PUBLISHED = {"Sohn, Lee & Yan 2015, conditional VAE, as widely quoted": (68.62, 45.57, 20.97)}
MODELS = {"nn": "deterministic network", "gsnn": "Gaussian stochastic network", "elbo": "conditional VAE"}
_COMPLETIONS = 10
_ROWS = 12


def runs() -> dict[str, Run]:
    """The three trainings of the flags, by objective."""

    def run(objective: str) -> Run:
        # A deterministic network has neither latents nor a prior.
        latents = {} if objective == "nn" else {"latent_dim": FLAGS.latent_dim, "prior": "conditional"}
        config = from_flat(
            dataset=FLAGS.dataset, condition="observed", observed=FLAGS.observed, network=FLAGS.network,
            epochs=FLAGS.epochs, learning_rate=FLAGS.learning_rate, seed=FLAGS.seed, objective=objective, **latents,
        )  # fmt: skip
        return Run("train", (config,), data_dir=FLAGS.data_dir, checkpoint_every=5)

    return {objective: run(objective) for objective in MODELS}


def main() -> int:
    folder = Path(FLAGS.workdir or f"runs/complete-{Path(FLAGS.dataset).stem}-{FLAGS.observed}")
    results = {}
    for objective, run in runs().items():
        print(f"{MODELS[objective]}:", flush=True)
        train(run, folder / objective, Wanted())
        results[objective] = _hidden_pixels(objective, folder / objective)
        write_json(folder / "results.json", {"nll_samples": FLAGS.nll_samples} | results)
    print(_table(results))
    require_no_error(with_error(results, []))
    print(f"\nresults.json and completions.png in {folder}")
    return 0


def _hidden_pixels(objective: str, workdir: Path) -> dict[str, dict[str, float | None]]:
    """−log p of the test split's hidden pixels under a trained model, by proposal; draws the CVAE's figure, too."""
    from cvae_jax.runs.session import load_member, open_session
    from experiments import scores

    session = open_session(read_run(workdir), caching.use())
    trained = load_member(session, workdir, 0)
    # A deterministic network needs no draws; the posterior of a GSNN is its prior.
    proposals = ("prior", "posterior") if objective == "elbo" else ("prior",)
    samples = 1 if objective == "nn" else FLAGS.nll_samples
    if objective == "elbo":
        write_atomically(workdir.parent / "completions.png", completions(session, trained).savefig)
    return {
        proposal: scores.mean_and_error(scores.nll_of_test(session, trained, samples, proposal))
        for proposal in proposals
    }


def completions(session: Session, trained: Trained) -> Any:
    """Test images: their observed pixels, completions drawn from the prior, and the images themselves."""
    import jax.numpy as jnp
    import numpy as np

    from cvae_jax.conditions import Observed
    from cvae_jax.data.dataset import unit
    from cvae_jax.evaluation import sampling
    from cvae_jax.plots import drawing
    from cvae_jax.rng import Stream, root_key, stream

    dataset = session.dataset
    some = dataset.test.take(np.linspace(0, len(dataset.test) - 1, _ROWS).astype(int))
    truth = unit(some.x, dataset.x_max)
    c = jnp.repeat(jnp.asarray(some.c), _COMPLETIONS, axis=0)
    drawn = sampling.generate(session.model, trained.best.params, stream(root_key(0), Stream.SAMPLES), c)
    drawn = np.asarray(drawn).reshape(_ROWS, _COMPLETIONS, *dataset.shape)
    condition = session.model.condition
    assert isinstance(condition, Observed)
    observed = np.where(condition.mask, truth, 0.5)
    return drawing.image_grid(
        np.concatenate([observed[:, None], drawn, truth[:, None]], axis=1),
        title=f"{condition.observed} of 4 quadrants observed, the means of {_COMPLETIONS} completions",
        column_labels=["observed", *map(str, range(1, _COMPLETIONS + 1)), "truth"],
        breaks=[1, 1 + _COMPLETIONS],
    )


def _table(results: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """The results by proposal, each with the published numbers that are estimated in the same way."""
    quadrants, samples = FLAGS.observed - 1, FLAGS.nll_samples
    lines = [f"−log p(hidden pixels | {FLAGS.observed} of 4 quadrants) of the test split, nats"]
    for proposal, how in (
        ("prior", f"Monte Carlo, {samples} draws from the prior; a deterministic network needs none"),
        ("posterior", f"importance sampling, {samples} draws from the posterior"),
    ):
        lines.append(f"{how}:")
        for objective, by_proposal in results.items():
            if score := by_proposal.get(proposal):
                error = score["standard_error"]
                spread = "      " if error is None else f"± {error:.2f}"
                lines.append(f"  {score['nll']:6.2f} {spread}  {MODELS[objective]}")
        if FLAGS.dataset == "mnist":
            published = PUBLISHED if proposal == "prior" else {}
            lines += [f"  {values[quadrants]:6.2f}         {who}" for who, values in published.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_string("dataset", "mnist", "A dataset of images, as of experiments.train.")
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared TFDS datasets; TFDS's own default if not given."
    )
    flags.DEFINE_integer(
        "observed", 1, "Observed quadrants: 1 the bottom left, 2 the left half, 3 all but the bottom right."
    )
    flags.DEFINE_enum("network", "conv", ("mlp", "conv"), "As of experiments.train.")
    flags.DEFINE_integer("latent_dim", 32, "Number of latents.")
    flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.")
    flags.DEFINE_integer("epochs", 50, "Passes over the training split, for each of the three models.")
    flags.DEFINE_integer("seed", 0, "Of the initialization and the latent noise.")
    flags.DEFINE_integer("nll_samples", 100, "K, draws of z that estimate a likelihood.")
    flags.DEFINE_string("workdir", None, "Folder of the results; a name made of the settings if not given.")
    caching.define_flags()
    cli.run(main)
