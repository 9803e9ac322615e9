"""Scans of digits for tests that compose scenes: scikit-learn's, or one glyph of straight strokes for each digit."""

import numpy as np

from cvae_jax.data.dataset import Split
from cvae_jax.data.sources import tfds

_GLYPHS = """
#### ..#. ###. #### #..# #### #... #### #### ####
#..# ..#. ...# ...# #..# #... #... ...# #..# #..#
#..# ..#. #### .### #### #### #### ..#. #### ####
#..# ..#. #... ...# ...# ...# #..# .#.. #..# ...#
#### ..#. #### #### ...# ###. #### .#.. #### ...#
"""


def scanned(n=600):
    """Real digits of 8×8 pixels, as grey as MNIST's."""
    split = tfds.digits().train
    return Split((15 * split.x[:n]).astype(np.uint8), split.c[:n])


def glyphs():
    """Ten images of 20×16 pixels, one for each digit, that are easy to distinguish."""
    rows = [[list(part) for part in line.split()] for line in _GLYPHS.split("\n") if line]
    x = 255 * (np.array(rows) == "#").transpose(1, 0, 2).astype(np.uint8)
    return Split(x.repeat(4, axis=1).repeat(4, axis=2)[..., None], np.arange(10, dtype=np.int32))
