"""The residual network: sizes, how the condition reaches it, and that it is one of many members as it is alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.conditions import Label, Text
from cvae_jax.conditions.text import encode_text
from cvae_jax.errors import DataError
from cvae_jax.likelihoods import Gaussian
from cvae_jax.model import CVAE
from cvae_jax.networks import ResNet
from cvae_jax.networks.resnet import AttentionBlock, ResidualBlock, resolutions
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.embedding import MaskedCondition
from cvae_jax.priors import Conditional

TEXT = Text(8)


def model_of(shape, condition=Label(3)):  # noqa: B008
    return CVAE(ResNet(channels=4), Gaussian(), Conditional(), condition, shape=shape, capacity=3)


def moved(params):
    """Parameters that are nowhere zero: blocks start as the identity."""
    rng = np.random.default_rng(0)
    return params | {
        "params": jax.tree.map(
            lambda a: a + jnp.asarray(rng.normal(0, 0.1, a.shape), jnp.float32), params["params"]
        )
    }


@pytest.mark.parametrize(
    "shape", [(16, 16, 1), (17, 23, 3), pytest.param((64, 64, 3), marks=pytest.mark.slow)]
)
def test_output_has_the_shape_of_x(shape):
    model = model_of(shape)
    params = jax.jit(model.init)(jax.random.key(0))
    c = jnp.array([0, 2])
    q = jax.jit(model.encode)(params, jnp.ones((2, *shape)), c)
    assert q.mean.shape == (2, 3)
    assert model.mean(jax.jit(model.decode)(params, q.mean, c)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("shape", "sides"), [((28, 28, 1), [28, 14, 7]), ((32, 32, 3), [32, 16, 8, 4]), ((6, 9, 1), [6])]
)
def test_resolutions_end_at_four_to_seven_pixels(shape, sides):
    sizes = resolutions(shape, 8)
    assert [height for height, _, _ in sizes] == sides
    assert [channels for _, _, channels in sizes] == [8, 16, 32, 32][: len(sides)]


def test_blocks_start_as_the_identity():
    h, context = jax.random.normal(jax.random.key(0), (2, 4, 4, 8)), Context(jnp.ones((2, 3)))
    for block, more in ((ResidualBlock(), (0,)), (AttentionBlock(), ())):
        found, _ = block.init_with_output(jax.random.key(1), h, context, *more)
        np.testing.assert_array_equal(found, h)


def test_what_is_no_image_is_refused():
    with pytest.raises(DataError, match="expected"):
        ResNet().require_shape((50,))


@pytest.mark.slow
def test_words_reach_the_decoder_by_attention():
    """With the embedding held at zero the words alone change the output."""
    model = model_of((8, 8, 1), TEXT)
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    c = jnp.asarray(encode_text(["red dog", "dog red", "cat"], 8))
    embeddings = jax.jit(model.embed)(params, c)
    without = embeddings._replace(decoder=embeddings.decoder._replace(e=jnp.zeros_like(embeddings.decoder.e)))
    outputs = np.asarray(model.mean(jax.jit(model.decode)(params, jnp.ones((3, 3)), without)))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-4


def test_a_dropped_text_has_no_effect():
    model = model_of((8, 8, 1), TEXT)
    params = moved(jax.jit(model.init)(jax.random.key(0)))
    decode = jax.jit(model.decode)
    mask, z = jnp.array([0.0, 1.0]), jnp.ones((2, 3))
    one, two = (
        np.asarray(model.mean(decode(params, z, MaskedCondition(jnp.asarray(encode_text(texts, 8)), mask))))
        for texts in (["red", "red"], ["a blue", "a blue"])
    )
    np.testing.assert_array_equal(one[0], two[0])
    assert np.abs(one[1] - two[1]).max() > 1e-4
