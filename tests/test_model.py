"""The model: shapes, parameter counts, what reaches what, and latents that are masked."""

import itertools
from functools import cache, partial

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params

from cvae_jax.conditions import Label
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP, Conv
from cvae_jax.nn.conv import MAX_CHANNELS, pyramid
from cvae_jax.priors import Standard
from cvae_jax.training.config import from_flat

NETWORKS = ("mlp", "conv")
OF_NAME = {"mlp": MLP(), "conv": Conv()}


def build(network, shape=(8, 8, 1), capacity=4, condition=Label(10), **fields):  # noqa: B008
    return CVAE(network, Bernoulli(), Standard(), condition, shape, capacity, **fields)


@cache
def make(network="mlp", shape=(8, 8, 1), capacity=4, **fields):
    model = build(OF_NAME.get(network, network), shape, capacity, **fields)
    x = jax.random.uniform(jax.random.key(0), (3, *shape))
    c = jnp.array([0, 1, 2])
    return model, any_params(model, jax.random.key(1)), x, c


@partial(jax.jit, static_argnums=0)
def apply(model, params, x, c, key):
    """The posterior, the output, and the draw that it is of."""
    inference = model.infer(params, x, c, jax.random.split(key, len(x)))
    return inference.q, model.decode(params, inference.z, c), inference.z


def masked(params, mask):
    return params | {"latents": {"mask": jnp.array(mask)}}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (5, 12, 2), (9, 7, 1)])
def test_shapes(network, shape):
    model, params, x, c = make(network, shape)
    q, output, _ = apply(model, params, x, c, jax.random.key(3))
    assert q.mean.shape == q.logvar.shape == (3, 4)
    assert output.shape == x.shape
    assert output.dtype == jnp.float32


@pytest.mark.parametrize(("network", "count"), [("mlp", 1_426_552), ("conv", 369_801)])
def test_parameter_count_on_mnist(network, count):
    _, params, *_ = make(network, (28, 28, 1), 20)
    assert sum(leaf.size for leaf in jax.tree.leaves(params["params"])) == count


def test_the_iwae_papers_network_has_its_layers():
    _, params, *_ = make(MLP((200, 200), "tanh"), shape=(28, 28, 1), capacity=50, condition=None)
    widths = (784, 200, 200, 50, 200, 200, 784)
    dense = sum((i + 1) * o for i, o in itertools.pairwise(widths)) + 201 * 50  # means and variances
    assert sum(leaf.size for leaf in jax.tree.leaves(params["params"])) == dense


def test_hidden_layers_are_mirrored_and_activated_as_asked():
    model, params, x, c = make(MLP((7, 5, 3), "tanh"), condition=None)
    inner = params["params"]
    assert [inner["encoder"][f"Dense_{i}"]["kernel"].shape[1] for i in range(3)] == [7, 5, 3]
    assert inner["decoder"]["FromLatents_0"]["kernel"].shape == (4, 3)
    assert [inner["decoder"][f"Dense_{i}"]["kernel"].shape[1] for i in range(3)] == [5, 7, 64]
    h = x.reshape(3, -1)
    for i in range(3):
        layer = inner["encoder"][f"Dense_{i}"]
        h = np.tanh(h @ layer["kernel"] + layer["bias"])
    q = compiled.encode(model, params, x, c)
    np.testing.assert_allclose(q.mean, h @ inner["to_latents"]["mean_kernel"], atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": ()}, "hidden is empty, expected at least one width"),
        ({"hidden": (512, 0)}, "hidden is 0, expected a whole number ≥ 1"),
        ({"activation": "gelu"}, "activation is 'gelu', expected one of silu, tanh"),
        (
            {"network": "conv", "hidden": (64,)},
            r"hidden is \(64,\), expected none with the network conv: it is an option of the network mlp",
        ),
        (
            {"network": "conv", "activation": "tanh"},
            "activation is tanh, expected none with the network conv: it is an option of the network mlp",
        ),
        (
            {"learning_rate_schedule": "step"},
            "learning_rate_schedule is 'step', expected one of constant, cosine, iwae",
        ),
    ],
)
def test_networks_that_cannot_be_are_refused(fields, message):
    with pytest.raises(SettingError, match=message):
        from_flat(**fields)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_condition_reaches_encoder_and_decoder(network):
    model, params, x, c = make(network)
    q, other = (compiled.encode(model, params, x, labels) for labels in (c, c + 1))
    assert (jnp.abs(q.mean - other.mean).max(axis=1) > 1e-3).all()
    outputs = [compiled.decode(model, params, q.mean, labels) for labels in (c, c + 1)]
    assert (jnp.abs(outputs[0] - outputs[1]).max(axis=(1, 2, 3)) > 1e-3).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_has_a_gradient(network):
    model, params, x, c = make(network)

    def loss(inner):
        q, output, _ = apply(model, params | {"params": inner}, x, c, jax.random.key(3))
        return jnp.sum(output**2) + jnp.sum(q.mean**2) + jnp.sum(q.logvar**2)

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params["params"])):
        assert jnp.abs(gradient).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("network", NETWORKS)
def test_without_a_condition_labels_are_not_looked_at(network):
    model, params, x, c = make(network, condition=None)
    assert not any(
        "embedding" in jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)
    )
    a, b = (apply(model, params, x, labels, jax.random.key(3)) for labels in (c, c + 5))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_batch_is_its_examples(network):
    model, params, x, c = make(network)
    together = compiled.encode(model, params, x, c).mean
    alone = [compiled.encode(model, params, x[i : i + 1], c[i : i + 1]).mean[0] for i in range(3)]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_capacity_does_not_change_the_latents_in_use(network):
    small, large = (build(OF_NAME[network], capacity=capacity) for capacity in (2, 5))
    x, c = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1)), jnp.arange(3)
    few, some = jnp.ones(2, bool), jnp.arange(5) < 2
    results = []
    for model, mask in ((small, few), (large, some)):
        params = compiled.init(model, jax.random.key(1), mask)
        q, output, _ = apply(model, params, x, c, jax.random.key(3))
        results.append((q.mean[:, :2], q.logvar[:, :2], output))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


@pytest.mark.parametrize("network", NETWORKS)
def test_masked_latents_carry_nothing(network):
    model, params, x, c = make(network)
    params = masked(params, [True, False, True, False])
    q = compiled.encode(model, params, x, c)
    assert (q.mean[:, 1] == 0).all()
    assert (q.logvar[:, 3] == 0).all()
    z = jnp.ones((3, 4))
    moved = z.at[:, 1].set(100.0)
    decode = lambda z: compiled.decode(model, params, z, c)  # noqa: E731
    np.testing.assert_array_equal(decode(z), decode(moved))

    def loss(inner):
        return jnp.sum(apply(model, params | {"params": inner}, x, c, jax.random.key(3))[1] ** 2)

    gradient = jax.grad(loss)(params["params"])
    assert (gradient["to_latents"]["mean_kernel"][:, 1] == 0).all()
    assert (gradient["to_latents"]["mean_kernel"][:, 0] != 0).any()


def test_bfloat16_products_keep_float32_parameters():
    model, params, x, c = make("conv", compute_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params["params"])} == {jnp.dtype("float32")}
    exact, *_ = make("conv")
    key = jax.random.key(3)
    (q, output, _), (q32, output32, _) = (apply(m, params, x, c, key) for m in (model, exact))
    assert output.dtype == q.mean.dtype == jnp.float32
    np.testing.assert_allclose(q.mean, q32.mean, atol=0.05)
    assert not np.array_equal(output, output32)


@pytest.mark.parametrize("shape", list(itertools.product((8, 28, 32, 64), (8, 32), (1, 3))))
def test_pyramid_ends_small(shape):
    *_, (height, width, channels) = pyramid(shape)
    assert min(height, width) <= 8
    assert channels <= MAX_CHANNELS


@pytest.mark.parametrize(
    ("network", "conditioning", "share"),
    [
        ("mlp", "concat", True),
        ("mlp", "film", False),
        pytest.param("conv", "film", True, marks=pytest.mark.slow),
    ],
)
def test_more_examples_than_classes_change_no_value_and_no_gradient(network, conditioning, share):
    """Then a layer makes its term of every class first, and of a batch as small as the classes of every example."""
    film = conditioning == "film"
    model = build(OF_NAME[network], (8, 8, 1), 2, Label(4), film=film, share_condition=share)
    x = jax.random.uniform(jax.random.key(0), (12, 8, 8, 1))
    c = jnp.arange(12) % 3
    weights = jax.random.dirichlet(jax.random.key(3), jnp.ones(4), (12,))
    params = any_params(model, jax.random.key(1))
    inner = params["params"]

    @partial(jax.jit, static_argnums=2)
    def outputs(inner, c, size):
        params_ = params | {"params": inner}

        def one_batch(x, c):
            q = model.encode(params_, x, c)
            return q, model.decode(params_, q.mean, c)

        batches = (a.reshape(-1, size, *a.shape[1:]) for a in (x, c))
        return jax.tree.map(lambda a: a.reshape(12, *a.shape[2:]), jax.vmap(one_batch)(*batches))

    def gradient(inner, c, size):
        total = lambda inner: sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(outputs(inner, c, size)))  # noqa: E731
        return jax.jit(jax.grad(total))(inner)

    for conditions in (c, weights):
        for of in (outputs, gradient):
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
                of(inner, conditions, 12),
                of(inner, conditions, 2),
            )
