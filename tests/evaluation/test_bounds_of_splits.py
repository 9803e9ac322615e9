"""Metrics do not depend on batches, padding or masked latents; samples do depend on the label."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import member, of_digits, stacked

from cvae_jax.data.examples import on_device
from cvae_jax.evaluation import bounds, sampling
from cvae_jax.evaluation.bounds import ElboTerms
from cvae_jax.losses import standard_normal_kl
from cvae_jax.rng import evaluation_key

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def members():
    """A model, and the parameters of members with 5 latents and 3."""
    model = of_digits(5)
    return model, stacked(model, (5, 3))


@pytest.fixture(scope="module")
def test_split(digits):
    return on_device(digits.test, digits.x_max)


@pytest.fixture(scope="module")
def one(members):
    """The model, and the parameters of the member with 3 latents."""
    model, params = members
    return model, member(params, 1)


@pytest.fixture(scope="module")
def elbo_terms(one):
    return jax.jit(partial(bounds.elbo_terms, one[0]))


@pytest.fixture(scope="module")
def whole(one, elbo_terms, test_split):
    _, params = one
    return elbo_terms(params, test_split, evaluation_key())


def head(examples, n):
    return examples.replace(x=examples.x[:n], c=examples.c[:n])


# Terms of the bound


@pytest.mark.parametrize("n", [7, 249, 250, 251])
def test_terms_do_not_depend_on_the_batch(one, elbo_terms, whole, test_split, n):
    _, params = one
    terms = elbo_terms(params, head(test_split, n), evaluation_key())
    assert terms.rate.shape == terms.distortion.shape == (n,)
    np.testing.assert_allclose(terms.rate, whole.rate[:n], rtol=1e-5)
    np.testing.assert_allclose(terms.distortion, whole.distortion[:n], rtol=1e-5)


@pytest.mark.parametrize("row", [0, 249, 250, 358])
def test_every_example_counts_once(one, elbo_terms, whole, test_split, row):
    _, params = one
    changed = test_split.replace(x=test_split.x.at[row].set(16 - test_split.x[row]))
    terms = elbo_terms(params, changed, evaluation_key())
    for name in ("distortion", "rate"):
        before, after = getattr(whole, name), getattr(terms, name)
        assert np.flatnonzero(before != after).tolist() == [row]


def test_every_example_has_noise_of_its_own(one, elbo_terms, test_split):
    _, params = one
    same = test_split.replace(
        x=jnp.broadcast_to(test_split.x[0], test_split.x.shape), c=jnp.zeros_like(test_split.c)
    )
    terms = elbo_terms(params, same, evaluation_key())
    assert len(np.unique(terms.distortion)) == 359
    np.testing.assert_allclose(terms.rate, terms.rate[0], rtol=1e-5)
    other = elbo_terms(params, same, KEY)
    assert (terms.distortion != other.distortion).all()


def test_the_rate_is_the_kl_over_the_latents_in_use(one, whole, test_split):
    model, params = one
    x, c = test_split.take(jnp.arange(359))
    q = jax.jit(model.encode)(params, x, c)
    by_hand = jax.vmap(standard_normal_kl)(q.mean[:, :3], q.logvar[:, :3])
    np.testing.assert_allclose(whole.rate, by_hand, rtol=1e-4)


def test_masked_latents_add_nothing(one, elbo_terms, whole, test_split):
    _, params = one
    inner = dict(params["params"])
    inner["to_latents"] = {k: v.at[..., 3:].set(50.0) for k, v in inner["to_latents"].items()}
    from_latents = inner["decoder"]["FromLatents_0"]
    from_latents = from_latents | {"kernel": from_latents["kernel"].at[3:].set(50.0)}
    inner["decoder"] = inner["decoder"] | {"FromLatents_0": from_latents}
    terms = elbo_terms(params | {"params": inner}, test_split, evaluation_key())
    np.testing.assert_array_equal(terms.rate, whole.rate)
    np.testing.assert_array_equal(terms.distortion, whole.distortion)


def test_members_together_are_members_in_turn(members, elbo_terms, test_split):
    model, params = members
    together = bounds.members_elbo_terms(model, params, test_split)
    assert together.rate.shape == together.distortion.shape == (2, 359)
    for i in range(2):
        alone = elbo_terms(member(params, i), test_split, evaluation_key())
        np.testing.assert_allclose(together.rate[i], alone.rate, rtol=1e-5)
        np.testing.assert_allclose(together.distortion[i], alone.distortion, rtol=1e-5)


def test_summarize_is_the_mean_in_float64():
    rng = np.random.default_rng(0)
    terms = ElboTerms(*(jnp.asarray(rng.uniform(1e3, 1e4, (2, 10_001)), jnp.float32) for _ in range(2)))
    for i, metrics in enumerate(bounds.summarize(terms)):
        for name in ("distortion", "rate"):
            assert metrics[name] == np.mean(np.asarray(getattr(terms, name)[i], np.float64))
        assert metrics["elbo"] == -(metrics["rate"] + metrics["distortion"])
        assert set(metrics) == {"elbo", "rate", "distortion"}


# Samples


def test_a_sample_does_not_depend_on_how_many_are_drawn(one):
    model, params = one
    few, many = (sampling.generate(model, params, KEY, jnp.full(n, 4)) for n in (5, 16))
    assert many.shape == (16, 8, 8, 1)
    np.testing.assert_allclose(few, many[:5], atol=1e-6)
    assert len({image.tobytes() for image in np.asarray(many)}) == 16


def test_a_sample_changes_with_its_label_and_the_key(one):
    model, params = one
    draw = partial(sampling.generate, model, params)
    first = draw(KEY, jnp.full(5, 4))
    for other in (draw(KEY, jnp.full(5, 7)), draw(jax.random.key(4), jnp.full(5, 4))):
        assert (jnp.abs(first - other).max(axis=(1, 2, 3)) > 1e-4).all()
    mixed = draw(KEY, jnp.array([4, 4, 7, 4, 4]))
    assert np.flatnonzero((mixed != first).any(axis=(1, 2, 3))).tolist() == [2]


def test_samples_are_means_of_pixels(one):
    model, params = one
    images = sampling.generate(model, params, KEY, jnp.arange(5))
    assert ((images > 0) & (images < 1)).all()
    assert len(np.unique(images)) > 100


def test_traversals_pass_through_their_start(one):
    model, params = one
    z, c = jnp.array([0.3, -1.0, 2.0, 0.0, 0.0]), jnp.int32(6)
    images = sampling.traverse(
        model, params, z, c, latents=jnp.array([0, 2, 4]), values=jnp.array([-3.0, 0.3, 2.0])
    )
    assert images.shape == (3, 3, 8, 8, 1)
    start = sampling.decode_mean(model, params, z[None], c[None])[0]
    moved = sampling.decode_mean(model, params, z.at[2].set(-3.0)[None], c[None])[0]
    np.testing.assert_allclose(images[0, 1], start, atol=1e-6)
    np.testing.assert_allclose(images[1, 2], start, atol=1e-6)
    np.testing.assert_allclose(images[1, 0], moved, atol=1e-6)
    np.testing.assert_array_equal(images[2, 0], images[2, 2])  # a masked latent moves nothing
    assert jnp.abs(images[1, 0] - images[1, 2]).max() > 1e-4


def test_interpolations_include_both_ends(one):
    model, params = one
    ends = jnp.array([[0.3, -1.0, 2.0, 0.0, 0.0], [-2.0, 1.0, 0.5, 0.0, 0.0]])
    c = jnp.int32(6)
    images = sampling.interpolate(model, params, *ends, c, steps=5)
    z = jnp.stack([ends[0], ends.mean(axis=0), ends[1]])
    expected = sampling.decode_mean(model, params, z, jnp.full(3, c))
    np.testing.assert_allclose(images[jnp.array([0, 2, 4])], expected, atol=1e-6)
    assert jnp.abs(images[0] - images[4]).max() > 1e-4


def test_reconstructions_are_those_of_the_posterior_mean(one, test_split):
    model, params = one
    x, c = test_split.take(jnp.arange(5))
    q = jax.jit(model.encode)(params, x, c)
    images = sampling.reconstruct(model, params, x, c)
    np.testing.assert_allclose(images, sampling.decode_mean(model, params, q.mean, c), atol=1e-6)
