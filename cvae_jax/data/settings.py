"""Settings of the data: which dataset, which of its features, and what happens to its examples."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from cvae_jax.data.augmentation import AUGMENTATIONS
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods.base import Likelihood
from cvae_jax.options import SEED, Part, static


@dataclasses.dataclass(frozen=True)
class Data(Part):
    """Which data, and what happens to them; shared by all members of a sweep.

    Example:
      >>> from cvae_jax.likelihoods import Bernoulli
      >>> Data(dataset="mnist").binarization(Bernoulli())
      'dynamic'
    """

    kind: ClassVar[str] = "data"

    dataset: str = static(
        "digits",
        help="digits; shapes or shapes32, drawn from known factors, 64x64 or 32x32 pixels; the path of an .npz of your "
        "own; or the name of a TFDS dataset, such as mnist, cifar10 or dsprites.",
    )
    target_feature: str = static("image", help="Feature of a TFDS dataset to model.")
    condition_feature: tuple[str, ...] = static(
        (),
        help="Feature of a TFDS dataset, or array of an .npz without _train, that is the condition, if it does not "
        "have the usual name; with commas between for several.",
    )
    binarize: str = static(
        "",
        choices=("", "dynamic", "static", "none"),
        help="How grey pixels are made binary: dynamic draws them anew at every step, static once, none keeps them "
        "grey. If not set, dynamic for the bernoulli likelihood, none for others.",
    )
    augment: tuple[str, ...] = static(
        (),
        choices=AUGMENTATIONS,
        help="Random changes of the training images at every step.",
    )
    data_seed: int = static(0, bounds=SEED, help="Seed of the order of examples and of their binarization.")

    def check(self) -> None:
        """Refuse an augmentation that is named twice.

        Raises:
          SettingError: naming it.
        """
        if len(set(self.augment)) < len(self.augment):
            raise SettingError(f"augment is {','.join(self.augment)}, expected each at most once")

    def binarization(self, likelihood: Likelihood) -> str:
        """How grey pixels become binary under a likelihood: `dynamic`, `static` or `none`."""
        return self.binarize or ("dynamic" if likelihood.binary else "none")
