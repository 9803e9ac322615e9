"""The model's functions, each compiled whole: operation by operation they take longer to compile than to run."""

from functools import partial

import jax

from cvae_jax import draws, model

_compiled = partial(jax.jit, static_argnums=0)

decode = _compiled(model.decode)
embed = _compiled(model.embed)
encode = _compiled(model.encode)
draw = _compiled(draws.draw)
from_noise = _compiled(draws.from_noise)
log_likelihood_of = _compiled(draws.log_likelihood_of)
log_prior = _compiled(draws.log_prior)
rate = _compiled(draws.rate)
sample_prior = _compiled(draws.sample_prior)
to_noise = _compiled(draws.to_noise)
