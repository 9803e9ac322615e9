"""Two wordings of a condition: how far apart are the priors and the pictures that they come to."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params
from compiled import decode, embed, encode, sample_prior
from scans import scanned

from cvae_jax import captioned_scenes, feed, rewording, sweep, training
from cvae_jax.caption_parser import parse
from cvae_jax.checks import SettingError
from cvae_jax.condition_kinds import Text, decode_text, encode_text
from cvae_jax.config import Config, Member, require_compatible
from cvae_jax.cvae import CVAE
from cvae_jax.dataset import Dataset, Split
from cvae_jax.hparams import hparams
from cvae_jax.latent_maps import Gaussian
from cvae_jax.losses import gaussian_kl
from cvae_jax.mixture_priors import Mixture, matched_divergence, mixture_log_density
from cvae_jax.objectives import negative_beta_elbo
from cvae_jax.randomness import Stream, stream

SHAPE, Z, LENGTH = (8, 8, 1), 2, 12
MASK = jnp.ones(Z, bool)
RNG = np.random.default_rng(0)
TEXTS = ["two", "four", "six", "ten", "one", "five"]
OTHERS = ["a two", "a four", "a six", "a ten", "a one", "a five"]
C, OTHER = (jnp.asarray(encode_text(texts, LENGTH)) for texts in (TEXTS, OTHERS))
X = jnp.asarray(RNG.uniform(size=(len(TEXTS), *SHAPE)) > 0.5, jnp.float32)
# Of six examples one is told in other words.
SOME = 1


@functools.cache
def make(prior="mixture", network="conv", likelihood="bernoulli"):
    config = Config(
        condition="text", network=network, prior=prior, likelihood=likelihood, mixture_parts=3, batch_size=len(TEXTS),
        binarize="dynamic" if likelihood == "bernoulli" else "none",
    )  # fmt: skip
    model = CVAE(config, SHAPE, Text(LENGTH), Z)
    return model, any_params(model, jax.random.key(0), X, C, MASK, jax.random.key(1))


def settings(**fields):
    return hparams(Member(latent_dim=Z, **fields), capacity=Z, steps_per_epoch=10, used=frozenset(fields))


divergence = jax.jit(rewording.divergence, static_argnums=0)
KEY = jax.random.key(5)


def mixture(*parts):
    weights, means, logvars = map(jnp.array, zip(*parts, strict=True))
    return Mixture(jnp.log(weights), Gaussian(means[:, None], logvars[:, None]))


@pytest.mark.parametrize("swapped", [False, True])
def test_the_divergence_by_parts_bounds_that_of_the_mixtures(swapped):
    """By integration over a line; with the parts of one in another order it bounds it still, from further off."""
    p = mixture((0.3, -2.0, 0.0), (0.7, 1.0, -1.0))
    q = mixture((0.5, -1.0, 0.5), (0.5, 1.5, 0.0))
    if swapped:
        q = jax.tree.map(lambda a: a[::-1], q)
    line = jnp.linspace(-15, 15, 6001)
    one = jnp.ones(1, bool)
    log_p, log_q = (
        jax.vmap(mixture_log_density, (0, None, None))(line[:, None], each, one) for each in (p, q)
    )
    kl = float(jnp.sum(jnp.exp(log_p) * (log_p - log_q)) * (line[1] - line[0]))
    bound = float(matched_divergence(p, q))
    assert 0 < kl < bound < 10 * kl * (5 if swapped else 1)
    assert float(matched_divergence(p, p)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("prior", ["conditional", "mixture"])
def test_priors_are_compared_both_ways(prior):
    model, params = make(prior)
    of = lambda c: model.apply(params, c, MASK, method=lambda m, c, k: m.prior(m.embed(c).prior.e, k))  # noqa: E731
    p, q = of(C), of(OTHER)
    if prior == "conditional":
        kl = jax.vmap(lambda a, b: gaussian_kl(*a, *b))
    else:
        kl = jax.vmap(matched_divergence)
    expected = 0.5 * (kl(p, q) + kl(q, p))
    assert (expected > 0).all()
    found = model.apply(params, embed(model, params, C), embed(model, params, OTHER), MASK,
                        method="divergence_of_priors")  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def pictures_apart(model, params):
    """log p(x|z,c) and log p(x|z,c′) of the mean x of the first, z as `divergence` draws it; and the two outputs."""
    z = sample_prior(model, params, jax.random.split(KEY, len(TEXTS)), C, MASK)
    outputs = [decode(model, params, z, c, MASK) for c in (C, OTHER)]
    priors = model.apply(params, C, OTHER, MASK, method="divergence_of_priors")
    return divergence(model, params, C, OTHER, KEY, MASK) - priors, outputs


def test_binary_pictures_are_compared_in_closed_form():
    found, outputs = pictures_apart(*make())
    p, q = (np.asarray(jax.nn.sigmoid(output), np.float64) for output in outputs)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert kl.sum((1, 2, 3)).min() > 1e-3
    np.testing.assert_allclose(found, kl.sum((1, 2, 3)), rtol=1e-3, atol=1e-4)


def test_gaussian_pictures_are_compared_at_one_variance_which_the_comparison_leaves_alone():
    model, params = make(likelihood="gaussian_learned")
    params["params"]["logvar"] = jnp.asarray(-1.5)
    found, outputs = pictures_apart(model, params)
    gap = np.square(outputs[0].mean - outputs[1].mean).sum((1, 2, 3))
    np.testing.assert_allclose(found, 0.5 * gap / np.exp(-1.5), rtol=1e-3, atol=1e-4)
    total = jax.jit(jax.grad(lambda params: jnp.sum(divergence(model, params, C, OTHER, KEY, MASK))))
    assert total(params)["params"]["logvar"] == 0


def test_the_gradient_moves_the_picture_of_the_other_wording_alone():
    """Of what the decoder makes of words, by their embeddings: those of the first wording are constants."""
    model, params = make()
    c, other = embed(model, params, C), embed(model, params, OTHER)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(of_c, of_other):
        here, there = c._replace(decoder=of_c), other._replace(decoder=of_other)
        return jnp.sum(rewording.divergence(model, params, here, there, KEY, MASK))

    of_c, of_other = gradient(c.decoder, other.decoder)
    assert all((g == 0).all() for g in jax.tree.leaves(of_c))
    assert np.abs(of_other.words.words).max() > 1e-5


def test_the_same_wording_is_not_apart():
    model, params = make()
    assert np.abs(divergence(model, params, C, C, KEY, MASK)).max() < 1e-4


def test_some_are_embedded_in_both_wordings():
    model, params = make()
    told, some, other = jax.jit(partial(rewording.embedded_twice, model))(params, C, OTHER)
    as_it_is, reworded = embed(model, params, C), embed(model, params, OTHER)
    close = partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, told, as_it_is)
    jax.tree.map(lambda a, b: close(a, b[:SOME]), some, as_it_is)
    jax.tree.map(lambda a, b: close(a, b[:SOME]), other, reworded)
    assert np.abs(some.prior.e - other.prior.e).max() > 1e-3


@pytest.fixture(scope="module")
def dataset():
    n = 4 * len(TEXTS)
    c, other = (np.asarray(encode_text(4 * texts, LENGTH)) for texts in (TEXTS, OTHERS))
    train = Split(RNG.integers(0, 256, (n, *SHAPE), np.uint8), c, None, other)
    plain = dataclasses.replace(train, reworded=None)
    return Dataset("words", train, plain, plain, 255.0, (), (), Text(LENGTH))


CONFIG = Config(
    condition="text", network="mlp", hidden=(16,), prior="mixture", mixture_parts=3, batch_size=6,
    binarize="none", likelihood="gaussian",
)  # fmt: skip


def trained(dataset, *members, num_steps=8):
    model = sweep.build_model(CONFIG, dataset, members)
    h = sweep.stack_hparams(members, capacity=Z, steps_per_epoch=feed.steps_per_epoch(CONFIG, dataset))
    train = jax.jit(jax.vmap(sweep.make_train(model, num_steps=num_steps), in_axes=(0, None)))
    return model, train(h, feed.training_data(CONFIG, dataset))


def test_a_batch_has_both_wordings_of_its_examples(dataset):
    model = sweep.build_model(CONFIG, dataset, [Member(latent_dim=Z)])
    rows = jnp.array([3, 8, 23, 0, 1, 2])
    batch = feed.draw_batch(model, feed.training_data(CONFIG, dataset), rows, jnp.int32(0))
    np.testing.assert_array_equal(batch.c, dataset.train.c[rows])
    np.testing.assert_array_equal(batch.reworded, dataset.train.reworded[rows])
    np.testing.assert_array_equal(dataset.train.take(np.asarray(rows)).reworded, batch.reworded)


def test_the_loss_of_a_step_has_the_divergence_of_some():
    model, params = make(network="mlp")
    h = settings(rewording_weight=2.0)
    state = dataclasses.replace(jax.jit(partial(training.init, model))(h), params=params)
    step = jnp.int32(3)
    batch = training.Batch(X, C, OTHER)
    after = jax.jit(partial(training.train_step, model, objective=negative_beta_elbo))(state, batch, h, step)
    key = jax.random.fold_in(stream(h.key, Stream.REWORDING), step)
    apart = divergence(model, params, C[:SOME], OTHER[:SOME], key, MASK)
    keys = training.example_keys(h.key, step, len(TEXTS))
    terms = jax.jit(partial(negative_beta_elbo, model))(params, X, C, keys, h)
    assert apart.min() > 1e-3
    np.testing.assert_allclose(after.sums.loss, jnp.mean(terms.loss) + 2 * jnp.mean(apart), rtol=1e-5)
    np.testing.assert_allclose(after.sums.rate, jnp.mean(terms.rate), rtol=1e-5)


def test_training_brings_the_wordings_together(dataset):
    members = [Member(latent_dim=Z, rewording_weight=w) for w in (0.0, 10.0)]
    model, states = trained(dataset, *members, num_steps=100)
    apart = []
    for i in range(2):
        params = jax.tree.map(lambda a, i=i: a[i], states.params)
        apart.append(float(jnp.mean(divergence(model, params, C, OTHER, KEY, MASK))))
    assert 0 < apart[1] < 0.2 * apart[0]


@pytest.mark.parametrize("i", [0, 1])
def test_a_member_equals_its_solo_run(dataset, i):
    # An epsilon below which Adam takes no gradient for more than it is: rounding alone would move what is not used.
    members = [
        Member(latent_dim=Z, adam_epsilon=1e-3), Member(latent_dim=Z, adam_epsilon=1e-3, rewording_weight=0.5, seed=1)
    ]  # fmt: skip
    model, together = trained(dataset, *members)
    _, alone = trained(dataset, members[i])
    for c in (C, OTHER):
        a, b = (
            encode(model, jax.tree.map(lambda leaf, j=j: leaf[j], states.params), X, c, MASK)
            for states, j in ((together, i), (alone, 0))
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), a, b)


def test_scenes_are_reworded_in_their_meaning():
    draw = partial(captioned_scenes.scene_split, digits=scanned(), counts=(60, 50, 40))
    split = draw(np.random.default_rng(3), rewords=np.random.default_rng(4))
    plain = draw(np.random.default_rng(3))
    for field in ("x", "c", "factors"):
        np.testing.assert_array_equal(getattr(split, field), getattr(plain, field))
    assert plain.reworded is None
    pairs = [tuple(map(decode_text, pair)) for pair in zip(split.c, split.reworded, strict=True)]
    assert all(parse(one) == parse(two) for one, two in pairs)
    assert np.mean([one != two for one, two in pairs]) > 0.9


@pytest.mark.parametrize("prior", ["standard", "vamp", "flow"])
def test_priors_that_cannot_be_compared_are_refused(prior):
    config = dataclasses.replace(CONFIG, prior=prior)
    with pytest.raises(SettingError, match=f"rewording_weight is 1.0, expected 0 with the prior {prior} and"):
        require_compatible(config, Member(rewording_weight=1.0))


def test_pictures_that_cannot_be_compared_are_refused():
    config = dataclasses.replace(CONFIG, likelihood="logistic_mixture")
    with pytest.raises(
        SettingError, match=r"expected 0 with the prior mixture and the logistic_mixture likelihood, or"
    ):
        require_compatible(config, Member(rewording_weight=1.0))


def test_what_cannot_be_weighed_is_refused(dataset):
    with pytest.raises(SettingError, match=r"rewording_weight is -1.0, expected"):
        Member(rewording_weight=-1.0)
    plain = dataclasses.replace(dataset, train=dataset.validation)
    with pytest.raises(
        SettingError, match=r"dataset words, which has no second wording of its conditions: captions"
    ):
        sweep.build_model(CONFIG, plain, [Member(latent_dim=Z, rewording_weight=1.0)])
