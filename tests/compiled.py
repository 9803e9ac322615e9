"""A model's methods, each compiled whole: operation by operation they take longer to compile than to run.

All take the model and its parameters first: `encode(model, params, x, c)`.
"""

import jax

from cvae_jax import draws


def _method(name):
    return jax.jit(lambda model, params, *args: getattr(model, name)(params, *args), static_argnums=0)


init = jax.jit(lambda model, *args: model.init(*args), static_argnums=0)
embed, encode, infer, decode, generate, log_prior, from_noise, to_noise = map(
    _method, ("embed", "encode", "infer", "decode", "generate", "log_prior", "from_noise", "to_noise")
)
draw, log_likelihood, log_weights = (
    jax.jit(each, static_argnums=0) for each in (draws.draw, draws.log_likelihood, draws.log_weights)
)
