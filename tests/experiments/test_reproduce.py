"""The published experiments are what their papers describe."""

import pytest

from cvae_jax.training.run import Run
from experiments.reproduce import EXPERIMENTS, run_of


@pytest.mark.parametrize(
    ("name", "num_samples", "nll"), [("k1", 1, 86.76), ("k5", 5, 85.54), ("k50", 50, 84.78)]
)
def test_the_iwae_papers_rows(name, num_samples, nll):
    published = EXPERIMENTS[f"iwae-{name}"]
    assert (published.nll, published.nll_samples, published.stages) == (nll, 5000, 8)
    run = run_of(published, stages=8, data_dir=None)
    config, (member,) = run.config, run.members
    assert (config.dataset, config.condition, config.binarize) == ("mnist", "none", "dynamic")
    assert (config.hidden, config.activation, member.latent_dim) == ((200, 200), "tanh", 50)
    assert (config.epochs, config.batch_size, config.learning_rate_schedule) == (3280, 20, "iwae")
    assert (member.beta, member.learning_rate, member.adam_epsilon) == (1.0, 1e-3, 1e-4 / 20)
    assert (config.objective, config.num_samples) == ("elbo" if num_samples == 1 else "iwae", num_samples)


def test_fewer_stages_are_the_start_of_the_schedule():
    runs: list[Run] = [run_of(EXPERIMENTS["iwae-k1"], stages=i, data_dir=None) for i in range(1, 9)]
    assert [run.config.epochs for run in runs] == [1, 4, 13, 40, 121, 364, 1093, 3280]
