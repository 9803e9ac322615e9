"""Conditions c: what each is made of, and the network that embeds it."""

from cvae_jax.conditions.audio import Audio
from cvae_jax.conditions.base import Condition
from cvae_jax.conditions.image import Image
from cvae_jax.conditions.label import Label
from cvae_jax.conditions.observed import Observed
from cvae_jax.conditions.several import Several
from cvae_jax.conditions.text import Text
from cvae_jax.conditions.vector import Vector
from cvae_jax.options import Table

CONDITIONS = Table(
    Condition,
    {
        "label": Label,
        "vector": Vector,
        "image": Image,
        "text": Text,
        "audio": Audio,
        "observed": Observed,
    },
)

__all__ = ["CONDITIONS", "Audio", "Condition", "Image", "Label", "Observed", "Several", "Text", "Vector"]
