"""The published experiments are what their papers describe."""

import pytest

from cvae_jax.runs.run import Run
from cvae_jax.training.config import flat
from experiments.reproduce import EXPERIMENTS, run_of


@pytest.mark.parametrize(
    ("name", "num_samples", "nll"), [("k1", 1, 86.76), ("k5", 5, 85.54), ("k50", 50, 84.78)]
)
def test_the_iwae_papers_rows(name, num_samples, nll):
    published = EXPERIMENTS[f"iwae-{name}"]
    assert (published.nll, published.nll_samples, published.stages) == (nll, 5000, 8)
    run = run_of(published, stages=8, data_dir=None)
    (config,) = run.members
    assert (config.data.dataset, config.condition, config.binarize) == ("mnist", (), "dynamic")
    options = flat(config)
    assert (options["hidden"], options["activation"], config.latent_dim) == ((200, 200), "tanh", 50)
    assert (config.epochs, config.batch_size) == (3280, 20)
    assert options["learning_rate_schedule"] == "iwae"
    assert (options["beta"], options["learning_rate"], options["adam_epsilon"]) == (1.0, 1e-3, 1e-4 / 20)
    assert options["objective"] == ("elbo" if num_samples == 1 else "iwae")
    assert config.objective.draws == num_samples


def test_fewer_stages_are_the_start_of_the_schedule():
    runs: list[Run] = [run_of(EXPERIMENTS["iwae-k1"], stages=i, data_dir=None) for i in range(1, 9)]
    assert [run.config.epochs for run in runs] == [1, 4, 13, 40, 121, 364, 1093, 3280]
