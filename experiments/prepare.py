"""Download and prepare a TFDS dataset: `python -m experiments.prepare --dataset=mnist`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from absl import flags

from cvae_jax.errors import UserError
from experiments.command_line import caching, cli, paths, usage

FLAGS = flags.FLAGS


def main() -> int:
    from cvae_jax.data import reading
    from cvae_jax.data.sources import tfds

    name = FLAGS.dataset
    source = reading.DATASETS.get(name)
    if (source is not None and source.tfds is None) or name.endswith(".npz"):
        raise UserError(f"dataset {name} needs no preparation, expected a TFDS name such as mnist")
    tfds.require_tfds_name(name)
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError("preparing needs TensorFlow: install the extra cvae_jax[prepare]")

    folder = paths.data_dir()
    where = {} if folder is None else {"data_dir": folder}
    builder = tfds.tfds_builder(name, file_format="array_record", **where)
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        raise UserError(f"dataset {name} could not be prepared: {type(error).__name__}: {error}") from error
    if source is None and (lacks := tfds.lacking(builder)):
        print(
            f"{name} is ready, without {' and '.join(lacks)}: see --target_feature and --condition_feature of train"
        )
        return 0
    dataset = reading.read_named(name, Path(folder) if folder else None, caching.use())
    classes = f", {dataset.num_classes} classes" if dataset.labelled else ""
    print(
        f"{name} is ready: {len(dataset.train):,} training, {len(dataset.validation):,} validation, "
        f"{len(dataset.test):,} test examples of {dataset.shape}{classes}"
    )
    return 0


def _define_data() -> None:
    flags.DEFINE_string("dataset", None, "Name of a TFDS dataset, such as mnist. Required.", required=True)
    paths.define_data_dir()


if __name__ == "__main__":
    cli.run(main, [usage.section("Data", _define_data), usage.section("Cache", caching.define_flags)])
