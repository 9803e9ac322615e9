"""What is measured of a trained member when a flag asks for it: likelihood, sample quality, disentanglement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from cvae_jax.config import Config
from experiments import quality
from experiments.cli import UserError
from experiments.workdir import Run, write_atomically

if TYPE_CHECKING:
    from experiments.loop import Session
    from experiments.results import Trained

Record = dict[str, Any]
SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The measures asked for.

    Attributes:
      nll_samples: draws of z per example for the test split's likelihood, None to leave it out.
      sample_quality: whether a classifier judges samples from the prior.
      disentanglement: whether latents are compared with the test split's factors.
      temperature: of the samples that are judged.
      judges: classifiers that judge them.
    """

    nll_samples: int | None = None
    sample_quality: bool = False
    disentanglement: bool = False
    temperature: float = 1.0
    judges: int = 1


def define_flags() -> None:
    """A flag for each measure."""
    flags.DEFINE_integer(
        "nll_samples", None,
        "Also estimate the test split's negative log-likelihood, by importance sampling with so many draws of z per "
        "example.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "sample_quality", False,
        "Judge samples from the prior by a classifier of the real images (trained once per dataset, then kept in the "
        "cache folder): conditional accuracy, classification accuracy score, classifier Fréchet and kernel distance, "
        "precision and recall, diversity.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "judges", 1,
        "With --sample_quality and the condition label: so many classifiers, of different seeds, judge the samples; "
        "their means are reported, and the standard deviations between them.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "disentanglement", False,
        "Also score how well single latents stand for single factors of the test split, for data whose factors are "
        "known, such as shapes: MIG, SAP, DCI, FactorVAE and beta-VAE scores, modularity.",
    )  # fmt: skip
    define_temperature("With --sample_quality: judge")


def define_temperature(what: str) -> None:
    """The flag `--temperature`, of samples that something is done with."""
    flags.DEFINE_float(
        "temperature", 1.0,
        f"{what} samples whose noise is multiplied by this: 1 draws from the prior, less draws fewer and plainer "
        "variants, 0 always its middle, or that of a mixture's likeliest part.",
    )  # fmt: skip


def wanted(run: Run) -> Wanted:
    """The measures that the flags ask for.

    Raises:
      UserError: for a run that cannot be measured so.
    """
    given: dict[str, Any] = {
        field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Wanted)
    }
    each = Wanted(**given)
    if each.sample_quality and run.config.condition == "none":
        raise UserError(
            "condition is none, expected label with --sample_quality: it judges samples by their class"
        )
    if each.temperature != 1 and not each.sample_quality:
        raise UserError(f"temperature is {each.temperature:g}, expected none without --sample_quality")
    if each.judges != 1 and not each.sample_quality:
        raise UserError(f"judges is {each.judges}, expected none without --sample_quality")
    return each


def nll_name(config: Config) -> str:
    """What −log p(x|c) is called; without a condition it is −log p(x)."""
    return "nll" if config.condition == "none" else "conditional_nll"


def flat(record: Record) -> Record:
    """A record as one row of a table: metrics of a split after the split's name, groups of others dissolved."""
    row = {}
    for name, value in record.items():
        if isinstance(value, dict):
            row |= {f"{name}_{k}" if name in SPLITS else k: v for k, v in value.items()}
        else:
            row[name] = value
    return row


def holds(row: Record, each: Wanted) -> bool:
    """Whether a row has all the measures asked for."""
    return (
        each.nll_samples in (None, row.get("test_nll_samples"))
        and (
            not each.sample_quality
            or (row.get("temperature"), row.get("judges")) == (each.temperature, each.judges)
        )
        and (not each.disentanglement or "mig" in row)
    )


def prepare(
    each: Wanted, session: Session, cache: Path, nll_output: Path | None = None
) -> Callable[[Trained, Record], Record]:
    """Make ready what the measures need.

    Args:
      each: the measures asked for.
      session: the run.
      cache: where the judge's classifier is kept.
      nll_output: an `.npz` for the likelihood of each test example.

    Returns:
      A function from a trained member, and what is known of it by split, to that with the measures added: likelihoods
      among the test split's metrics, the others in groups of their own.

    Raises:
      UserError: if the dataset cannot be measured so.
    """
    from experiments import scores

    if each.disentanglement:
        scores.require_factors(session.dataset)
    judge = (
        quality.find_judge(session.run, cache, each.temperature, each.judges) if each.sample_quality else None
    )

    def measure(trained: Trained, record: Record) -> Record:
        record = dict(record)
        if each.nll_samples is not None:
            nll = scores.nll_of_test(session, trained, each.nll_samples)
            record["test"] = record["test"] | _nll_metrics(session, nll, each.nll_samples)
            if nll_output is not None:
                c = session.dataset.test.c
                arrays: dict[str, Any] = {nll_name(session.run.config): nll}
                arrays |= c if isinstance(c, dict) else {"c": c}
                write_atomically(nll_output, lambda file: np.savez(file, **arrays))
        if judge is not None:
            record["sample_quality"] = {
                **judge(session, trained),
                "judges": each.judges,
                "temperature": each.temperature,
            }
        if each.disentanglement:
            record["disentanglement"] = scores.disentanglement_scores(session, trained)
        return record

    return measure


def _nll_metrics(session: Session, nll: np.ndarray, num_samples: int) -> Record:
    """The mean of a split's negative log-likelihoods, its standard error, and the draws behind each."""
    from cvae_jax.evaluation import bits_per_dim

    name, mean = nll_name(session.run.config), float(np.mean(nll))
    metrics = {
        name: mean,
        f"{name}_standard_error": float(np.std(nll, ddof=1) / np.sqrt(len(nll))),
        "nll_samples": num_samples,
    }
    if session.model.likelihood.bits:
        metrics[f"{name}_bits_per_dim"] = bits_per_dim(mean, math.prod(session.dataset.shape))
    return metrics
