"""Draw from a trained model's prior: `python -m experiments.sample --workdir=runs/... --label=7`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from cvae_jax.runs.workdir import read_run
from cvae_jax.training.config import traced_options
from experiments import betas, caching, choices, cli, measures
from experiments.workdir import chosen_member, define_member_choice, require_writable

if TYPE_CHECKING:
    import numpy as np

FLAGS = flags.FLAGS

# Of silence between words.
_GAP_SECONDS = 0.3


def main() -> int:
    workdir, output = Path(FLAGS.workdir), Path(FLAGS.output)
    if output.suffix not in (".png", ".npz", ".wav"):
        raise UserError(f"output is {output}, expected a name ending in .png, .npz or .wav")
    run = read_run(workdir)
    require_writable(output, workdir, run)
    if output.suffix == ".wav" and run.config.data.dataset != "spoken_digit":
        raise UserError(
            f"output is {output}, expected .png or .npz of {run.config.data.dataset}: spoken_digit is heard"
        )
    member = chosen_member(workdir, run)
    if FLAGS.guidance is not None and not traced_options(run.members[member]).get("condition_dropout"):
        raise UserError(
            f"guidance is {FLAGS.guidance:g}, expected none of a model trained with --condition_dropout=0"
        )
    beta = betas.chosen(run, member, repr(FLAGS.beta))[0] if FLAGS.beta is not None else None

    import jax
    import jax.numpy as jnp
    import numpy as np

    from cvae_jax.evaluation import sampling
    from cvae_jax.objectives.multirate import at_beta
    from cvae_jax.rng import root_key
    from cvae_jax.runs.session import load_member, open_session
    from cvae_jax.training import memory

    session = open_session(run, caching.use())
    # The draws, their means and their pictures.
    memory.require_free(f"num is {FLAGS.num}", 3 * FLAGS.num * 4 * math.prod(session.dataset.shape))
    wanted = choices.chosen(session, FLAGS.num)
    trained = load_member(session, workdir, member)
    params = trained.best.params if beta is None else at_beta(trained.best.params, beta)
    x = sampling.generate(
        session.model, params, root_key(FLAGS.seed), jax.tree.map(jnp.asarray, wanted.c),
        FLAGS.guidance, FLAGS.temperature,
    )  # fmt: skip
    _write(output, np.asarray(x), wanted)
    print(f"wrote {FLAGS.num} samples to {output}")
    return 0


def _write(output: Path, x: np.ndarray, wanted: choices.Chosen) -> None:
    """Write samples in the format of the file's name: arrays, one sound after another, or a table of pictures."""
    import numpy as np

    from cvae_jax.data import audio
    from cvae_jax.plots import drawing

    match output.suffix:
        case ".npz":
            c = wanted.c if isinstance(wanted.c, dict) else {"c": wanted.c}
            write_atomically(output, lambda file: np.savez(file, x=x, **c))
        case ".wav":
            gap = np.zeros(int(_GAP_SECONDS * audio.SAMPLE_RATE), np.float32)
            parts = [sound for one in x for sound in (audio.waveform(one[..., 0]), gap)][:-1]
            write_atomically(output, lambda file: audio.write_wav(file, np.concatenate(parts)))
        case _:
            columns = math.ceil(math.sqrt(FLAGS.num))
            rows = math.ceil(FLAGS.num / columns)
            grid = np.ones((rows * columns, *x.shape[1:]), x.dtype)
            grid[: FLAGS.num] = x
            figure = drawing.image_grid(grid.reshape(rows, columns, *x.shape[1:]), title=wanted.title)
            write_atomically(output, figure.savefig)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    define_member_choice()
    choices.define_flags()
    flags.DEFINE_integer("num", 16, "Number of samples.")
    flags.DEFINE_integer("seed", 0, "Of the samples.")
    flags.DEFINE_float("beta", None, "Of a multirate model: draw at this beta; at its own if not set.")
    flags.DEFINE_float(
        "guidance", None,
        "Of a model trained with --condition_dropout: 0 draws as without a condition, 1 under it, more beyond it.",
    )  # fmt: skip
    measures.define_temperature("Draw")
    flags.DEFINE_string(
        "output", "samples.png",
        "File to write: .png for a picture, .npz for arrays x and c, .wav for the sound of spoken words.",
    )  # fmt: skip
    caching.define_flags()
    cli.run(main)
