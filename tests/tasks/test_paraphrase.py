"""Two wordings of a caption: how much their priors differ, and which part of the model receives which."""

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

from cvae_jax.conditions import Text
from cvae_jax.conditions.text import decode_text, encode_text
from cvae_jax.data.dataset import Dataset, Split
from cvae_jax.errors import SettingError
from cvae_jax.likelihoods import Bernoulli
from cvae_jax.losses import gaussian_kl
from cvae_jax.model import CVAE
from cvae_jax.networks import MLP
from cvae_jax.nn.latent import Gaussian
from cvae_jax.objectives import Elbo
from cvae_jax.objectives.base import Batch
from cvae_jax.priors import Conditional, Mixture
from cvae_jax.priors.gaussian_mixture import GaussianMixture, mixture_log_density, sample_mixture
from cvae_jax.training import loader, memory
from cvae_jax.training import population as sweep
from cvae_jax.training import step as training
from cvae_jax.training.config import Config, from_flat
from cvae_jax.training.hparams import hparams, stack_hparams
from cvae_jax.training.schedules import Time
from experiments.tasks.captions import dataset as captioned_scenes
from experiments.tasks.captions.network import CaptionConv
from experiments.tasks.captions.paraphrase import (
    Paraphrase,
    Weights,
    componentwise_kl,
    paraphrased,
    prior_divergence,
    total_variation,
)
from experiments.tasks.captions.parser import parse

SHAPE, Z, LENGTH = (8, 8, 1), 2, 12
RNG = np.random.default_rng(0)
TEXTS = ["two", "four", "six", "ten", "one", "five"]
OTHERS = ["a two", "a four", "a six", "a ten", "a one", "a five"]
C, OTHER = (jnp.asarray(encode_text(texts, LENGTH)) for texts in (TEXTS, OTHERS))
X = jnp.asarray(RNG.uniform(size=(len(TEXTS), *SHAPE)) > 0.5, jnp.float32)
# Of six examples two have another wording.
SOME = 2
PRIORS = {"conditional": Conditional(), "mixture": Mixture(3)}


@functools.cache
def make(prior="mixture", network=CaptionConv()):  # noqa: B008
    model = CVAE(network, Bernoulli(), PRIORS[prior], Text(LENGTH), SHAPE, Z)
    return model, any_params(model, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def prior_of(model, params, c):
    """What the prior's module makes of conditions: a Gaussian or a mixture each."""
    e = model.embed(params, c).prior.e
    return model.module.apply(params, e, method=lambda module, e: module.prior(e, module.mask.value))


def both_wordings(model, params, c, other, weight, of_weights=0.0):
    weights = Weights(jnp.float32(weight), jnp.float32(of_weights))
    return jax.jit(partial(paraphrased, model))(params, c, other, weights)


def mixture(*parts):
    weights, means, logvars = map(jnp.array, zip(*parts, strict=True))
    return GaussianMixture(jnp.log(weights), Gaussian(means[:, None], logvars[:, None]))


@pytest.mark.parametrize("swapped", [False, True])
def test_the_divergence_by_components_bounds_that_of_the_mixtures(swapped):
    """By integration over a line; with the components of one in another order it bounds it still, from further off."""
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
    bound = float(componentwise_kl(p, q))
    assert 0 < kl < bound < 10 * kl * (5 if swapped else 1)
    assert float(componentwise_kl(p, p)) == pytest.approx(0, abs=1e-6)


def test_the_total_variation_bounds_how_often_the_same_noise_draws_another_component():
    """From below, and this sampler draws it less than twice as often; the divergence is far smaller."""
    p = mixture((0.3, -9.0, -9.0), (0.3, 0.0, -9.0), (0.4, 9.0, -9.0))
    q = mixture((0.32, -9.0, -9.0), (0.27, 0.0, -9.0), (0.41, 9.0, -9.0))
    least = float(total_variation(p, q))
    assert least == pytest.approx(0.03)
    keys = jax.random.split(jax.random.key(0), 100_000)
    one, other = (jax.vmap(sample_mixture, (0, None, None))(keys, each, 1.0) for each in (p, q))
    changed = float(jnp.mean(jnp.abs(one - other) > 4))
    assert least < changed + 3 * (least / len(keys)) ** 0.5 < 2 * least
    # Pinsker's inequality.
    assert 2 * least**2 < float(componentwise_kl(p, q)) < 0.1 * least


def test_divergences_of_extreme_components_have_finite_values_and_gradients():
    log_weights = jax.nn.log_softmax(jnp.array([0.0, -1e4]))
    plain = GaussianMixture(log_weights, Gaussian(jnp.array([[0.0], [1e4]]), jnp.zeros((2, 1))))
    functions = (
        lambda m: componentwise_kl(m, plain),
        lambda m: componentwise_kl(plain, m),
        lambda m: total_variation(m, plain),
    )

    @jax.jit
    @jax.vmap
    def at(logvar):
        logvars = jnp.stack([jnp.zeros(1), logvar[None]])
        extreme = plain._replace(parts=plain.parts._replace(logvar=logvars))
        return [jax.value_and_grad(f)(extreme) for f in functions]

    for leaf in jax.tree.leaves(at(jnp.array([-1e4, -100.0, 100.0, 1e4]))):
        assert np.isfinite(leaf).all()


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["conditional", "mixture"])
def test_priors_are_compared_both_ways(prior):
    model, params = make(prior, MLP())
    p, q = (prior_of(model, params, c) for c in (C, OTHER))
    if prior == "conditional":
        kl, distance = jax.vmap(lambda a, b: gaussian_kl(*a, *b)), np.zeros(len(TEXTS))
    else:
        kl, distance = jax.vmap(componentwise_kl), jax.vmap(total_variation)(p, q)
        assert (distance > 0).all()
    expected = 0.5 * (kl(p, q) + kl(q, p))
    assert (expected > 0).all()
    found = prior_divergence(model, params, embed(model, params, C), embed(model, params, OTHER))
    np.testing.assert_allclose(found.kl, expected, rtol=1e-4)
    np.testing.assert_allclose(found.total_variation, distance, rtol=1e-4)
    _, penalty = both_wordings(model, params, C, OTHER, 3.0, 5.0)
    np.testing.assert_allclose(penalty, 3 * expected[:SOME].mean() + 5 * distance[:SOME].mean(), rtol=1e-4)


def test_the_same_wording_costs_nothing_and_changes_nothing():
    model, params = make()
    embedded, penalty = both_wordings(model, params, C, C, 1.0, 1.0)
    assert penalty == pytest.approx(0, abs=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), embedded, embed(model, params, C))


def test_the_decoder_receives_some_in_another_wording_and_nothing_else_does():
    model, params = make()
    embedded, _ = both_wordings(model, params, C, OTHER, 1.0)
    as_it_is, alternative = embed(model, params, C), embed(model, params, OTHER)
    close = partial(np.testing.assert_allclose, atol=1e-5)
    for part in ("encoder", "prior"):
        jax.tree.map(close, getattr(embedded, part), getattr(as_it_is, part))
    jax.tree.map(lambda a, b: close(a[:SOME], b[:SOME]), embedded.decoder, alternative.decoder)
    jax.tree.map(lambda a, b: close(a[SOME:], b[SOME:]), embedded.decoder, as_it_is.decoder)
    assert np.abs(as_it_is.decoder.words.words - alternative.decoder.words.words).max() > 1e-3


def test_a_weight_of_zero_is_as_without():
    """A member of a sweep in which others have a weight."""
    model, params = make()
    embedded, penalty = both_wordings(model, params, C, OTHER, 0.0)
    assert penalty == 0
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), embedded, embed(model, params, C))


@pytest.mark.parametrize("epochs", [1, 4, 10])
def test_the_weight_rises_and_the_weights_of_components_count_in_the_last_fifth(epochs):
    def at(epoch):
        return Paraphrase(50.0).weights(Time(jnp.int32(7 * epoch), steps_per_epoch=7, epochs=epochs))

    each = [at(epoch) for epoch in range(epochs)]
    expected = [25 * (1 - np.cos(np.pi * epoch / epochs)) for epoch in range(epochs)]
    np.testing.assert_allclose([one.kl for one in each], expected, rtol=1e-4, atol=1e-5)
    first = 4 * epochs // 5
    assert [float(one.total_variation) for one in each[:first]] == [0.0] * first
    assert [one.total_variation for one in each[first:]] == [one.kl for one in each[first:]]
    assert at(2 * epochs).kl == 50


@pytest.fixture(scope="module")
def dataset():
    n = 4 * len(TEXTS)
    c, other = (np.asarray(encode_text(4 * texts, LENGTH)) for texts in (TEXTS, OTHERS))
    pixels = RNG.integers(0, 256, (n, *SHAPE), np.uint8)
    plain = Split(pixels, c)
    return Dataset("words", Split(pixels, c, alternative=other), plain, plain, 255.0, Text(LENGTH))


def settings(**options):
    shared = {"network": "mlp", "hidden": (16,), "prior": "mixture", "mixture_parts": 3, "latent_dim": Z}
    shared |= {"batch_size": 6, "condition": "text", "likelihood": "gaussian"}
    return from_flat(**(shared | options))


def trained(dataset, *members, epochs):
    model, steps = sweep.build_model(members, dataset), loader.steps_per_epoch(members[0], dataset)
    h = stack_hparams(members, capacity=Z)
    population, data = sweep.init(model, h), loader.training_data(members[0], dataset)
    for _ in range(epochs):
        population = sweep.run_steps(model, population, h, data, jnp.int32(steps))
    return model, population.members


def test_a_batch_has_both_wordings_of_its_examples(dataset):
    config = settings()
    model = sweep.build_model([config], dataset)
    rows = jnp.array([3, 8, 23, 0, 1, 2])
    data = loader.training_data(config, dataset)
    _, c, alternative = loader.draw_batch(config, model, data, rows, jnp.int32(0))
    np.testing.assert_array_equal(c, dataset.train.c[rows])
    np.testing.assert_array_equal(alternative, dataset.train.alternative[rows])
    np.testing.assert_array_equal(dataset.train.take(np.asarray(rows)).alternative, alternative)


@pytest.mark.slow
def test_the_loss_of_a_step_has_the_penalty(dataset):
    config = settings(paraphrase_weight=2.0, epochs=5, likelihood="bernoulli")
    model, params = make(network=MLP())
    h = hparams(config, capacity=Z)
    keys = jax.random.split(jax.random.key(1), len(TEXTS))
    batch = Batch(X, C, keys, jax.random.key(2), OTHER)
    # The fourth of five epochs, before the weights of components count.
    time = Time(jnp.int32(3), epochs=5)
    weight = 1 - np.cos(0.6 * np.pi)

    @jax.jit
    def step(params):
        state = dataclasses.replace(training.init(model, h), params=params)
        return training.train_step(model, state, batch, h, time)

    after = step(params)
    embedded, penalty = both_wordings(model, params, C, OTHER, weight)
    terms = jax.jit(partial(Elbo().loss, model))(params, batch.replace(c=embedded))
    assert penalty > 1e-3
    np.testing.assert_allclose(after.sums.loss, jnp.mean(terms.loss) + penalty, rtol=1e-5)
    np.testing.assert_allclose(after.sums.rate, jnp.mean(terms.rate), rtol=1e-5)


@pytest.mark.slow
def test_training_brings_the_wordings_together(dataset):
    members = [settings(paraphrase_weight=w, learning_rate=3e-3, epochs=10) for w in (0.0, 10.0)]
    model, states = trained(dataset, *members, epochs=10)
    divergences = []
    for i in range(2):
        params = jax.tree.map(lambda a, i=i: a[i], states.params)
        _, penalty = both_wordings(model, params, C, OTHER, 1.0)
        q = [encode(model, params, X, c).mean for c in (C, OTHER)]
        divergences.append(float(penalty))
        assert np.isfinite(q).all()
    assert divergences[1] < 0.2 * divergences[0]


def test_the_memory_plan_of_a_sweep_has_the_penalty(dataset):
    plain, penalized = (settings(paraphrase_weight=w) for w in (0.0, 1.0))
    model = sweep.build_model([plain, penalized], dataset)
    assert memory.member_bytes(model, [plain, penalized]) > memory.member_bytes(model, [plain])
    assert memory.members_that_fit(model, [plain, penalized]) == 2


@pytest.mark.parametrize("i", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_member_equals_its_solo_run(dataset, i):
    # An epsilon below which Adam takes no gradient for more than it is: rounding alone would move what is not used.
    members = [
        settings(adam_epsilon=1e-3, epochs=2), settings(adam_epsilon=1e-3, epochs=2, paraphrase_weight=0.5, seed=1)
    ]  # fmt: skip
    model, together = trained(dataset, *members, epochs=2)
    _, alone = trained(dataset, members[i], epochs=2)
    for c in (C, OTHER):
        a, b = (
            encode(model, jax.tree.map(lambda leaf, j=j: leaf[j], states.params), X, c)
            for states, j in ((together, i), (alone, 0))
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), a, b)


def test_alternative_captions_of_scenes_have_the_same_meaning():
    draw = partial(captioned_scenes.scene_split, digits=scanned(), counts=(60, 50, 40))
    split = draw(np.random.default_rng(3), rewords=np.random.default_rng(4))
    plain = draw(np.random.default_rng(3))
    for field in ("x", "c", "factors"):
        np.testing.assert_array_equal(getattr(split, field), getattr(plain, field))
    assert plain.alternative is None
    pairs = [tuple(map(decode_text, pair)) for pair in zip(split.c, split.alternative, strict=True)]
    assert all(parse(one) == parse(two) for one, two in pairs)
    assert np.mean([one != two for one, two in pairs]) > 0.9


@pytest.mark.parametrize("prior", ["standard", "vamp", "flow"])
def test_priors_that_cannot_be_compared_are_refused(prior):
    with pytest.raises(
        SettingError, match=f"prior is '{prior}', expected conditional or mixture with paraphrase_weight"
    ):
        from_flat(prior=prior, condition="text", paraphrase_weight=1.0)


def test_what_cannot_be_weighed_is_refused(dataset):
    with pytest.raises(SettingError, match=r"paraphrase_weight is -1.0, expected"):
        Paraphrase(-1.0)
    plain = Dataset("words", dataset.validation, dataset.validation, dataset.validation, 255.0, Text(LENGTH))
    with pytest.raises(
        SettingError, match=r"needs alternative conditions, expected none with the dataset words"
    ):
        sweep.build_model([settings(paraphrase_weight=1.0)], plain)


def test_an_own_hook_is_part_of_a_configuration():
    config = Config(prior=Mixture(), hooks=(Paraphrase(2.0),))
    assert config == from_flat(prior="mixture", paraphrase_weight=2.0)
