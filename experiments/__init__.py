"""The scripts: each is started with `python -m experiments.NAME`."""

import sys

from experiments.command_line import interrupts

# So Python starts a script, whose imports take seconds: Ctrl-C must not show where they were.
if sys.argv[:1] == ["-m"]:
    interrupts.leave_at_once()
