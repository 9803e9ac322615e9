"""Draw from a trained model's prior: `python -m experiments.sample --workdir=runs/... --label=7`."""

from __future__ import annotations

import math
from pathlib import Path

from absl import flags

from experiments import betas, cli
from experiments.cli import UserError
from experiments.workdir import chosen_member, define_member_choice, read_run, write_atomically

FLAGS = flags.FLAGS


def main() -> int:
    workdir, output = Path(FLAGS.workdir), Path(FLAGS.output)
    if output.suffix not in (".png", ".npz"):
        raise UserError(f"output is {output}, expected a name ending in .png or .npz")
    if FLAGS.num < 1:
        raise UserError(f"num is {FLAGS.num}, expected a whole number ≥ 1")
    run = read_run(workdir)
    member = chosen_member(workdir, run)
    if run.config.condition == "none" and FLAGS.label is not None:
        raise UserError(f"{workdir} was trained without a condition, expected no --label")

    beta = betas.chosen(run, member, f"{FLAGS.beta:g}")[0] if FLAGS.beta is not None else None

    import jax
    import jax.numpy as jnp
    import numpy as np

    from cvae_jax import plots, sampling
    from cvae_jax.multirate import at_beta
    from experiments import loop, results

    session = loop.open_session(run, cli.use_cache())
    names = session.dataset.class_names
    if FLAGS.label is not None and FLAGS.label not in names:
        raise UserError(f"label is {FLAGS.label}, expected one of {', '.join(names)}")

    part = session.part_of(member)
    trained = results.trained_member(part, results.load_population(session, part, workdir), member)
    if run.config.condition == "none":
        c = jnp.zeros(FLAGS.num, jnp.int32)
    elif FLAGS.label is None:
        c = jnp.arange(FLAGS.num) % len(names)
    else:
        c = jnp.full(FLAGS.num, names.index(FLAGS.label))
    key, mask = jax.random.key(FLAGS.seed), trained.hparams.latent_mask
    params = trained.best.params if beta is None else at_beta(trained.best.params, beta)
    images = np.asarray(sampling.generate(session.model, params, key, c, mask))
    if output.suffix == ".npz":
        write_atomically(output, lambda file: np.savez(file, x=images, c=np.asarray(c)))
    else:
        columns = math.ceil(math.sqrt(FLAGS.num))
        rows = math.ceil(FLAGS.num / columns)
        grid = np.ones((rows * columns, *images.shape[1:]), images.dtype)
        grid[: FLAGS.num] = images
        title = f"class {FLAGS.label}" if FLAGS.label is not None else "samples"
        figure = plots.image_grid(grid.reshape(rows, columns, *images.shape[1:]), title=title)
        write_atomically(output, figure.savefig)
    print(f"wrote {FLAGS.num} samples to {output}")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    define_member_choice()
    flags.DEFINE_string("label", None, "Name of the class to draw; all in turn if not given.")
    flags.DEFINE_integer("num", 16, "Number of samples.")
    flags.DEFINE_integer("seed", 0, "Of the samples.")
    flags.DEFINE_float("beta", None, "Of a multirate model: draw at this beta; at its own if not given.")
    flags.DEFINE_string(
        "output", "samples.png", "File to write: .png for a picture, .npz for arrays x and c."
    )
    cli.define_cache_flags()
    cli.run(main)
