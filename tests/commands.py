"""Parses commands as the scripts would, in one process: reads them as JSON, and writes what each script says to them.

Input: a list of commands, each a list of the script's module and its arguments. Output: a list with an error and the
folder of the results for each command, and the names of all flags.
"""

import json
import runpy
import sys

from absl import app, flags

from cvae_jax.errors import UserError
from experiments.command_line import cli, settings

FLAGS = flags.FLAGS
OF_ABSL = set(FLAGS)


def answers(module, commands, names):
    """What a script says to each of its commands: an error, or the folder that it trains in; adds the flags' names."""
    found = []

    def parse(*_):
        names.update(set(FLAGS) - OF_ABSL)
        found.extend(answer(module, arguments) for arguments in commands)

    cli.run = app.run = parse
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    for name in set(FLAGS) - OF_ABSL:
        delattr(FLAGS, name)
    return found


def answer(module, arguments):
    """The error and the folder of one command."""
    for name in FLAGS:
        FLAGS[name].unparse()
    try:
        left_over = FLAGS([module, *arguments])[1:]
        if left_over:
            return f"unexpected {left_over}", None
        if module == "experiments.train" and FLAGS.config is None:
            return None, str(settings.single_run()[1])
        if module == "experiments.sweep":
            settings.sweep_members()
    except (UserError, flags.Error) as error:
        return str(error), None
    return None, getattr(FLAGS, "workdir", None)


def main():
    commands, by_module, names = json.load(sys.stdin), {}, set()
    for module, *arguments in commands:
        by_module.setdefault(module, []).append(arguments)
    found = {module: iter(answers(module, each, names)) for module, each in by_module.items()}
    json.dump(
        {"answers": [next(found[module]) for module, *_ in commands], "flags": sorted(names)}, sys.stdout
    )


if __name__ == "__main__":
    main()
