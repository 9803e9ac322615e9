"""The shape of the codebase: which module may import which, and what the losses bring along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each module may import those of earlier lines.
LAYERS = [
    {"checks", "checksums", "files", "linear_call", "literal"},
    {
        "arrangements",
        "caption_words",
        "batches",
        "condition_kinds",
        "densities",
        "randomness",
        "config",
        "products",
        "devices",
        "dropout",
        "embeddings",
        "speech",
    },
    {"latent_maps", "losses", "hparams", "dataset", "captions", "caption_parser", "caption_scores"},
    {"packing", "raw_conditions", "plots"},
    {
        "convolutions",
        "likelihoods",
        "sources",
        "npz",
        "shapes",
        "codes",
        "latent_plots",
        "grid",
        "augment",
        "scenes",
    },
    {"captioned_scenes", "scene_reader", "places"},
    {"networks", "text_encoder", "spoken_digit", "interventions", "tfds_features"},
    {"conditions", "priors", "data"},
    {"mixture_priors"},
    {"cvae", "disentanglement"},
    {"draws", "rewording"},
    {"sampling"},
    {"terms", "evaluation"},
    {"importance", "tcvae", "dipvae", "factorvae", "multirate", "latents", "reconstruction", "classifier"},
    {"objectives", "quality", "speech_judge"},
    {"training", "posteriors", "validation"},
    {"feed"},
    {"sweep"},
    {"checkpoints", "memory"},
]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules():
    return sorted(path.stem for path in (ROOT / "cvae_jax").glob("*.py") if path.stem != "__init__")


def test_every_module_has_a_layer():
    assert sorted(set().union(*LAYERS)) == modules()


@pytest.mark.parametrize("module", modules())
def test_imports_point_downward(module):
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    below = set().union(*LAYERS[:level])
    names = imported(ROOT / "cvae_jax" / f"{module}.py")
    ours = {name.split(".")[1] for name in names if name.startswith("cvae_jax.")}
    assert ours - below == set()
    assert not any(name.split(".")[0] in ("absl", "experiments") for name in names)


def test_losses_load_jax_alone():
    program = """
import sys, jax, optax
before = set(sys.modules)
import cvae_jax.losses
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - {"cvae_jax"} - set(sys.stdlib_module_names)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("path", sorted((ROOT / "cvae_jax").glob("*.py")), ids=lambda p: p.name)
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 500
