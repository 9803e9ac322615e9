"""Small models for tests, with parameters that take no training or little."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvae_jax.conditions import Label
from cvae_jax.draws import draw
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP
from cvae_jax.priors import Standard


def of_digits(capacity, *, hidden=(512, 512), condition=Label(10)):  # noqa: B008
    """A model of 8×8 digits."""
    return CVAE(MLP(hidden=hidden), Bernoulli(), Standard(), condition, shape=(8, 8, 1), capacity=capacity)


def stacked(model, latent_dims, noise=0.02):
    """Parameters of members of some latent sizes, each of a seed of its own, with biases drawn at random."""
    masks = jnp.arange(model.capacity) < jnp.array(latent_dims)[:, None]
    keys = jax.vmap(jax.random.key)(jnp.arange(len(latent_dims)))
    params = jax.jit(jax.vmap(model.init))(keys, masks)
    rng = np.random.default_rng(0)
    return params | {
        "params": jax.tree.map(
            lambda a: a + jnp.asarray(rng.normal(0, noise, a.shape), jnp.float32), params["params"]
        )
    }


def member(params, i):
    """The parameters of one of several stacked members."""
    return jax.tree.map(lambda a: a[i], params)


def fitted(model, params, examples, *, steps, learning_rate, batch_size=32):
    """Parameters after some steps of Adam on the ELBO of random batches."""
    optimizer = optax.adam(learning_rate)

    def step(carry, key):
        inner, state = carry
        rows_key, z_key = jax.random.split(key)
        x, c = examples.take(jax.random.randint(rows_key, (batch_size,), 0, len(examples)))

        def loss(inner):
            drawn = draw(model, params | {"params": inner}, x, c, jax.random.split(z_key, batch_size))
            return jnp.mean(drawn.rate - drawn.log_likelihood)

        gradient = jax.grad(loss)(inner)
        # optax raises a float to the power of its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state, inner)
        return (optax.apply_updates(inner, updates), state), None

    @jax.jit
    def run(inner):
        keys = jax.random.split(jax.random.key(0), steps)
        return jax.lax.scan(step, (inner, optimizer.init(inner)), keys)[0][0]

    return params | {"params": run(params["params"])}
