"""Applications of the library, each with what it alone needs."""


def register() -> None:
    """Add the applications' datasets, networks, hooks and judges to those that are known by name."""
    from cvae_jax.data.reading import DATASETS, Source
    from cvae_jax.networks import NETWORKS
    from cvae_jax.training.hooks import HOOKS
    from experiments.command_line.choices import LABELS, UNKNOWN_WORDS
    from experiments.reports.outputs import FORMATS, Format
    from experiments.reports.quality import OF_TASKS
    from experiments.tasks.captions import quality as captions
    from experiments.tasks.captions.dataset import from_mnist
    from experiments.tasks.captions.network import CaptionConv
    from experiments.tasks.captions.paraphrase import Paraphrase
    from experiments.tasks.captions.parser import unknown_words
    from experiments.tasks.spoken_digit import quality as spoken_digit
    from experiments.tasks.spoken_digit.dataset import read
    from experiments.tasks.spoken_digit.sound import write_words

    DATASETS["captions"] = Source(from_mnist, tfds="mnist")
    DATASETS["spoken_digit"] = Source(read, tfds="spoken_digit")
    NETWORKS["caption_conv"] = CaptionConv
    HOOKS["paraphrase_weight"] = Paraphrase
    UNKNOWN_WORDS["captions"] = unknown_words
    OF_TASKS["captions", "text"] = captions.find_judge
    OF_TASKS["spoken_digit", "text,label"] = spoken_digit.find_judge
    LABELS["speaker"] = "Speaker of the words, by name; if not set, all speakers in turn."
    FORMATS[".wav"] = Format("the sound of spoken words", write_words, dataset="spoken_digit")
