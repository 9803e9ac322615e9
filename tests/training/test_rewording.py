"""Two wordings of a condition: how far apart their priors are, and what each part of the model is told of them."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import any_params
from compiled import embed, encode
from scans import scanned

from cvae_jax.conditions.kinds import Text, decode_text, encode_text
from cvae_jax.config import Config, Member, require_compatible
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import SettingError
from cvae_jax.hparams import hparams
from cvae_jax.losses import gaussian_kl
from cvae_jax.model import CVAE
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives.registry import negative_beta_elbo
from cvae_jax.priors.mixture import (
    Mixture,
    draw_from,
    matched_divergence,
    mixture_log_density,
    total_variation,
)
from cvae_jax.training import loader, memory, rewording
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from experiments.tasks.captions import dataset as captioned_scenes
from experiments.tasks.captions.parser import parse

SHAPE, Z, LENGTH = (8, 8, 1), 2, 12
MASK = jnp.ones(Z, bool)
RNG = np.random.default_rng(0)
TEXTS = ["two", "four", "six", "ten", "one", "five"]
OTHERS = ["a two", "a four", "a six", "a ten", "a one", "a five"]
C, OTHER = (jnp.asarray(encode_text(texts, LENGTH)) for texts in (TEXTS, OTHERS))
X = jnp.asarray(RNG.uniform(size=(len(TEXTS), *SHAPE)) > 0.5, jnp.float32)
# Of six examples two are told in other words.
SOME = 2


@functools.cache
def make(prior="mixture", network="conv"):
    config = Config(condition="text", network=network, prior=prior, mixture_parts=3, batch_size=len(TEXTS))
    model = CVAE(config, SHAPE, Text(LENGTH), Z)
    return model, any_params(model, jax.random.key(0), X, C, MASK, jax.random.key(1))


def settings(**fields):
    return hparams(Member(latent_dim=Z, **fields), capacity=Z, steps_per_epoch=10, used=frozenset(fields))


def tied(model, params, c, other, weight, tipping=0.0):
    h = dataclasses.replace(settings(rewording_weight=weight), tipping_weight=jnp.float32(tipping))
    return jax.jit(partial(rewording.tied, model))(params, c, other, h)


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


def test_the_total_variation_bounds_how_often_the_same_noise_draws_another_part():
    """From below, and this sampler draws it less than twice as often; the divergence is far smaller."""
    p = mixture((0.3, -9.0, -9.0), (0.3, 0.0, -9.0), (0.4, 9.0, -9.0))
    q = mixture((0.32, -9.0, -9.0), (0.27, 0.0, -9.0), (0.41, 9.0, -9.0))
    least = float(total_variation(p, q))
    assert least == pytest.approx(0.03)
    keys = jax.random.split(jax.random.key(0), 100_000)
    one, other = (jax.vmap(draw_from, (0, None, None))(keys, each, 1.0) for each in (p, q))
    tipped = float(jnp.mean(jnp.abs(one - other) > 4))
    assert least < tipped + 3 * (least / len(keys)) ** 0.5 < 2 * least
    # Pinsker's inequality.
    assert 2 * least**2 < float(matched_divergence(p, q)) < 0.1 * least


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["conditional", "mixture"])
def test_priors_are_compared_both_ways(prior):
    model, params = make(prior, network="mlp")
    of = lambda c: model.apply(params, c, MASK, method=lambda m, c, k: m.prior(m.embed(c).prior.e, k))  # noqa: E731
    p, q = of(C), of(OTHER)
    if prior == "conditional":
        kl, tipped = jax.vmap(lambda a, b: gaussian_kl(*a, *b)), np.zeros(len(TEXTS))
    else:
        kl, tipped = jax.vmap(matched_divergence), jax.vmap(total_variation)(p, q)
        assert (tipped > 0).all()
    expected = 0.5 * (kl(p, q) + kl(q, p))
    assert (expected > 0).all()
    found = model.apply(
        params, embed(model, params, C), embed(model, params, OTHER), MASK, method="priors_apart"
    )
    np.testing.assert_allclose(found.divergence, expected, rtol=1e-4)
    np.testing.assert_allclose(found.tipped, tipped, rtol=1e-4)
    _, tie = tied(model, params, C, OTHER, 3.0, 5.0)
    np.testing.assert_allclose(tie, 3 * expected[:SOME].mean() + 5 * tipped[:SOME].mean(), rtol=1e-4)


def test_the_same_wording_ties_nothing_and_changes_nothing():
    model, params = make()
    told, tie = tied(model, params, C, C, 1.0, 1.0)
    assert tie == pytest.approx(0, abs=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), told, embed(model, params, C))


def test_the_decoder_is_told_some_in_other_words_and_nothing_else_is():
    model, params = make()
    told, _ = tied(model, params, C, OTHER, 1.0)
    as_it_is, reworded = embed(model, params, C), embed(model, params, OTHER)
    close = partial(np.testing.assert_allclose, atol=1e-5)
    for part in ("encoder", "prior"):
        jax.tree.map(close, getattr(told, part), getattr(as_it_is, part))
    jax.tree.map(lambda a, b: close(a[:SOME], b[:SOME]), told.decoder, reworded.decoder)
    jax.tree.map(lambda a, b: close(a[SOME:], b[SOME:]), told.decoder, as_it_is.decoder)
    assert np.abs(as_it_is.decoder.words.words - reworded.decoder.words.words).max() > 1e-3


def test_a_weight_of_zero_is_as_without():
    """A member of a sweep whose others weigh it."""
    model, params = make()
    told, tie = tied(model, params, C, OTHER, 0.0)
    assert tie == 0
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), told, embed(model, params, C))


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


def trained(dataset, *members, epochs=2):
    model, steps = sweep.build_model(CONFIG, dataset, members), loader.steps_per_epoch(CONFIG, dataset)
    h = sweep.stack_hparams(members, capacity=Z, steps_per_epoch=steps)
    population, data = sweep.init(model, h), loader.training_data(CONFIG, dataset)
    for _ in range(epochs):
        population = sweep.run_steps(model, population, h, data, jnp.int32(steps))
    return model, population.members


def test_a_batch_has_both_wordings_of_its_examples(dataset):
    model = sweep.build_model(CONFIG, dataset, [Member(latent_dim=Z)])
    rows = jnp.array([3, 8, 23, 0, 1, 2])
    batch = loader.draw_batch(model, loader.training_data(CONFIG, dataset), rows, jnp.int32(0))
    np.testing.assert_array_equal(batch.c, dataset.train.c[rows])
    np.testing.assert_array_equal(batch.reworded, dataset.train.reworded[rows])
    np.testing.assert_array_equal(dataset.train.take(np.asarray(rows)).reworded, batch.reworded)


@pytest.mark.slow
def test_the_loss_of_a_step_has_the_tie(dataset):
    model, params = make(network="mlp")
    h = settings(rewording_weight=2.0)
    state = dataclasses.replace(jax.jit(partial(training.init, model))(h), params=params)
    batch = training.Batch(X, C, OTHER)
    step = jnp.int32(0)
    after = jax.jit(partial(training.train_step, model, objective=negative_beta_elbo))(state, batch, h, step)
    told, tie = tied(model, params, C, OTHER, 2.0)
    keys = training.example_keys(h.key, step, len(TEXTS))
    terms = jax.jit(partial(negative_beta_elbo, model))(params, X, told, keys, h)
    assert tie > 1e-3
    np.testing.assert_allclose(after.sums.loss, jnp.mean(terms.loss) + tie, rtol=1e-5)
    np.testing.assert_allclose(after.sums.rate, jnp.mean(terms.rate), rtol=1e-5)


@pytest.mark.slow
def test_training_brings_the_wordings_together(dataset):
    members = [Member(latent_dim=Z, rewording_weight=w, learning_rate=1e-2) for w in (0.0, 10.0)]
    model, states = trained(dataset, *members, epochs=10)
    apart = []
    for i in range(2):
        params = jax.tree.map(lambda a, i=i: a[i], states.params)
        _, tie = tied(model, params, C, OTHER, 1.0)
        q = [encode(model, params, X, c, MASK).mean for c in (C, OTHER)]
        apart.append(float(tie))
        assert np.isfinite(q).all()
    assert apart[1] < 0.2 * apart[0]


def test_the_memory_plan_of_a_sweep_has_the_tie(dataset):
    plain, tying = (Member(latent_dim=Z, rewording_weight=w) for w in (0.0, 1.0))
    model = sweep.build_model(CONFIG, dataset, [plain, tying])
    assert memory.member_bytes(model, [plain, tying]) > memory.member_bytes(model, [plain])
    assert memory.members_that_fit(model, [plain, tying]) == 2


@pytest.mark.parametrize("i", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.slow
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
    with pytest.raises(SettingError, match=f"rewording_weight is 1.0, expected 0 with the prior {prior}"):
        require_compatible(config, Member(rewording_weight=1.0))


def test_what_cannot_be_weighed_is_refused(dataset):
    with pytest.raises(SettingError, match=r"rewording_weight is -1.0, expected"):
        Member(rewording_weight=-1.0)
    plain = dataclasses.replace(dataset, train=dataset.validation)
    with pytest.raises(
        SettingError, match=r"dataset words, which has no second wording of its conditions: captions"
    ):
        sweep.build_model(CONFIG, plain, [Member(latent_dim=Z, rewording_weight=1.0)])
