"""Sample from a trained model: `python -m experiments.sample --workdir=runs/... --label=7`.

z is drawn from the prior p(z|c); a sample is the mean of p(x|z,c).
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.runs.workdir import read_run
from cvae_jax.training.config import traced_options
from experiments import tasks
from experiments.command_line import betas, caching, choices, cli, usage
from experiments.reports import measures
from experiments.reports.outputs import FORMATS, require_format
from experiments.reports.workdir import (
    chosen_member,
    define_data_flags,
    define_model_choice,
    open_with_data,
    require_writable,
)

FLAGS = flags.FLAGS

_NUM = 16


def main() -> int:
    workdir, output = Path(FLAGS.workdir), Path(FLAGS.output)
    run = read_run(workdir)
    form = require_format(output, run.config.data.dataset)
    require_writable(output, workdir, run)
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
    from cvae_jax.runs.session import load_member, open_model
    from cvae_jax.training import memory

    cache, session = caching.use(), open_model(workdir)
    own = choices.own(session.data)
    num = (_NUM if own is None else len(own)) if FLAGS.num is None else FLAGS.num
    # The draws, their means and their pictures.
    memory.require_free(f"num is {num}", 3 * num * 4 * math.prod(session.data.shape))
    choices.require_known(session.model.condition)
    examples = session.examples if FLAGS.example is None else open_with_data(workdir, run, cache).dataset.test
    wanted = choices.chosen(session, examples, num) if own is None else own.in_turn(num)
    trained = load_member(session, workdir, member)
    params = trained.best.params if beta is None else at_beta(trained.best.params, beta)
    x = sampling.generate(
        session.model, params, root_key(FLAGS.seed), jax.tree.map(jnp.asarray, wanted.c),
        FLAGS.guidance, FLAGS.temperature,
    )  # fmt: skip
    form.write(output, np.asarray(x), dataclasses.replace(wanted, limits=session.data.limits))
    print(f"wrote {num} samples to {output}")
    return 0


def _define_sampling() -> None:
    flags.DEFINE_integer(
        "num", None, f"Number of samples. If not set, {_NUM}, or one for each condition of --condition_file."
    )
    measures.define_temperature("the samples")
    flags.DEFINE_integer("seed", 0, "Seed of the draws of z.")
    flags.DEFINE_float(
        "guidance", None,
        "How far the output follows the condition, of a model trained with --condition_dropout: 0 ignores it, 1 is as "
        "trained, more exaggerates it.",
    )  # fmt: skip
    flags.DEFINE_float("beta", None, "The β to sample at, of a multirate model; if not set, its own.")


def _define_output() -> None:
    kinds = "; ".join(f"{end} for {each.text}" for end, each in FORMATS.items())
    flags.DEFINE_string("output", "samples.png", f"File to write, by the end of its name: {kinds}.")


if __name__ == "__main__":
    tasks.register()
    sections = [
        usage.section("Model", define_model_choice),
        usage.section("Condition", choices.define_flags),
        usage.section("Samples", _define_sampling),
        usage.section("Output", _define_output),
        usage.section("Data, for --example", define_data_flags),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
