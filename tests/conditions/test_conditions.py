"""Conditions of every kind: they reach every part of the model, unless they are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params
from compiled import decode, draw, embed, encode, rate

from cvae_jax import draws
from cvae_jax import model as cvae
from cvae_jax.conditions.encoders import observe
from cvae_jax.conditions.kinds import Audio, Image, Label, Observed, Text, Vector, encode_text
from cvae_jax.conditions.text import TextEncoder
from cvae_jax.config import Config
from cvae_jax.errors import SettingError
from cvae_jax.model import CVAE
from cvae_jax.nn.embedding import MaskedCondition

SHAPE, Z = (8, 8, 1), 3
MASK = jnp.ones(Z, bool)
RNG = np.random.default_rng(0)
KINDS = {
    "label": Label(4),
    "vector": Vector(5),
    "image": Image((8, 8, 1)),
    "text": Text(9),
    "audio": Audio((16, 8, 1)),
    "text,label": (("text", Text(9)), ("speaker", Label(4))),
}


def conditions(kind):
    """Two different conditions."""
    match kind:
        case Label():
            return jnp.array([1, 2])
        case Vector(size):
            return jnp.asarray(RNG.normal(size=(2, size)), jnp.float32)
        case Image(shape) | Audio(shape):
            return jnp.asarray(RNG.normal(size=(2, *shape)), jnp.float32)
        case Text(length):
            return jnp.asarray(encode_text(["one", "three"], length))
        case tuple():
            return {name: conditions(part) for name, part in kind}


def make(condition, network="mlp", **fields):
    hidden = {"hidden": (16, 16)} if network == "mlp" else {}
    config = Config(condition=condition, network=network, **hidden, **fields)
    kind = KINDS.get(condition, Observed(SHAPE, 1))
    model = CVAE(config, SHAPE, kind, Z)
    c = conditions(kind) if condition in KINDS else jnp.zeros((2, *SHAPE), bool)
    x = jnp.asarray(RNG.uniform(size=(2, *SHAPE)) > 0.5, jnp.float32)
    return model, any_params(model, jax.random.key(0), x, c, MASK, jax.random.key(1)), x, c


def swapped(c):
    return jax.tree.map(lambda a: a[::-1], c)


def first(tree):
    return jax.tree.map(lambda a: np.asarray(a[0]), tree)


def differ(a, b):
    return all(
        np.max(np.abs(p - q)) > 1e-4 for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    ("condition", "network", "conditioning"),
    [
        *((condition, network, "film") for condition in KINDS for network in ("mlp", "conv")),
        ("label", "mlp", "concat"),
        ("image", "conv", "concat"),
        *(
            pytest.param(condition, network, "concat", marks=pytest.mark.slow)
            for condition in KINDS
            for network in ("mlp", "conv")
            if (condition, network) not in (("label", "mlp"), ("image", "conv"))
        ),
    ],
)
def test_only_the_condition_changes_every_output(condition, network, conditioning):
    model, params, x, c = make(condition, network, prior="conditional", conditioning=conditioning)
    z, keys = jnp.ones((2, Z)), jax.random.split(jax.random.key(2), 2)

    @jax.jit
    def outputs(c):
        q = cvae.encode(model, params, x, c, MASK)
        return (
            q.mean,
            cvae.decode(model, params, z, c, MASK),
            draws.sample_prior(model, params, keys, c, MASK),
        )

    now, other = (outputs(each) for each in (c, swapped(c)))
    for a, b in zip(now, other, strict=True):
        assert differ(first(a), first(b))


def test_a_part_of_several_conditions_is_enough():
    model, params, _, c = make("text,label")
    decoded = decode(model, params, jnp.ones((2, Z)), c, MASK)
    for name in c:
        other = c | {name: c[name][::-1]}
        assert differ(first(decoded), first(decode(model, params, jnp.ones((2, Z)), other, MASK)))


@pytest.mark.parametrize("condition", ["image", "text,label"])
def test_a_dropped_condition_has_no_effect(condition):
    model, params, x, c = make(condition, "conv", prior="conditional", conditioning="film")
    z = jnp.ones((2, Z))

    def outputs(c, mask):
        masked = MaskedCondition(c, jnp.array(mask, jnp.float32))
        q = encode(model, params, x, masked, MASK)
        return q.mean, decode(model, params, z, masked, MASK), rate(model, params, q, z, masked, MASK)

    for now, other in zip(outputs(c, [0, 1]), outputs(swapped(c), [0, 1]), strict=True):
        np.testing.assert_array_equal(now[0], other[0])
        assert differ(np.asarray(now[1]), np.asarray(other[1]))


@pytest.mark.slow
def test_embedding_once_changes_nothing():
    model, _, x, c = make("text,label", prior="flow", share_condition=False)
    params = jax.jit(model.init)(jax.random.key(0), x, c, MASK, jax.random.key(1))
    keys = jax.random.split(jax.random.key(2), 2)
    raw = draw(model, params, x, c, keys, MASK)
    embedded = draw(model, params, x, embed(model, params, c), keys, MASK)
    jax.tree.map(np.testing.assert_array_equal, raw, embedded)


@pytest.mark.parametrize(("prior", "encoders"), [("standard", 2), ("conditional", 3)])
def test_each_part_may_have_an_encoder_of_its_own(prior, encoders):
    _, params, *_ = make("vector", prior=prior, share_condition=False)
    _, shared, *_ = make("vector", prior=prior)
    assert sum("embedding" in name for name in params["params"]) == encoders
    assert sum("embedding" in name for name in shared["params"]) == 1


@pytest.mark.parametrize("network", ["conv", "mlp"])
def test_a_convolutional_decoder_is_told_a_text_by_its_words_alone(network):
    model, params, _, c = make("text", network, prior="conditional")
    told = embed(model, params, c)
    assert (told.decoder.words is None) == (network == "mlp")
    assert (told.decoder.e is None) == (network == "conv")
    assert told.encoder.e.shape == told.prior.e.shape == (2, TextEncoder.features)


def test_a_text_too_long_is_named():
    with pytest.raises(ValueError, match="'eleven' has 6 bytes, expected at most 5"):
        encode_text(["one", "eleven"], 5)


# Completion


@pytest.mark.parametrize("quadrants", [1, 2, 3])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_what_is_observed_is_certain_and_the_rest_is_not_seen(network, quadrants):
    model, params, x, _ = make("observed", network, prior="conditional")
    kind = Observed(SHAPE, quadrants)
    model = model.clone(condition=kind)
    assert kind.mask.mean() == quadrants / 4
    c = observe(x, kind)
    z = jnp.ones((2, Z))
    logits = decode(model, params, z, c, MASK)
    np.testing.assert_array_equal(jax.nn.sigmoid(logits)[:, kind.mask[..., 0]], x[:, kind.mask[..., 0]])
    hidden = jax.vmap(model.likelihood.log_prob)(
        logits[:, ~kind.mask][..., None], x[:, ~kind.mask][..., None]
    )
    np.testing.assert_allclose(jax.vmap(model.likelihood.log_prob)(logits, x), hidden, rtol=1e-6)
    # Other hidden pixels: the posterior sees them, prior and decoder do not.
    other = jnp.where(kind.mask, x, 1 - x)
    np.testing.assert_array_equal(observe(other, kind), c)
    assert differ(encode(model, params, x, c, MASK).mean, encode(model, params, other, c, MASK).mean)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"condition": "labels"}, "condition is 'labels', expected one of label, vector, image"),
        ({"condition": "text,observed"}, "expected none and observed alone"),
        ({"condition": ""}, "condition is '', expected one of label"),
        ({"condition": "observed", "observed": 4}, "observed is 4, expected a whole number ≥ 1 and ≤ 3"),
        ({"condition": "observed", "likelihood": "gaussian", "binarize": "none"}, "binarize is 'none'"),
        ({"condition": "text,label", "condition_feature": ("caption",)}, "expected one for each of"),
        (
            {"condition": "none", "prior": "conditional"},
            "expected standard, vamp or flow without a condition",
        ),
        ({"objective": "gsnn"}, "prior is 'standard', expected conditional"),
        ({"objective": "tcvae", "prior": "flow"}, "expected standard with the objective tcvae"),
        ({"condition": "none", "prior": "mixture"}, "prior is 'mixture', expected standard, vamp or flow"),
        ({"prior": "mixture", "mixture_parts": 0}, "mixture_parts is 0"),
        ({"prior": "vamp", "pseudo_inputs": 0}, "pseudo_inputs is 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        Config(**fields)
