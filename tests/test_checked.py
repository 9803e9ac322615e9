"""The tests run the library with its annotations checked: see `checked`."""

import ast
import importlib
import pkgutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import CHECKED, names_self, unchecked
from jaxtyping import TypeCheckError

import cvae_jax
from cvae_jax import losses
from cvae_jax.evaluation import reconstruction
from cvae_jax.networks import Conv
from cvae_jax.nn.conditioning import Context
from cvae_jax.nn.dense import Dense


def test_a_loss_refuses_a_wrong_shape():
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        losses.bernoulli_log_likelihood(jnp.zeros(3), jnp.zeros(4))
    with unchecked(), pytest.raises(ValueError, match="expected equal shapes"):
        losses.bernoulli_log_likelihood(jnp.zeros(3), jnp.zeros(4))


def test_a_loss_refuses_a_wrong_type():
    with pytest.raises(TypeCheckError, match="parameter 'logits'"):
        losses.bernoulli_log_likelihood(jnp.zeros(3, jnp.int32), jnp.zeros(3))


def test_a_network_refuses_a_wrong_shape():
    encoder = Conv().encoder((8, 8, 1), jnp.float32)
    key, images = jax.random.key(0), jnp.zeros((5, 8, 8, 1))
    encoder.init(key, images, Context(None))
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        encoder.init(key, images[0], Context(None))


def test_shapes_are_checked_within_compiled_programs():
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        jax.jit(Dense(2).init)(jax.random.key(0), jnp.zeros((3, 4), jnp.int32))


def test_an_evaluation_refuses_a_wrong_shape():
    with pytest.raises(TypeCheckError, match="parameter 'reconstructions'"):
        reconstruction.errors(np.zeros((2, 8, 8, 1)), np.zeros((3, 8, 8, 1)))


def functions_of(tree, prefix=""):
    """The qualified names of a file's functions and methods, but for those that `checked` leaves out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not names_self(node):
            yield prefix + node.name


@pytest.mark.parametrize(
    "name", [info.name for info in pkgutil.walk_packages(cvae_jax.__path__, "cvae_jax.")]
)
def test_every_function_is_checked(name):
    module = importlib.import_module(name)
    functions = set(functions_of(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))))
    assert {function for function in functions if (name, function) not in CHECKED} == set()
