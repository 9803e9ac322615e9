"""Three models that complete images from some of their quadrants, and how likely they find the hidden pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cvae_jax.files import write_atomically
from cvae_jax.runs.workdir import read_run

if TYPE_CHECKING:
    from cvae_jax.runs.session import Session, Trained

# −log p(hidden pixels) of MNIST by Monte Carlo, with 1, 2 and 3 quadrants observed, nats.
PUBLISHED = {"Sohn, Lee & Yan 2015, conditional VAE, as widely quoted": (68.62, 45.57, 20.97)}
MODELS = {"nn": "deterministic network", "gsnn": "Gaussian stochastic network", "elbo": "conditional VAE"}
_COMPLETIONS = 10
_ROWS = 12


class Score(NamedTuple):
    """−log p of the test split's hidden pixels.

    Attributes:
      nll: its mean over the examples, nats.
      standard_error: of the mean, nats; None for a single example.
    """

    nll: float | None
    standard_error: float | None


def options_of(objective: str, latent_dim: int) -> dict[str, Any]:
    """The options that one of the models does not share with the others.

    Args:
      objective: one of `MODELS`.
      latent_dim: number of latents of those that have latents.
    """
    if objective == "nn":
        return {"objective": objective}
    return {"objective": objective, "latent_dim": latent_dim, "prior": "conditional"}


def scores_of(objective: str, workdir: Path, nll_samples: int, cache_dir: Path) -> dict[str, Score]:
    """−log p of the test split's hidden pixels under a trained model, by the proposal that z is drawn from.

    Args:
      objective: one of `MODELS`.
      workdir: of the trained model.
      nll_samples: K, draws of z for each example. A deterministic network needs one.
      cache_dir: of packed datasets.
    """
    from cvae_jax.runs.session import load_member, open_session
    from experiments.reports import scores

    session = open_session(read_run(workdir), cache_dir)
    trained = load_member(session, workdir, 0)
    # The posterior of a GSNN is its prior.
    proposals = ("prior", "posterior") if objective == "elbo" else ("prior",)
    samples = 1 if objective == "nn" else nll_samples
    if objective == "elbo":
        write_atomically(workdir.parent / "completions.png", completions(session, trained).savefig)
    return {
        proposal: Score(**scores.mean_and_error(scores.nll_of_test(session, trained, samples, proposal)))
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


def table(results: dict[str, dict[str, Score]], observed: int, nll_samples: int, *, published: bool) -> str:
    """The scores by proposal.

    Args:
      results: by objective and proposal.
      observed: number of observed quadrants.
      nll_samples: K, draws of z for each example.
      published: whether to add the published numbers that are estimated in the same way.
    """
    lines = [f"−log p(hidden pixels | {observed} of 4 quadrants) of the test split, nats"]
    for proposal, how in (
        ("prior", f"Monte Carlo, {nll_samples} draws from the prior; a deterministic network needs none"),
        ("posterior", f"importance sampling, {nll_samples} draws from the posterior"),
    ):
        lines.append(f"{how}:")
        for objective, by_proposal in results.items():
            if score := by_proposal.get(proposal):
                error = score.standard_error
                spread = "      " if error is None else f"± {error:.2f}"
                lines.append(f"  {score.nll:6.2f} {spread}  {MODELS[objective]}")
        if published and proposal == "prior":
            lines += [f"  {values[observed - 1]:6.2f}         {who}" for who, values in PUBLISHED.items()]
    return "\n".join(lines)
