"""Which trainings the golden record holds: every pair of choices that can be combined, at least once.

`PYTHONPATH=. python tests/golden_cover.py` makes the record anew, on the machine that will compare with it: rounding
differs between processors.
"""

import itertools
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import conftest  # noqa: F401  (JAX's settings are those of the tests)
import jax
import jax.numpy as jnp
import numpy as np

from cvae_jax.data import reading
from cvae_jax.errors import SettingError
from cvae_jax.training import loader, population
from cvae_jax.training.config import from_flat
from cvae_jax.training.hparams import stack_hparams

CHOICES = {
    "objective": (
        "elbo", "free_bits", "capacity", "iwae", "dreg", "tcvae", "dipvae_i", "dipvae_ii", "factorvae", "multirate",
        "gsnn", "hybrid", "nn",
    ),
    "prior": ("standard", "conditional", "mixture", "vamp", "flow"),
    "network": ("mlp", "conv"),
    "likelihood": (
        "bernoulli", "continuous_bernoulli", "gaussian", "gaussian_learned", "gaussian_optimal", "logistic_mixture",
    ),
    "condition": ("label", "vector", "image", "text", "audio", "text,label", "observed", "none"),
    "conditioning": ("concat", "film"),
}  # fmt: skip
RECORD = Path(__file__).parent / "golden" / "losses.json"
# What the objectives need beside their names, so that each does what it is for.
_OF_OBJECTIVES = {
    "free_bits": {"free_bits": 0.5},
    "capacity": {"kl_target": 2.0},
    "iwae": {"num_samples": 3},
    "dreg": {"num_samples": 3},
}
# Optional parts of a training, each on the plainest model that can have it.
OPTIONS = (
    {"ema_decay": 0.9},
    {"dropout": 0.2},
    {"network": "conv", "dropout": 0.2},
    {"weight_decay": 0.1, "clip_norm": 1.0},
    {"warmup_epochs": 4.0, "schedule": "cosine"},
    {"warmup_epochs": 4.0, "schedule": "cyclical", "objective": "capacity", "kl_target": 2.0},
    {"learning_rate_schedule": "cosine", "epochs": 5},
    {"learning_rate_schedule": "iwae"},
    {"condition_dropout": 0.3},
    {"condition_first_epochs": 2.0, "warmup_epochs": 1.0},
    {"share_condition": False, "prior": "conditional"},
    {"binarize": "static"},
    {"augment": ("shift", "cutout")},
    {"activation": "tanh", "hidden": (24,)},
    {"stratified": False, "objective": "tcvae"},
    {"patience": 1.0},
    {"compute_dtype": "bfloat16"},
    {"latent_dim": 3, "beta": 4.0, "seed": 5},
    {
        "network": "caption_conv",
        "objective": "capacity",
        "prior": "vamp",
        "likelihood": "gaussian_learned",
        "condition": "text",
    },
)
_STEPS, _BATCH, _N, _SIDE = 20, 8, 48, 8
_WORDS = ("a dark one", "a bright one", "two", "three of them")


def settings_of(choice):
    """All settings of one training, or None where its choices cannot be combined."""
    fields = {"hidden": (32,)} if choice.get("network", "mlp") == "mlp" else {}
    fields |= {
        "batch_size": _BATCH,
        "latent_dim": 4,
        "discriminator_width": 16,
        "mixture_parts": 3,
        "pseudo_inputs": 5,
    }
    fields |= {
        "num_components": 2,
        "binarize": "dynamic" if choice.get("likelihood", "bernoulli") == "bernoulli" else "none",
    }
    fields |= _OF_OBJECTIVES.get(choice.get("objective"), {}) | choice
    try:
        config_of(fields)
    except SettingError:
        return None
    return fields


# The options of the plainest settings that only some choices own.
_OWNED = {
    "latent_dim": lambda fields: fields.get("objective") != "nn",
    "discriminator_width": lambda fields: fields.get("objective") == "factorvae",
    "mixture_parts": lambda fields: fields.get("prior") == "mixture",
    "pseudo_inputs": lambda fields: fields.get("prior") == "vamp",
    "num_components": lambda fields: fields.get("likelihood") == "logistic_mixture",
}


def config_of(fields):
    """The configuration that settings describe."""
    return from_flat(
        **{name: value for name, value in fields.items() if _OWNED.get(name, lambda _: True)(fields)}
    )


def cover():
    """Choices such that every pair of them that can be combined occurs, found greedily, always the same."""
    every = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
    possible = [choice for choice in every if settings_of(choice) is not None]
    pairs = [set(itertools.combinations(sorted(choice.items()), 2)) for choice in possible]
    missing = set().union(*pairs)
    chosen = []
    while missing:
        best = max(range(len(pairs)), key=lambda i: len(pairs[i] & missing))
        missing -= pairs[best]
        chosen.append(possible[best])
    return chosen


def name_of(choice):
    """The choices in a line."""
    return " ".join(f"{key}={value}" for key, value in choice.items())


def write_datasets(folder):
    """A small `.npz` of each condition."""
    rng = np.random.default_rng(0)
    x = (255 * rng.uniform(size=(_N, _SIDE, _SIDE, 1)) ** 2).astype(np.uint8)
    label = np.arange(_N) % 4
    given = {
        "label": label,
        "vector": rng.normal(size=(_N, 3)).astype(np.float32),
        "image": rng.uniform(size=(_N, 8, 8, 1)).astype(np.float32),
        "text": np.array(_WORDS)[label],
        "audio": rng.normal(size=(_N, 8, 6)).astype(np.float32),
    }
    for condition in CHOICES["condition"]:
        names = condition.split(",")
        arrays = {"x": x} | {name if len(names) > 1 else "c": given.get(name, label) for name in names}
        splits = {
            f"{name}_{split}": a for split in ("train", "validation", "test") for name, a in arrays.items()
        }
        np.savez(folder / f"{condition}.npz", **splits)


def losses(fields, folder: Path):
    """The sums of loss, distortion and rate after 1 step and after 20."""
    condition = fields.get("condition", "label")
    config = config_of(fields | {"dataset": str(folder / f"{condition}.npz")})
    dataset = reading.load(config.data, config.condition, config.likelihood, data_dir=None, cache_dir=folder)
    model = population.build_model([config], dataset)
    per_epoch = loader.steps_per_epoch(config, dataset)
    h = stack_hparams([config], capacity=config.latent_dim)
    training_data = loader.training_data(config, dataset)
    members, values = population.init(model, h), []
    for epoch in range(-(-_STEPS // per_epoch)):
        for num_steps in (1, per_epoch - 1) if epoch == 0 else (min(per_epoch, _STEPS - epoch * per_epoch),):
            members = population.run_steps(model, members, h, training_data, jnp.int32(num_steps))
            sums = members.members.sums
            values.append([float(term[0]) for term in (sums.loss, sums.distortion, sums.rate)])
    jax.clear_caches()
    return values


def _recorded(choice):
    with tempfile.TemporaryDirectory() as folder:
        write_datasets(Path(folder))
        return losses(settings_of(choice), Path(folder))


if __name__ == "__main__":
    choices = (*cover(), *OPTIONS)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        recorded = pool.map(_recorded, choices)
        lines = [json.dumps([choice, values]) for choice, values in zip(choices, recorded, strict=True)]
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
