"""What a person asks a trained model to draw: flags of `experiments.sample` as conditions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from cvae_jax.conditions.kinds import Kind, Label, Text, encode_text
from cvae_jax.errors import UserError
from experiments.cli import say

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Dataset
    from experiments.loop import Session

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags that name a condition."""
    flags.DEFINE_string("label", None, "Name of the class to draw; all in turn if not given.")
    flags.DEFINE_string("text", None, "Text to draw or to speak; those of the dataset in turn if not given.")
    flags.DEFINE_string("speaker", None, "Who is to speak it; all in turn if not given.")
    flags.DEFINE_integer("example", None, "Number of the test example whose condition to draw.")


@dataclasses.dataclass(frozen=True)
class Asked:
    """Conditions, and what a person calls them.

    Attributes:
      c: with a leading axis of samples.
      title: of a picture of them.
    """

    c: Any
    title: str


def asked(session: Session, num: int) -> Asked:
    """The conditions that the flags ask for.

    Args:
      session: of the run.
      num: how many samples.

    Raises:
      UserError: for what the run's condition does not have.
    """
    dataset, condition = session.dataset, session.run.config.condition
    said = [name for name in ("label", "text", "speaker", "example") if FLAGS[name].value is not None]
    kinds = dataset.condition if isinstance(dataset.condition, tuple) else (("", dataset.condition),)
    known = {"none": [], "label": ["label"]}.get(condition, ["example"])
    if condition not in ("none", "label"):
        known += ["text"] if any(isinstance(kind, Text) for _, kind in kinds) else []
        known += [_label_flag(name) for name, kind in kinds if isinstance(kind, Label)]
    for name in said:
        if name not in known:
            trained = "without a condition" if condition == "none" else f"with the condition {condition}"
            raise UserError(f"the run was trained {trained}, expected no --{name}")
    if condition == "none":
        return Asked(np.zeros(num, np.int32), "samples")
    if condition == "label":
        return _of_label(dataset, num)
    rows = np.arange(num) % len(dataset.test)
    if FLAGS.example is not None:
        if not 0 <= FLAGS.example < len(dataset.test):
            raise UserError(f"example is {FLAGS.example}, expected 0 to {len(dataset.test) - 1}")
        rows = np.full(num, FLAGS.example)
    c = dataset.test.take(rows).c
    if not isinstance(c, dict):
        c = _part(dataset, "text", kinds[0][1], c)
    else:
        c = {name: _part(dataset, name, kind, c[name]) for name, kind in kinds}
    words = [FLAGS.text, FLAGS.speaker, FLAGS.label]
    return Asked(c, ", ".join(word for word in words if word) or "samples")


def _of_label(dataset: Dataset, num: int) -> Asked:
    names = dataset.class_names
    if FLAGS.label is None:
        return Asked(np.arange(num) % len(names), "samples")
    return Asked(np.full(num, _place("label", FLAGS.label, names)), f"class {FLAGS.label}")


def _part(dataset: Dataset, name: str, kind: Kind | None, c: np.ndarray) -> np.ndarray:
    """One of the conditions: as the flags say, or all there are in turn, or as of the test examples."""
    num, names = len(c), dataset.names.get(name)
    match kind:
        case Text(length):
            if FLAGS.text is not None:
                return np.repeat(_encoded(dataset, FLAGS.text, length), num, axis=0)
            if names is not None and FLAGS.example is None:
                return encode_text([names[i % len(names)] for i in range(num)], length)
        case Label(num_classes):
            names = names or tuple(map(str, range(num_classes)))
            if (value := FLAGS[_label_flag(name)].value) is not None:
                return np.full(num, _place(_label_flag(name), value, names), np.int32)
            if FLAGS.example is None:
                return (np.arange(num) % num_classes).astype(np.int32)
    return c


def _label_flag(name: str) -> str:
    """The flag of a label that is one of several conditions."""
    return "speaker" if name == "speaker" else "label"


def _place(flag: str, value: str, names: tuple[str, ...]) -> int:
    if value not in names:
        raise UserError(f"{flag} is {value}, expected one of {', '.join(names)}")
    return names.index(value)


def _encoded(dataset: Dataset, text: str, length: int) -> np.ndarray:
    if not text.strip():
        raise UserError("text is empty, expected words")
    unknown = _unknown_words(dataset, text)
    if unknown:
        say("warning", f"unknown words, drawn as well as it can be: {', '.join(unknown)}")
    try:
        return encode_text([text], length)
    except ValueError as error:
        raise UserError(str(error)) from None


def _unknown_words(dataset: Dataset, text: str) -> tuple[str, ...]:
    """Words that training never saw."""
    if dataset.name == "captions":
        from experiments.tasks.captions.parser import unknown_words

        return unknown_words(text)
    names = dataset.names.get("text")
    return () if names is None or text in names else (text,)
