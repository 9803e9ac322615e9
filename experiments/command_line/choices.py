"""The conditions that the flags of `experiments.sample` choose."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags

from cvae_jax.conditions import Condition, Label, Several, Text
from cvae_jax.conditions.several import parts_of
from cvae_jax.conditions.text import encode_text
from cvae_jax.data.sources.cache import read_own_npz
from cvae_jax.errors import DataError, UserError

if TYPE_CHECKING:
    from cvae_jax.data.dataset import Description, Split
    from cvae_jax.runs.session import RunModel

FLAGS = flags.FLAGS

# By dataset a function from a text to its words that the model does not know. Applications add theirs.
UNKNOWN_WORDS: dict[str, Callable[[str], tuple[str, ...]]] = {}
# Flags of labels that are one of several conditions, by the label's name, with their help. Applications add theirs;
# a label without one is chosen by `--label`.
LABELS: dict[str, str] = {}


def define_flags() -> None:
    """The flags that choose a condition."""
    flags.DEFINE_string("label", None, "Class to sample, by its name; if not set, all classes in turn.")
    flags.DEFINE_string("text", None, "Text to sample; if not set, the texts of the dataset in turn.")
    for name, text in LABELS.items():
        flags.DEFINE_string(name, None, text)
    flags.DEFINE_integer(
        "example", None,
        "Sample at the condition of this test example, counted from 0; this reads the training data.",
    )  # fmt: skip
    flags.DEFINE_string(
        "condition_file", None,
        "Sample at conditions of your own, of any kind: an .npz of the array c, or of an array for each of several "
        "conditions by its name, in the units of the training data.",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Conditions with a title.

    Attributes:
      c: as the model takes them, with a leading axis of samples.
      title: of a picture of them.
      raw: as the user has them, where they are the user's own.
      limits: the values of x that it draws black and white.
    """

    c: Any
    title: str
    raw: Any = None
    limits: tuple[float, float] = (0.0, 1.0)

    def __len__(self) -> int:
        """Number of samples."""
        return len(jax.tree.leaves(self.c)[0])

    def in_turn(self, num: int) -> Chosen:
        """So many of the conditions, from the first again after the last."""
        rows = np.arange(num) % len(self)
        c, raw = jax.tree.map(lambda a: a[rows], (self.c, self.raw))
        return dataclasses.replace(self, c=c, raw=raw)


def own(data: Description) -> Chosen | None:
    """The conditions of `--condition_file`, None if it is not set.

    Args:
      data: that the run was trained on.

    Raises:
      UserError: if the file cannot be read, or its arrays cannot be conditions of the run.
    """
    if FLAGS.condition_file is None:
        return None
    others = [name for name in ("label", "text", *LABELS, "example") if FLAGS[name].value is not None]
    if others:
        raise UserError(f"condition_file is {FLAGS.condition_file}, expected none with --{others[0]}")
    if data.condition is None:
        raise UserError(
            f"condition_file is {FLAGS.condition_file}, expected none: the run was trained without a condition"
        )
    path = Path(FLAGS.condition_file)
    arrays = read_own_npz(path, "of conditions", what="condition_file")
    names = [name or "c" for name in _names_of(data.condition)]
    missing = [name for name in names if name not in arrays]
    if missing:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise UserError(f"{path} has no array {missing[0]}, expected {', '.join(names)}; it holds {held}")
    several = isinstance(data.condition, Several)
    raw = {name: arrays[name] for name in names} if several else arrays["c"]
    try:
        c = data.conditions(raw)
    except DataError as error:
        raise UserError(f"{path}: {error}") from None
    return Chosen(c, f"conditions of {path.name}", raw)


def require_known(condition: Condition | None) -> None:
    """Refuse flags that choose what a condition does not have.

    Raises:
      UserError: naming the flag.
    """
    known = _known_flags(condition)
    for name in ("label", "text", *LABELS, "example"):
        if FLAGS[name].value is not None and name not in known:
            trained = "without a condition" if condition is None else f"with the condition {condition.name}"
            raise UserError(f"the run was trained {trained}, expected no --{name}")


def chosen(session: RunModel, examples: Split, num: int) -> Chosen:
    """The conditions that the flags choose.

    Args:
      session: of the run.
      examples: test examples, whose conditions are drawn where no flag names others.
      num: how many samples.

    Raises:
      UserError: for what the run's condition does not have.
    """
    data, condition = session.data, session.model.condition
    if condition is None:
        return Chosen(np.zeros(num, np.int32), "samples")
    if isinstance(condition, Label):
        return _of_label(data, num)
    rows = np.arange(num) % len(examples)
    if FLAGS.example is not None:
        if not 0 <= FLAGS.example < len(examples):
            raise UserError(f"example is {FLAGS.example}, expected 0 to {len(examples) - 1}")
        rows = np.full(num, FLAGS.example)
    c = examples.take(rows).c
    if isinstance(condition, Several):
        c = {name: _part(data, name, part, c[name]) for name, part in condition.parts}
    else:
        c = _part(data, "", condition, np.asarray(c))
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


def _of_label(data: Description, num: int) -> Chosen:
    names = data.class_names
    if FLAGS.label is None:
        classes = np.array(data.seen_classes)
        c, title = classes[np.arange(num) % len(classes)], "samples"
    else:
        c, title = np.full(num, _place("label", FLAGS.label, names)), f"class {FLAGS.label}"
    values = data.condition.values if isinstance(data.condition, Label) else ()
    return Chosen(c, title, raw=np.array(values)[c] if values else None)


def _part(data: Description, name: str, condition: Condition, c: np.ndarray) -> np.ndarray:
    """One of the conditions: as the flags choose it, or all there are in turn, or as of the test examples."""
    num, names = len(c), data.names
    names = names if isinstance(names, tuple) else names.get(name, ())
    match condition:
        case Text(length):
            if FLAGS.text is not None:
                return np.repeat(_encoded(data, FLAGS.text, length, names), num, axis=0)
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


def _encoded(data: Description, text: str, length: int, names: Sequence[str]) -> np.ndarray:
    if not text.strip():
        raise UserError("text is empty, expected words")
    if data.name in UNKNOWN_WORDS:
        unknown = UNKNOWN_WORDS[data.name](text)
    else:
        unknown = (text,) if names and text not in names else ()
    if unknown:
        warnings.warn(f"unknown words, drawn as well as it can be: {', '.join(unknown)}", stacklevel=2)
    try:
        return encode_text([text], length)
    except DataError as error:
        raise UserError(str(error)) from None
