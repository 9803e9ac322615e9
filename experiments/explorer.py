"""Write a page whose sliders move a trained decoder, offline: `python -m experiments.explorer --workdir=runs/...`."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from cvae_jax.errors import UserError
from cvae_jax.files import write_atomically
from experiments import cli
from experiments.pages import script_json
from experiments.workdir import chosen_member, define_member_choice, read_run, require_writable

if TYPE_CHECKING:
    from jaxtyping import Int, PyTree

    from cvae_jax.model import CVAE

FLAGS = flags.FLAGS

_TEMPLATE = Path(__file__).with_name("explorer_template.html")
_DECODER = Path(__file__).with_name("explorer_decoder.js")
_LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "gaussian_learned", "gaussian_optimal")


def main() -> int:
    workdir, output = Path(FLAGS.workdir), Path(FLAGS.output)
    if output.suffix != ".html":
        raise UserError(f"output is {output}, expected a name ending in .html")
    run = read_run(workdir)
    require_writable(output, workdir, run)
    member = chosen_member(workdir, run)
    for name, drawn in {
        "condition": ("label", "none"),
        "conditioning": ("concat",),
        "prior": ("standard",),
    }.items():
        value = getattr(run.config, name)
        if value not in drawn:
            raise UserError(
                f"{workdir} has the {name} {value}, expected {' or '.join(drawn)}: the explorer draws no other"
            )
    if run.config.likelihood not in _LIKELIHOODS:
        raise UserError(
            f"{workdir} has the likelihood {run.config.likelihood}, expected one of {', '.join(_LIKELIHOODS)}: "
            "the explorer draws no other"
        )

    from cvae_jax.evaluation import posteriors
    from experiments import figures, loop, results

    session = loop.open_session(run, cli.use_cache())
    part = session.part_of(member)
    trained = results.trained_member(part, results.load_population(session, part, workdir), member)
    q = figures.posterior(session, trained)
    order = posteriors.by_information(q, trained.hparams.latent_mask)
    kl = np.asarray(posteriors.kl_per_latent(q))
    settings, dataset = run.members[member], session.dataset
    content = {
        "title": f"{dataset.name}, {run.config.network}: β {settings.beta:g}, {settings.latent_dim} latents",
        "class_names": dataset.class_names if run.config.condition == "label" else [],
        "latents": [{"name": f"z{i}", "kl": round(float(kl[i]), 4)} for i in order],
        "model": decoder(session.model, trained.best.params, order),
    }
    text = page(content)
    write_atomically(output, lambda file: file.write_text(text, encoding="utf-8"))
    print(f"wrote {output}, {len(text.encode()) / 1e6:.1f} MB; it opens in any browser, offline")
    return 0


def page(content: dict[str, Any]) -> str:
    """The page of some content: `title`, `class_names`, `latents` in the order of their sliders, `model`."""
    parts = {"/*DECODER*/": _DECODER.read_text(encoding="utf-8"), "/*DATA*/null": script_json(content)}
    text = _TEMPLATE.read_text(encoding="utf-8")
    for mark, part in parts.items():
        before, after = text.split(mark)
        text = before + part + after
    return text


def decoder(model: CVAE, params: PyTree, latents: Int[np.ndarray, " l"]) -> dict[str, Any]:
    """The decoder as the page's JavaScript reads it.

    A layer is a matrix product at every position of an image of `height` × `width`; its `bias` is joined by
    `condition` times the class's embedding. An `upsample` adds up its 4×4 windows in an image of `rows` × `columns`.
    An `activation` may follow. A layer may `keep` its input, for a later one to `add` to its output.

    Args:
      model: the model.
      params: its variables.
      latents: the latents that have sliders, in the page's order, shape (l,); all others are 0.

    Returns:
      `likelihood`, `shape` of an image, `embedding` of shape (classes, e) or None, and `layers`. Arrays are float32,
      little-endian, in base64.

    Raises:
      UserError: if the decoder holds parameters that the page has no layer for.
    """
    variables = _on_host(params["params"])
    tree = variables["decoder"]
    if "setting" in params:
        _set_gates(tree, float(params["setting"]["log_beta"]))
    if model.config.network == "mlp":
        layers = _mlp_layers(tree, model.config.activation)
    else:
        layers = _conv_layers(tree, model.shape)
    if tree:
        raise UserError(f"the decoder has {', '.join(tree)}, expected only layers that the explorer draws")
    embedding = variables.get("decoder_embedding", variables.get("embedding"))
    layers[0] |= {"kernel": layers[0]["kernel"][latents], "inputs": len(latents)}
    arrays = ("kernel", "bias", "condition")
    return {
        "likelihood": model.config.likelihood,
        "shape": model.shape,
        "embedding": _base64(embedding["table"]) if embedding else None,
        "layers": [layer | {name: _base64(layer[name]) for name in arrays} for layer in layers],
    }


def _on_host(tree: PyTree) -> dict[str, Any]:
    """Nested dictionaries of arrays as such of float32 on the host, free to take apart."""
    return {
        name: _on_host(leaf) if hasattr(leaf, "items") else np.asarray(leaf, np.float32)
        for name, leaf in tree.items()
    }


def _base64(array: np.ndarray | None) -> str | None:
    return None if array is None else base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def _set_gates(tree: dict[str, Any], log_beta: float) -> None:
    """Give every `AddCondition` of a multi-rate decoder its `gate` at one β."""
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
    """A matrix product at every position, and the `AddCondition` after it, whose gate the weights take in."""
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
    """Layers of `MLPDecoder`, taken out of its parameters."""
    hidden = sum(name.startswith("Dense_") for name in tree) - 1
    first = _layer(tree.pop("FromLatents_0"), tree.pop("AddCondition_0", None), activation=activation)
    between = [
        _layer(tree.pop(f"Dense_{i}"), tree.pop(f"AddCondition_{i + 1}", None), activation=activation)
        for i in range(hidden)
    ]
    return [first, *between, _layer(tree.pop(f"Dense_{hidden}"))]


def _conv_layers(tree: dict[str, Any], shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Layers of `ConvDecoder`, taken out of its parameters."""
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
        # Pixel i reaches pixel 2i + 2 − t through tap t: the window runs against the kernel.
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


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    define_member_choice()
    flags.DEFINE_string("output", "explorer.html", "Page to write.")
    cli.define_cache_flags()
    cli.run(main)
