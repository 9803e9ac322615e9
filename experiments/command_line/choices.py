"""The conditions that the flags of `experiments.sample` choose."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from cvae_jax.conditions import Condition, Label, Several, Text
from cvae_jax.conditions.several import parts_of
from cvae_jax.conditions.text import encode_text
from cvae_jax.errors import DataError, UserError

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Dataset
    from cvae_jax.runs.session import Session

FLAGS = flags.FLAGS

# By dataset a function from a text to its words that the model does not know. Applications add theirs.
UNKNOWN_WORDS: dict[str, Callable[[str], tuple[str, ...]]] = {}
# Flags of labels that are one of several conditions, by the label's name, with their help. Applications add theirs;
# a label without one is chosen by `--label`.
LABELS: dict[str, str] = {}


def define_flags() -> None:
    """The flags that choose a condition."""
    flags.DEFINE_string("label", None, "Name of the class to draw; all in turn if not set.")
    flags.DEFINE_string("text", None, "Text to draw; those of the dataset in turn if not set.")
    for name, text in LABELS.items():
        flags.DEFINE_string(name, None, text)
    flags.DEFINE_integer("example", None, "Number of the test example whose condition to draw.")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Conditions with a title.

    Attributes:
      c: with a leading axis of samples.
      title: of a picture of them.
    """

    c: Any
    title: str


def chosen(session: Session, num: int) -> Chosen:
    """The conditions that the flags choose.

    Args:
      session: of the run.
      num: how many samples.

    Raises:
      UserError: for what the run's condition does not have.
    """
    dataset, condition = session.dataset, session.model.condition
    known = _known_flags(condition)
    for name in ("label", "text", *LABELS, "example"):
        if FLAGS[name].value is not None and name not in known:
            trained = "without a condition" if condition is None else f"with the condition {condition.name}"
            raise UserError(f"the run was trained {trained}, expected no --{name}")
    if condition is None:
        return Chosen(np.zeros(num, np.int32), "samples")
    if isinstance(condition, Label):
        return _of_label(dataset, num)
    rows = np.arange(num) % len(dataset.test)
    if FLAGS.example is not None:
        if not 0 <= FLAGS.example < len(dataset.test):
            raise UserError(f"example is {FLAGS.example}, expected 0 to {len(dataset.test) - 1}")
        rows = np.full(num, FLAGS.example)
    c = dataset.test.take(rows).c
    if isinstance(condition, Several):
        c = {name: _part(dataset, name, part, c[name]) for name, part in condition.parts}
    else:
        c = _part(dataset, "", condition, np.asarray(c))
    words = [FLAGS[name].value for name in ("text", *LABELS, "label")]
    return Chosen(c, ", ".join(word for word in words if word) or "samples")


def _known_flags(condition: Condition | None) -> list[str]:
    """The flags that can choose a condition."""
    if condition is None:
        return []
    if isinstance(condition, Label):
        return ["label"]
    known = ["example"]
    for part, name in zip(parts_of(condition), _names_of(condition), strict=True):
        known += ["text"] if isinstance(part, Text) else []
        known += [_label_flag(name)] if isinstance(part, Label) else []
    return known


def _names_of(condition: Condition) -> list[str]:
    return [name for name, _ in condition.parts] if isinstance(condition, Several) else [""]


def _of_label(dataset: Dataset, num: int) -> Chosen:
    names = dataset.class_names
    if FLAGS.label is None:
        return Chosen(np.arange(num) % len(names), "samples")
    return Chosen(np.full(num, _place("label", FLAGS.label, names)), f"class {FLAGS.label}")


def _part(dataset: Dataset, name: str, condition: Condition, c: np.ndarray) -> np.ndarray:
    """One of the conditions: as the flags choose it, or all there are in turn, or as of the test examples."""
    num, names = len(c), dataset.names
    names = names if isinstance(names, tuple) else names.get(name, ())
    match condition:
        case Text(length):
            if FLAGS.text is not None:
                return np.repeat(_encoded(dataset, FLAGS.text, length, names), num, axis=0)
            if names and FLAGS.example is None:
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
    return name if name in LABELS else "label"


def _place(flag: str, value: str, names: Sequence[str]) -> int:
    if value not in names:
        raise UserError(f"{flag} is {value}, expected one of {', '.join(names)}")
    return list(names).index(value)


def _encoded(dataset: Dataset, text: str, length: int, names: Sequence[str]) -> np.ndarray:
    if not text.strip():
        raise UserError("text is empty, expected words")
    if dataset.name in UNKNOWN_WORDS:
        unknown = UNKNOWN_WORDS[dataset.name](text)
    else:
        unknown = (text,) if names and text not in names else ()
    if unknown:
        warnings.warn(f"unknown words, drawn as well as it can be: {', '.join(unknown)}", stacklevel=2)
    try:
        return encode_text([text], length)
    except DataError as error:
        raise UserError(str(error)) from None
