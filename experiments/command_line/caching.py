"""The cache folder: packed datasets, compiled programs, classifiers that judge samples."""

from __future__ import annotations

import os
from pathlib import Path

from absl import flags

from cvae_jax.files import cache_dir, remove_abandoned

# Of the cache folder, where classifiers that judge samples are kept.
JUDGES = "classifiers"


def define_flags() -> None:
    """Flags of every script that compiles or reads data."""
    flags.DEFINE_string(
        "cache_dir", None,
        "Folder that keeps packed datasets and compiled programs; if not set, cvae_jax in your cache folder.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "compilation_cache", True, "Keep compiled programs there, so that the next run starts faster."
    )


def use() -> Path:
    """Set JAX up for the script; the cache folder the flags name, which keeps JAX's compiled programs too."""
    import jax

    from cvae_jax.rng import pin_generator

    pin_generator()
    folder = Path(flags.FLAGS.cache_dir) if flags.FLAGS.cache_dir else cache_dir()
    for each in (folder, folder / JUDGES):
        remove_abandoned(each)
    if flags.FLAGS.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder
