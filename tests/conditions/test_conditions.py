"""Conditions of every kind: they reach every part of the model, unless they are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.conditions import Audio, Image, Label, Observed, Several, Text, Vector
from cvae_jax.conditions.text import encode_text
from cvae_jax.errors import DataError, SettingError
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP, Conv
from cvae_jax.nn.embedding import MaskedCondition
from cvae_jax.priors import Conditional, Flow, Standard
from cvae_jax.training.config import from_flat

SHAPE, Z = (8, 8, 1), 3
RNG = np.random.default_rng(0)
KINDS = {
    "label": Label(4),
    "vector": Vector(5),
    "image": Image((8, 8, 1)),
    "text": Text(9),
    "audio": Audio((16, 8, 1)),
    "text,label": Several((("text", Text(9)), ("colour", Label(4)))),
}
NETWORKS = {"mlp": MLP(hidden=(16, 16)), "conv": Conv()}


def conditions(kind):
    """Two different conditions."""
    match kind:
        case Label():
            return jnp.array([1, 2])
        case Vector():
            return jnp.asarray(RNG.normal(size=(2, kind.size)), jnp.float32)
        case Image() | Audio():
            return jnp.asarray(RNG.normal(size=(2, *kind.shape)), jnp.float32)
        case Text():
            return jnp.asarray(encode_text(["one", "three"], kind.length))
        case Several():
            return {name: conditions(part) for name, part in kind.parts}


def make(condition, network="mlp", prior=Standard(), **fields):  # noqa: B008
    kind = KINDS[condition] if isinstance(condition, str) else condition
    model = CVAE(NETWORKS[network], Bernoulli(), prior, kind, SHAPE, Z, **fields)
    c = jnp.zeros((2, *SHAPE), bool) if kind.reads_x else conditions(kind)
    x = jnp.asarray(RNG.uniform(size=(2, *SHAPE)) > 0.5, jnp.float32)
    return model, any_params(model, jax.random.key(0)), x, c


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
    model, params, x, c = make(condition, network, Conditional(), film=conditioning == "film")
    z, keys = jnp.ones((2, Z)), jax.random.split(jax.random.key(2), 2)

    @jax.jit
    def outputs(c):
        return (
            model.encode(params, x, c).mean,
            model.decode(params, z, c),
            model.generate(params, c, keys),
        )

    now, other = (outputs(each) for each in (c, swapped(c)))
    for a, b in zip(now, other, strict=True):
        assert differ(first(a), first(b))


def test_a_part_of_several_conditions_is_enough():
    model, params, _, c = make("text,label")
    decode = jax.jit(model.decode)
    decoded = decode(params, jnp.ones((2, Z)), c)
    for name in c:
        other = c | {name: c[name][::-1]}
        assert differ(first(decoded), first(decode(params, jnp.ones((2, Z)), other)))


@pytest.mark.parametrize("condition", ["image", "text,label"])
def test_a_dropped_condition_has_no_effect(condition):
    model, params, x, c = make(condition, "conv", Conditional(), film=True)
    z, keys = jnp.ones((2, Z)), jax.random.split(jax.random.key(2), 2)

    @jax.jit
    def outputs(c, mask):
        masked = MaskedCondition(c, mask)
        drawn = model.infer(params, x, masked, keys)
        return model.encode(params, x, masked).mean, model.decode(params, z, masked), drawn.rate

    mask = jnp.array([0.0, 1.0])
    for now, other in zip(outputs(c, mask), outputs(swapped(c), mask), strict=True):
        np.testing.assert_array_equal(now[0], other[0])
        assert differ(np.asarray(now[1]), np.asarray(other[1]))


@pytest.mark.slow
def test_embedding_once_changes_nothing():
    model, _, x, c = make("text,label", prior=Flow(), share_condition=False)
    params, keys = jax.jit(model.init)(jax.random.key(0)), jax.random.split(jax.random.key(2), 2)
    raw = jax.jit(model.infer)(params, x, c, keys)
    embedded = jax.jit(model.infer)(params, x, jax.jit(model.embed)(params, c), keys)
    jax.tree.map(np.testing.assert_array_equal, raw, embedded)


@pytest.mark.parametrize(("prior", "encoders"), [(Standard(), 2), (Conditional(), 3)])
def test_each_part_may_have_an_encoder_of_its_own(prior, encoders):
    _, params, *_ = make("vector", prior=prior, share_condition=False)
    _, shared, *_ = make("vector", prior=prior)
    assert sum("embedding" in name for name in params["params"]) == encoders
    assert sum("embedding" in name for name in shared["params"]) == 1


@pytest.mark.parametrize("condition", KINDS)
def test_an_embedding_has_the_size_that_the_condition_names(condition):
    kind = KINDS[condition]
    encoder, c = kind.encoder(jnp.float32), jax.tree.map(jnp.asarray, kind.blank(2))
    e = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), c)[0]).e
    assert e.shape == (2, kind.features)


def test_a_text_too_long_is_named():
    with pytest.raises(DataError, match="'eleven' has 6 bytes, expected at most 5"):
        encode_text(["one", "eleven"], 5)


# A part of x


@pytest.mark.parametrize("quadrants", [1, 2, 3])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_what_is_observed_is_certain_and_the_rest_is_not_seen(network, quadrants):
    kind = Observed(SHAPE, quadrants)
    model, params, x, _ = make(kind, network, Conditional())
    assert kind.mask.mean() == quadrants / 4
    c = kind.of_batch(x, None)
    logits = jax.jit(model.decode)(params, jnp.ones((2, Z)), c)
    np.testing.assert_array_equal(jax.nn.sigmoid(logits)[:, kind.mask[..., 0]], x[:, kind.mask[..., 0]])
    hidden = jax.vmap(model.likelihood.log_prob)(
        logits[:, ~kind.mask][..., None], x[:, ~kind.mask][..., None]
    )
    np.testing.assert_allclose(jax.vmap(model.likelihood.log_prob)(logits, x), hidden, rtol=1e-6)
    # The posterior depends on the hidden pixels, prior and decoder do not.
    other = jnp.where(kind.mask, x, 1 - x)
    np.testing.assert_array_equal(kind.of_batch(other, None), c)
    encode = jax.jit(model.encode)
    assert differ(encode(params, x, c).mean, encode(params, other, c).mean)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"condition": "labels"}, "condition is 'labels', expected one of label, vector, image"),
        ({"condition": "text,observed"}, "expected observed alone"),
        ({"condition": ""}, "condition is '', expected one of label"),
        ({"condition": "observed", "observed": 4}, "observed is 4, expected a whole number ≥ 1 and ≤ 3"),
        ({"condition": "observed", "likelihood": "gaussian", "binarize": "none"}, "binarize is 'none'"),
        ({"condition": "text,label", "condition_feature": ("caption",)}, "expected one for each of"),
        (
            {"condition": "none", "prior": "conditional"},
            "expected standard, vamp, flow without a condition",
        ),
        ({"objective": "gsnn"}, "prior is 'standard', expected conditional"),
        ({"objective": "tcvae", "prior": "flow"}, "expected standard with the objective tcvae"),
        ({"condition": "none", "prior": "mixture"}, "prior is 'mixture', expected standard, vamp, flow"),
        ({"prior": "mixture", "mixture_parts": 0}, "mixture_parts is 0"),
        ({"prior": "vamp", "pseudo_inputs": 0}, "pseudo_inputs is 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**fields)
