"""Train, load and use models from Python: what `import cvae_jax` offers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data import reading
from cvae_jax.data.dataset import Dataset, Description, as_in_data
from cvae_jax.data.examples import on_device
from cvae_jax.errors import SettingError
from cvae_jax.evaluation import bounds, latents, sampling
from cvae_jax.files import cache_dir
from cvae_jax.model import CVAE
from cvae_jax.nn.latent import Gaussian
from cvae_jax.rng import Stream, root_key, stream
from cvae_jax.runs import provenance
from cvae_jax.runs.description import record_run, require_same_run
from cvae_jax.runs.logs import Logger, Record
from cvae_jax.runs.loop import train
from cvae_jax.runs.run import Run
from cvae_jax.runs.session import (
    Part,
    RunModel,
    Session,
    diverged,
    load_population,
    member_of,
    new_session,
    open_model,
)
from cvae_jax.runs.workdir import training_lock
from cvae_jax.training import memory
from cvae_jax.training.config import Config, traced_options
from cvae_jax.training.grid import Settings, members
from cvae_jax.training.population import Population, build_model

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key, PyTree


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained model at its best parameters by validation.

    x and c are taken as they are in the data: whole numbers of pixels or floats from 0 to 1, class numbers or names,
    texts, vectors that are not standardized. Grey pixels are used as they are, also under a likelihood that training
    binarizes for.

    Attributes:
      config: its settings.
      model: the model, whose methods are pure functions of `params`.
      params: the parameters.
      data: what is known of the data it was trained on.
      best_epoch: epochs trained when the parameters were taken.
      diverged: the step and the term at which training stopped being finite, None if it did not.
      history: a record per validated epoch of this process.
    """

    config: Config
    model: CVAE
    params: PyTree
    data: Description
    best_epoch: int
    diverged: tuple[int, str] | None = None
    history: tuple[Record, ...] = ()

    def _c(self, c: Any, n: int) -> PyTree:
        """n conditions as the model takes them."""
        if self.model.condition is None:
            if c is not None:
                raise SettingError(
                    "c holds conditions, expected None: the model was trained without a condition"
                )
            return np.zeros(n, np.int32)
        if c is None:
            raise SettingError(f"c is None, expected {n} conditions: {self.model.condition.name}")
        found = self.data.conditions(c)
        length = len(jax.tree.leaves(found)[0])
        if length != n:
            raise SettingError(f"c has {length} conditions, expected {n}")
        return jax.tree.map(jnp.asarray, found)

    def encode(self, x: Any, c: Any = None) -> Gaussian:
        """The posteriors q(z|x,c) of examples.

        Args:
          x: shape (n, *dims) as in the data.
          c: their conditions, None for a plain VAE.

        Returns:
          Mean and logarithm of the variance over the latents in use, shape (n, latent_dim) each.

        Raises:
          DataError: if x or c are not as in the data.
          SettingError: for a model of several levels of latents, or a missing c.
        """
        if not self.model.flat_latents:
            raise SettingError(
                "the model has several levels of latents, expected one array: use model.infer(params, x, c, keys)"
            )
        pixels = self.data.pixels(x)
        q = _encode(self.model, self.params, jnp.asarray(pixels), self._c(c, len(pixels)))
        mask = np.asarray(self.model.latent_mask(self.params))
        return Gaussian(*(np.asarray(a)[:, mask] for a in q))  # pyright: ignore[reportArgumentType]

    def decode(self, z: Any, c: Any = None) -> Float[np.ndarray, "n ..."]:
        """The means of p(x|z,c).

        Args:
          z: latents, shape (n, latent_dim).
          c: conditions, None for a plain VAE.

        Returns:
          x of shape (n, *dims) as in the data, images with their channels, in units of x.

        Raises:
          DataError: if c is not as in the data.
          SettingError: if z has another size, or c is missing.
        """
        mask = np.asarray(self.model.latent_mask(self.params))
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != mask.sum():
            raise SettingError(f"z has shape {z.shape}, expected (n, {mask.sum()})")
        full = np.zeros((len(z), len(mask)), np.float32)
        full[:, mask] = z
        means = sampling.decode_mean(self.model, self.params, jnp.asarray(full), self._c(c, len(z)))
        return as_in_data(np.asarray(means))

    def reconstruct(self, x: Any, c: Any = None) -> Float[np.ndarray, "n ..."]:
        """The means of p(x|z,c) at the means of the posteriors; arguments as of `encode`."""
        return self.decode(self.encode(x, c).mean, c)

    def sample(
        self,
        c: Any = None,
        *,
        num: int | None = None,
        key: Key[Array, ""] | int = 0,
        temperature: float = 1.0,
        guidance: float | None = None,
    ) -> Float[np.ndarray, "n ..."]:
        """Draw z from the prior p(z|c), and give the means of p(x|z,c).

        Args:
          c: conditions; of a plain VAE None.
          num: how many, of a plain VAE.
          key: of the draws, or its seed.
          temperature: factor of the prior's noise.
          guidance: extrapolates away from the output without a condition, see `evaluation.sampling.generate`.

        Returns:
          x of shape (n, *dims) as in the data, images with their channels, in units of x.
        """
        if self.model.condition is None:
            found = self._c(c, 1 if num is None else num)
        else:
            if num is not None:
                raise SettingError(
                    f"num is {num}, expected None: c has as many conditions as there are samples"
                )
            if c is None:
                raise SettingError(f"c is None, expected conditions: {self.model.condition.name}")
            raw = self.data.conditions(c)
            found = jax.tree.map(jnp.asarray, raw)
        root = stream(root_key(key), Stream.SAMPLES) if isinstance(key, int) else key
        images = sampling.generate(self.model, self.params, root, found, guidance, temperature)
        return as_in_data(np.asarray(images))

    def evaluate(
        self,
        data: Dataset,
        *,
        split: Literal["validation", "test"] = "test",
        nll_samples: int | None = None,
    ) -> dict[str, float]:
        """Metrics over a whole split, nats per example.

        Args:
          data: the dataset, as `fit` takes it.
          split: which one.
          nll_samples: also estimate −log p(x|c) by importance sampling with so many draws per example.

        Returns:
          `elbo`, `rate`, `distortion`; of whole-level likelihoods `bits_per_dim`; `nll` if asked for; of models with
          one Gaussian array of latents also what these hold, such as `active_units`.
        """
        ready = _prepared(self.config, data)
        if ready.shape != self.data.shape or ready.condition != self.data.condition:
            raise SettingError(
                f"the dataset {data.name} has x of shape {ready.shape} and the condition {ready.condition}, expected "
                f"{self.data.shape} and {self.data.condition}"
            )
        examples = on_device(getattr(ready, split), ready.x_max)
        stacked = jax.tree.map(lambda a: a[None], self.params)
        dims = int(np.prod(self.data.shape)) if self.model.likelihood.whole_levels else None
        terms = bounds.members_elbo_terms(self.model, stacked, examples)
        (metrics,) = bounds.summarize(terms, dims=dims)
        if nll_samples is not None:
            key = stream(root_key(0), Stream.IMPORTANCE)
            nll = bounds.importance_nll(self.model, self.params, examples, key, num_samples=nll_samples)
            metrics["nll"] = float(np.mean(np.asarray(nll, np.float64)))
        if self.model.flat_latents:
            one_prior = self.model.condition is None or not self.model.prior.reads_condition
            held = latents.members_latent_terms(self.model, stacked, examples)
            metrics |= latents.summarize(held, [metrics["rate"]], one_prior=one_prior)[0]
        return metrics


@dataclasses.dataclass(frozen=True)
class Sweep(Sequence[TrainedModel]):
    """The trained members of a sweep.

    Attributes:
      members: one model each, in the order of the grid.
      validation: of each the validation loss at its best parameters, nats per example.
    """

    members: tuple[TrainedModel, ...]
    validation: tuple[float, ...]

    def __len__(self) -> int:
        """Number of members."""
        return len(self.members)

    def __getitem__(self, index: Any) -> Any:
        """A member by its number."""
        return self.members[index]

    def evaluate(self, data: Dataset, **arguments: Any) -> list[dict[str, Any]]:
        """A row per member: its traced options and its metrics; arguments as of `TrainedModel.evaluate`."""
        return [
            {**traced_options(member.config), **member.evaluate(data, **arguments)} for member in self.members
        ]


_encode = jax.jit(lambda model, params, x, c: model.encode(params, x, c), static_argnums=0)


def dataset(config: Config, *, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """The dataset that a configuration names, for `fit`, `sweep` and `evaluate`.

    Args:
      config: its `data` and `condition` are used.
      data_dir: where TFDS keeps prepared datasets.

    Raises:
      DataError: if it cannot be read or used.
    """
    folder = None if data_dir is None else Path(data_dir)
    return reading.read(config.data, config.condition, data_dir=folder, cache_dir=cache_dir())


def _prepared(config: Config, data: Dataset) -> Dataset:
    return reading.prepared(data, config.data, config.condition, config.likelihood)


def fit(
    config: Config,
    data: Dataset,
    *,
    workdir: str | os.PathLike[str] | None = None,
    loggers: Sequence[Logger] = (),
    checkpoint_every: int = 10,
) -> TrainedModel:
    """Train one model.

    Args:
      config: the settings.
      data: of `from_arrays` or `dataset`.
      workdir: folder of checkpoints, `metrics.jsonl` and the settings; a run that it holds is continued. None writes
        nothing.
      loggers: learn how the training goes.
      checkpoint_every: epochs between checkpoints.

    Returns:
      The model at its best parameters by validation.

    Raises:
      UserError: if the settings or the data cannot be used, or the workdir holds another run.
    """
    run = Run("train", (config,), 1, None, checkpoint_every)
    return _train(run, data, workdir, loggers).members[0]


def sweep(
    config: Config,
    settings: Sequence[Settings],
    data: Dataset,
    *,
    workdir: str | os.PathLike[str] | None = None,
    loggers: Sequence[Logger] = (),
    checkpoint_every: int = 10,
    members_per_program: int | None = None,
) -> Sweep:
    """Train many models as one compiled program.

    Args:
      config: what they share.
      settings: of each, as `grid` makes them.
      data: of `from_arrays` or `dataset`.
      workdir, loggers, checkpoint_every: as of `fit`.
      members_per_program: members that train at once; as many as fit into memory if not given.

    Returns:
      The models.

    Raises:
      UserError: as of `fit`; also for settings that shape the program, or come twice.
    """
    every = members(config, settings)
    if members_per_program is None:
        ready = _prepared(config, data)
        members_per_program = memory.members_that_fit(build_model(every, ready), every)
    return _train(Run("sweep", every, members_per_program, None, checkpoint_every), data, workdir, loggers)


class _History(Logger):
    def __init__(self) -> None:
        self.records: list[Record] = []

    def start(self, step: int, total_steps: int, records: Sequence[Record]) -> None:
        self.records += records

    def epoch(self, records: Sequence[Record]) -> None:
        self.records += records


def _train(
    run: Run, data: Dataset, workdir: str | os.PathLike[str] | None, loggers: Sequence[Logger]
) -> Sweep:
    """Train all members of a run."""
    # The name of arrays in memory is recorded: no file has them.
    named = tuple(
        dataclasses.replace(each, data=dataclasses.replace(each.data, dataset=data.name))
        for each in run.members
    )
    run = dataclasses.replace(run, members=named)
    ready = _prepared(run.config, data)
    session = new_session(run, ready)
    if workdir is None:
        return _trained(session, None, loggers)
    folder = Path(workdir)
    require_same_run(folder, run)
    with training_lock(folder):
        provenance.require_same(folder, run, ready)
        record_run(folder, run, session.data, session.examples)
        return _trained(session, folder, loggers)


def _trained(session: Session, workdir: Path | None, loggers: Sequence[Logger]) -> Sweep:
    trained, losses = [], []
    for part in session.parts:
        history = _History()
        population, _ = train(session, part, workdir, (history, *loggers))
        for member, model, loss in _models(session, part, population):
            records = tuple(record for record in history.records if record["member"] == member)
            trained.append(dataclasses.replace(model, history=records))
            losses.append(loss)
    return Sweep(tuple(trained), tuple(losses))


def _models(
    session: RunModel, part: Part, population: Population
) -> Iterator[tuple[int, TrainedModel, float]]:
    """Of each member of a part its number, its model and its validation loss."""
    for position, member in enumerate(part.members):
        best = member_of(population.members.best, position)
        yield (
            member,
            TrainedModel(
                session.run.members[member],
                session.model,
                best.params,
                session.data,
                int(best.epoch),
                diverged(population, position),
            ),
            float(best.loss),
        )


def load(workdir: str | os.PathLike[str]) -> Any:
    """The model of a run, or the models of a sweep, from its folder; the data are not needed.

    Args:
      workdir: of a run of `fit`, `sweep` or the scripts.

    Returns:
      A `TrainedModel`, or a `Sweep`.

    Raises:
      UserError: if the folder holds no run, or its checkpoints cannot be read.
    """
    folder = Path(workdir)
    session = open_model(folder)
    found = [
        each
        for part in session.parts
        for each in _models(session, part, load_population(session, part, folder))
    ]
    trained, losses = tuple(model for _, model, _ in found), tuple(loss for *_, loss in found)
    return trained[0] if session.run.kind == "train" else Sweep(trained, losses)
