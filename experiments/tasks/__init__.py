"""Applications of the library, each with what it alone needs."""


def register() -> None:
    """Add the applications' datasets, networks and hooks to those that the library knows by name."""
    from cvae_jax.data.reading import DATASETS, Source
    from cvae_jax.networks import NETWORKS
    from cvae_jax.training.hooks import HOOKS
    from experiments.tasks.captions.dataset import from_mnist
    from experiments.tasks.captions.network import CaptionConv
    from experiments.tasks.captions.paraphrase import Paraphrase
    from experiments.tasks.spoken_digit.dataset import read

    DATASETS["captions"] = Source(from_mnist, tfds="mnist")
    DATASETS["spoken_digit"] = Source(read, tfds="spoken_digit")
    NETWORKS["caption_conv"] = CaptionConv
    HOOKS["paraphrase_weight"] = Paraphrase
