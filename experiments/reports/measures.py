"""What is measured of a trained member when a flag asks for it: likelihood, sample quality, disentanglement."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from experiments.command_line import cli
from experiments.reports import quality
from experiments.reports.quality import Record

if TYPE_CHECKING:
    from cvae_jax.model import CVAE
    from cvae_jax.runs.run import Run
    from cvae_jax.runs.session import Session, Trained

SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The measures that the flags ask for.

    Attributes:
      nll_samples: draws of z per example for the likelihood, None to leave it out.
      sample_quality: whether a classifier judges samples from the prior.
      disentanglement: whether latents are compared with known factors.
      temperature: of the samples that are judged.
      judges: classifiers that judge them.
      split: whose examples are measured.
    """

    nll_samples: int | None = None
    sample_quality: bool = False
    disentanglement: bool = False
    temperature: float = 1.0
    judges: int = 1
    split: Literal["validation", "test"] = "test"

    @property
    def group(self) -> str:
        """What the names of groups of measures begin with: nothing for the test split."""
        return "" if self.split == "test" else f"{self.split}_"


def define_flags() -> None:
    """A flag for each measure."""
    flags.DEFINE_integer(
        "nll_samples", None,
        "Also estimate the negative log-likelihood by importance sampling, with this many draws of z per example.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "sample_quality", False,
        "Also judge samples with a classifier of the real images, which is trained once for each dataset: conditional "
        "accuracy, classification accuracy score, Fréchet and kernel distance of its features, precision, recall and "
        "diversity.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "judges", 1,
        "Number of classifiers that judge samples (--sample_quality, condition label), each of another seed; reported "
        "are means and standard deviations over them.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "disentanglement", False,
        "Also measure how well each latent stands for one factor of data whose factors are known, such as shapes: "
        "MIG, SAP, DCI, FactorVAE and beta-VAE scores and modularity, each next to its value for latents without "
        "information.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "split", "test", SPLITS,
        "Split that likelihood, sample quality and disentanglement are measured on: validation to choose settings, "
        "test to report the chosen ones.",
    )  # fmt: skip
    define_temperature("the samples of --sample_quality")


def define_temperature(samples: str) -> None:
    """The flag `--temperature`, of samples that are called so in its text."""
    flags.DEFINE_float(
        "temperature", 1.0,
        f"Factor of the noise in {samples}: 1 draws from the prior, less gives plainer samples that differ less, 0 "
        "only the prior's mean, of a mixture that of its most probable component.",
    )  # fmt: skip


def wanted(run: Run) -> Wanted:
    """The measures that the flags ask for.

    Raises:
      UserError: for a run that cannot be measured so.
    """
    found = flags.FLAGS
    values: dict[str, Any] = {field.name: found[field.name].value for field in dataclasses.fields(Wanted)}
    each = Wanted(**values)
    if each.sample_quality and run.config.condition == ():
        raise UserError(
            "condition is none, expected label with --sample_quality: it judges samples by their class"
        )
    for name in ("temperature", "judges"):
        if found[name].present and not each.sample_quality:
            raise UserError(f"{name} is {found[name].value:g}, expected none without --sample_quality")
    measured = each.nll_samples is not None or each.sample_quality or each.disentanglement
    if found["split"].present and not measured:
        raise UserError(
            f"split is {each.split}, expected it with --nll_samples, --sample_quality or --disentanglement"
        )
    return each


def nll_name(model: CVAE) -> str:
    """The name of −log p(x|c) in records; without a condition it is −log p(x)."""
    return "nll" if model.condition is None else "conditional_nll"


def flat(record: Record) -> Record:
    """A record as one row of a table: what is in groups is named after its split, but not after its group.

    Example:
      >>> flat({"test": {"elbo": -9.0}, "disentanglement": {"mig": 0.1}, "validation_disentanglement": {"mig": 0.2}})
      {'test_elbo': -9.0, 'mig': 0.1, 'validation_mig': 0.2}
    """
    row = {}
    for name, value in record.items():
        if isinstance(value, dict):
            prefix = f"{name}_" if name in SPLITS else "validation_" if name.startswith("validation_") else ""
            row |= {prefix + k: v for k, v in value.items()}
        else:
            row[name] = value
    return row


def holds(row: Record, each: Wanted) -> bool:
    """Whether a row has all these measures on their split, and none of them failed."""
    return (
        row.get("error") is None
        and each.nll_samples in (None, row.get(f"{each.split}_nll_samples"))
        and (
            not each.sample_quality
            or (row.get(f"{each.group}temperature"), row.get(f"{each.group}judges"))
            == (each.temperature, each.judges)
        )
        and (not each.disentanglement or f"{each.group}mig_chance" in row)
    )


def attempt(faults: list[str], what: str, act: Callable[..., Any], *arguments: Any) -> Any:
    """Do what may fail after training without costing its results.

    Args:
      faults: to which a failure is added, in words.
      what: is done.
      act: does it with the arguments.

    Returns:
      What `act` returns, None if it fails. The traceback of a fault of the program is printed.
    """
    try:
        return act(*arguments)
    except Exception as error:
        message = cli.explain(error)
        if message is None:
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"
        faults.append(f"{what} failed: {' '.join(message.split())}")
        return None


def not_finite(record: Record) -> list[str]:
    """Names of the figures that are infinite or no number.

    Example:
      >>> not_finite({"test": {"elbo": math.nan, "rate": 2.0}, "at_beta": [{"beta": 1.0, "test": {"elbo": math.inf}}]})
      ['test elbo', 'at_beta test elbo']
    """

    def walk(value: Any, path: tuple[str, ...]) -> list[str]:
        if isinstance(value, dict):
            return [name for k, v in value.items() for name in walk(v, (*path, k))]
        if isinstance(value, list | tuple):
            return [name for v in value for name in walk(v, path)]
        return [" ".join(path)] if isinstance(value, float) and not math.isfinite(value) else []

    return list(dict.fromkeys(walk(record, ())))


def with_error(record: Record, faults: list[str]) -> Record:
    """A record whose `error` names what failed and which figures are not finite; without it where nothing failed."""
    if names := not_finite(record):
        faults = [*faults, f"not finite: {', '.join(names)}"]
    return record | {"error": "; ".join(faults)} if faults else record


def require_no_error(record: Record) -> None:
    """End a script whose results are written, but not all are there.

    Raises:
      UserError: with the record's `error`.
    """
    if "error" in record:
        raise UserError(f"{record['error']}; the other results are written")


def prepare(
    each: Wanted, session: Session, cache: Path, nll_output: Path | None = None
) -> Callable[[Trained, Record, list[str]], Record]:
    """Make ready what the measures need, and refuse what is known to fail.

    Args:
      each: the measures.
      session: the run.
      cache: where the judge's classifier is kept.
      nll_output: an `.npz` for the likelihood of each example.

    Returns:
      A function from a trained member, what is known of it by split, and a list of faults, to what is known with the
      measures added: likelihoods among their split's metrics, the others in groups of their own. A measure that fails
      is left out and added to the faults.

    Raises:
      UserError: if the dataset cannot be measured so.
    """
    from experiments.reports import scores

    split = each.split
    measured = dataclasses.replace(session, dataset=session.dataset.measured_on(split))
    if each.disentanglement:
        scores.require_factors(measured.dataset, session.model.condition)
    judge = (
        quality.find_judge(session, cache, each.temperature, judges=each.judges, split=split)
        if each.sample_quality
        else None
    )

    def likelihood(trained: Trained, num_samples: int) -> Record:
        nll = scores.nll_of_test(measured, trained, num_samples)
        if nll_output is not None:
            c = measured.dataset.test.c
            arrays: dict[str, Any] = {nll_name(session.model): nll}
            arrays |= c if isinstance(c, dict) else {"c": c}
            write_atomically(nll_output, lambda file: np.savez(file, **arrays))
        return _nll_metrics(session, nll, num_samples)

    def measure(trained: Trained, record: Record, faults: list[str]) -> Record:
        record = dict(record)
        if each.nll_samples is not None:
            metrics = attempt(faults, "nll_samples", likelihood, trained, each.nll_samples)
            record[split] = record[split] | (metrics or {})
        if judge is not None:
            found = attempt(faults, "sample_quality", judge, measured, trained)
            if found is not None:
                how = {"judges": each.judges, "temperature": each.temperature}
                record[f"{each.group}sample_quality"] = {**found, **how}
        if each.disentanglement:
            found = attempt(faults, "disentanglement", scores.disentanglement_scores, measured, trained)
            if found is not None:
                record[f"{each.group}disentanglement"] = found
        return record

    return measure


def _nll_metrics(session: Session, nll: np.ndarray, num_samples: int) -> Record:
    """The mean of a split's negative log-likelihoods, its standard error, and the draws behind each."""
    from cvae_jax.evaluation.bounds import bits_per_dim
    from experiments.reports.scores import standard_error

    name, mean = nll_name(session.model), float(np.mean(nll))
    metrics = {
        name: mean,
        f"{name}_standard_error": standard_error(nll),
        "nll_samples": num_samples,
    }
    if session.model.likelihood.whole_levels:
        metrics[f"{name}_bits_per_dim"] = bits_per_dim(mean, math.prod(session.dataset.shape))
    return metrics
