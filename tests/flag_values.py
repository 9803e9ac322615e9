"""Flags of scripts, defined and set separately from those of other tests."""

import functools

from absl import flags

DEFINES = [name for name in dir(flags) if name.startswith("DEFINE_")]


def parse(monkeypatch, modules, define, *arguments):
    """Define flags and set them, for the modules that read them.

    Args:
      monkeypatch: of the test.
      modules: whose `FLAGS` they take the place of, beside absl's own.
      define: defines them.
      *arguments: of the command line.
    """
    values = flags.FlagValues()
    with monkeypatch.context() as patched:
        for name in DEFINES:
            patched.setattr(flags, name, functools.partial(getattr(flags, name), flag_values=values))
        define()
    values(["script", *arguments])
    monkeypatch.setattr(flags, "FLAGS", values)
    for module in modules:
        monkeypatch.setattr(module, "FLAGS", values)
    return values
