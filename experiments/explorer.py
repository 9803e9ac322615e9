"""Write a web page that decodes latents set by sliders: `python -m experiments.explorer --workdir=runs/...`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from cvae_jax.runs.workdir import read_run
from experiments.command_line import caching, cli, usage
from experiments.reports.pages import script_json
from experiments.reports.workdir import chosen_member, define_model_choice, require_writable

if TYPE_CHECKING:
    from jaxtyping import Int, PyTree

    from cvae_jax.model import CVAE

FLAGS = flags.FLAGS

_TEMPLATE = Path(__file__).parent / "reports/explorer_template.html"
_DECODER = Path(__file__).parent / "reports/explorer_decoder.js"
_LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "gaussian_learned", "gaussian_optimal")


def main() -> int:
    workdir, output = Path(FLAGS.workdir), Path(FLAGS.output)
    if output.suffix != ".html":
        raise UserError(f"output is {output}, expected a name ending in .html")
    run = read_run(workdir)
    require_writable(output, workdir, run)
    member = chosen_member(workdir, run)

    from cvae_jax.networks import NETWORKS
    from cvae_jax.runs.session import load_member, open_model
    from cvae_jax.training.config import traced_options
    from experiments.reports import figures

    caching.use()
    session = open_model(workdir)
    require_explorable(workdir, session.model)
    trained = load_member(session, workdir, member)
    order = figures.informative_latents(session, trained)
    data, network = session.data, NETWORKS.name_of(session.model.network)
    options = traced_options(trained.config)
    beta = f"β {options['beta']:g}, " if "beta" in options else ""
    classes = () if session.model.condition is None else data.seen_classes
    content = {
        "title": f"{data.name}, {network}: {beta}{len(order)} latents",
        "class_names": [data.class_names[k] for k in classes],
        "latents": [{"name": f"z{each.latent}", "kl": round(each.kl, 4)} for each in order],
        "model": decoder(
            session.model, trained.best.params, np.array([each.latent for each in order]), classes
        ),
    }
    text = page(content)
    write_atomically(output, lambda file: file.write_text(text, encoding="utf-8"))
    print(f"wrote {output}, {len(text.encode()) / 1e6:.1f} MB; it opens in any browser, offline")
    return 0


def require_explorable(workdir: Path, model: CVAE) -> None:
    """Refuse a model that the page cannot draw.

    Raises:
      UserError: naming what it would need.
    """
    from cvae_jax.likelihoods import LIKELIHOODS
    from cvae_jax.networks import NETWORKS
    from cvae_jax.nn.conv import require_image
    from cvae_jax.priors import PRIORS

    require_image(model.shape, "the explorer")

    condition = "none" if model.condition is None else model.condition.name
    network, prior = NETWORKS.name_of(model.network), PRIORS.name_of(model.prior)
    likelihood = LIKELIHOODS.name_of(model.likelihood)
    for what, value, drawn in (
        ("condition", condition, ("label", "none")),
        ("conditioning", "film" if model.film else "concat", ("concat",)),
        ("prior", prior, ("standard",)),
        ("network", network, ("mlp", "conv")),
        ("likelihood", likelihood, _LIKELIHOODS),
    ):
        if value not in drawn:
            raise UserError(
                f"{workdir} has the {what} {value}, expected {' or '.join(drawn)}: the explorer can draw no other"
            )


def page(content: dict[str, Any]) -> str:
    """The page with its content filled in: `title`, `class_names`, `latents` in the order of their sliders, `model`."""
    parts = {"/*DECODER*/": _DECODER.read_text(encoding="utf-8"), "/*DATA*/null": script_json(content)}
    text = _TEMPLATE.read_text(encoding="utf-8")
    for mark, part in parts.items():
        before, after = text.split(mark)
        text = before + part + after
    return text


def decoder(
    model: CVAE, params: PyTree, latents: Int[np.ndarray, " l"], classes: Sequence[int]
) -> dict[str, Any]:
    """The decoder as the page's JavaScript reads it.

    A layer is a matrix product at every position of an image of `height` × `width`; `condition` times the embedding of
    the class is added to its `bias`. An `upsample` adds up its 4×4 windows in an image of `rows` × `columns`. An
    `activation` can follow. A layer can `keep` its input, which a later one can `add` to its output.

    Args:
      model: the model, see `require_explorable`.
      params: its parameters.
      latents: the latents with sliders, in the order of the page, shape (l,); all others are 0.
      classes: those that the page shows, in its order; none without a condition.

    Returns:
      `likelihood`, `shape` of an image, `embedding` of shape (classes, e) or None, and `layers`. Arrays are float32,
      little-endian, in base64.

    Raises:
      UserError: if the decoder has parameters that the page has no layer for.
    """
    from cvae_jax.likelihoods import LIKELIHOODS
    from cvae_jax.networks import MLP
    from cvae_jax.nn.conv import require_image

    variables = _on_host(params["params"])
    tree = variables["decoder"]
    if "setting" in params:
        _set_gates(tree, float(params["setting"]["log_beta"]))
    if isinstance(model.network, MLP):
        layers = _mlp_layers(tree, model.network.activation)
    else:
        layers = _conv_layers(tree, require_image(model.shape, "the explorer"))
    if tree:
        raise UserError(f"the decoder has {', '.join(tree)}, expected only layers that the explorer can draw")
    embedding = variables.get("decoder_embedding", variables.get("embedding"))
    layers[0] |= {"kernel": layers[0]["kernel"][latents], "inputs": len(latents)}
    arrays = ("kernel", "bias", "condition")
    return {
        "likelihood": LIKELIHOODS.name_of(model.likelihood),
        "shape": model.shape,
        "embedding": _base64(embedding["table"][list(classes)]) if embedding else None,
        "layers": [layer | {name: _base64(layer[name]) for name in arrays} for layer in layers],
    }


def _on_host(tree: PyTree) -> dict[str, Any]:
    """Nested dictionaries of arrays as new dictionaries of float32 arrays on the host, from which layers are taken."""
    return {
        name: _on_host(leaf) if hasattr(leaf, "items") else np.asarray(leaf, np.float32)
        for name, leaf in tree.items()
    }


def _base64(array: np.ndarray | None) -> str | None:
    return None if array is None else base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _set_gates(tree: dict[str, Any], log_beta: float) -> None:
    """Add to every `AddCondition` of a multi-rate decoder its `gate` at one β."""
    if "gate_slope" in tree:
        tree["gate"] = 2.0 / (1.0 + np.exp(-(log_beta * tree["gate_slope"] + tree["gate_shift"])))
    for part in tree.values():
        if isinstance(part, dict):
            _set_gates(part, log_beta)


def _layer(
    linear: dict[str, Any],
    adder: dict[str, Any] | None = None,
    *,
    size: tuple[int, int] = (1, 1),
    **how: Any,
) -> dict[str, Any]:
    """A matrix product at every position and the `AddCondition` after it, whose gate is multiplied into the weights."""
    kernel, bias, adder = linear["kernel"], linear["bias"], adder or {}
    condition = adder["Dense_0"]["kernel"] if "Dense_0" in adder else None
    if "gate" in adder:
        gate = adder["gate"]
        kernel, bias = kernel * np.tile(gate, kernel.shape[1] // len(gate)), bias * gate
        condition = None if condition is None else condition * gate
    return {
        "kind": "dense",
        "kernel": kernel,
        "bias": bias,
        "condition": condition,
        "inputs": len(kernel),
        "outputs": len(bias),
        "height": size[0],
        "width": size[1],
        **how,
    }


def _mlp_layers(tree: dict[str, Any], activation: str) -> list[dict[str, Any]]:
    """Layers of `MLPDecoder`, removed from its parameters."""
    hidden = sum(name.startswith("Dense_") for name in tree) - 1
    first = _layer(tree.pop("FromLatents_0"), tree.pop("AddCondition_0", None), activation=activation)
    between = [
        _layer(tree.pop(f"Dense_{i}"), tree.pop(f"AddCondition_{i + 1}", None), activation=activation)
        for i in range(hidden)
    ]
    return [first, *between, _layer(tree.pop(f"Dense_{hidden}"))]


def _conv_layers(tree: dict[str, Any], shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Layers of `ConvDecoder`, removed from its parameters."""
    from cvae_jax.nn.conv import pyramid

    *below, (height, width, _) = pyramid(shape)
    block = tree.pop("PointwiseBlock_0")
    layers = [
        _layer(tree.pop("FromLatents_0"), tree.pop("AddCondition_0", None), activation="silu"),
        _layer(
            block["Dense_0"], block.get("AddCondition_0"), size=(height, width), activation="silu", keep=True
        ),
        _layer(block["Dense_1"], size=(height, width), add=True),
    ]
    for i, (rows, columns, _) in enumerate(reversed(below)):
        linear = tree.pop(f"Upsample_{i}")
        # Pixel i adds to pixel 2i + 2 − t through tap t of the kernel: in the window the taps are in reverse order.
        windows = linear["kernel"][::-1, ::-1].transpose(2, 0, 1, 3)
        layer = _layer(
            {"kernel": windows.reshape(len(windows), -1), "bias": linear["bias"]},
            tree.pop(f"AddCondition_{i + 1}", None),
            size=(height, width),
            activation="silu" if i < len(below) - 1 else None,
        )
        layers.append(layer | {"kind": "upsample", "rows": rows, "columns": columns})
        height, width = rows, columns
    return layers


def _define_output() -> None:
    flags.DEFINE_string("output", "explorer.html", "Page to write; its name ends in .html.")


if __name__ == "__main__":
    sections = [
        usage.section("Model", define_model_choice),
        usage.section("Output", _define_output),
        usage.section("Cache", caching.define_flags),
    ]
    cli.run(main, sections)
