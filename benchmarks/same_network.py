"""Shows that `torch_cvae` and `cvae_jax` are the same networks: `python -m benchmarks.same_network`.

Given the same parameters, batch and noise, both give the same posterior, logits, loss and gradient.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from benchmarks import jax_cvae, torch_cvae
from cvae_jax.losses import bernoulli_log_likelihood, standard_normal_kl

TOLERANCE = 1e-4  # of each array's largest magnitude

# Our module of each of theirs.
_COMMON = {
    "embedding": "embedding",
    "to_latents": "to_latents",
    "encoder.first.condition": "encoder/AddCondition_0/Dense_0",
    "encoder.second.condition": "encoder/AddCondition_1/Dense_0",
    "decoder.first.layer": "decoder/FromLatents_0",
    "decoder.first.condition": "decoder/AddCondition_0/Dense_0",
    "decoder.second.condition": "decoder/AddCondition_1/Dense_0",
}
_MLP = {
    "encoder.first.layer": "encoder/Dense_0",
    "encoder.second.layer": "encoder/Dense_1",
    "decoder.second.layer": "decoder/Dense_0",
    "decoder.last": "decoder/Dense_1",
}
_CONV = {
    "encoder.first.layer": "encoder/Downsample_0",
    "encoder.second.layer": "encoder/Downsample_1",
    "decoder.second.layer": "decoder/Upsample_0",
    "decoder.last": "decoder/Upsample_1",
} | {
    f"{body}.block.{name}": f"{body}/PointwiseBlock_0/{path}"
    for body in ("encoder", "decoder")
    for name, path in (
        ("inner.layer", "Dense_0"),
        ("inner.condition", "AddCondition_0/Dense_0"),
        ("outer", "Dense_1"),
    )
}
_OURS = {"mlp": _COMMON | _MLP, "conv": _COMMON | _CONV}


def _weight(module: nn.Module, p: dict[str, np.ndarray]) -> np.ndarray:
    """Our parameters of one module, in the layout of its `weight`."""
    if "table" in p:
        return p["table"]
    if "mean_kernel" in p:
        return np.concatenate([p["mean_kernel"], p["logvar_kernel"]], axis=1).T
    kernel = p["kernel"]
    if isinstance(module, nn.ConvTranspose2d):  # flax runs its transposed kernel backwards
        return kernel[::-1, ::-1].transpose(2, 3, 0, 1)
    if isinstance(module, nn.Conv2d):
        kernel = kernel.reshape((*module.kernel_size, *kernel.shape[-2:]))
        return kernel.transpose(3, 2, 0, 1)
    return kernel.T


def _bias(p: dict[str, np.ndarray]) -> np.ndarray:
    return p["bias"] if "bias" in p else np.concatenate([p["mean_bias"], p["logvar_bias"]])


def torch_arrays(model: torch_cvae.CVAE, network: str, params: dict) -> dict[str, Tensor]:
    """Our parameters, or their gradient, under PyTorch's names and in its layouts."""
    arrays = {}
    for name, path in _OURS[network].items():
        module = model.get_submodule(name)
        p = params["params"]
        for key in path.split("/"):
            p = p[key]
        p = jax.tree.map(np.asarray, p)
        arrays[f"{name}.weight"] = torch.from_numpy(_weight(module, p).copy())
        if getattr(module, "bias", None) is not None:
            arrays[f"{name}.bias"] = torch.from_numpy(_bias(p).copy())
    return arrays


def _require_close(what: str, a: np.ndarray, b: np.ndarray) -> None:
    error = float(np.abs(a - b).max() / np.abs(a).max())
    if not error < TOLERANCE:
        raise SystemExit(f"{what} differ by {error:.1e}")


def _our_loss(model, params, x, c, noise):
    q = model.encode(params, x, c)
    z = q.mean + jnp.exp(0.5 * q.logvar) * noise
    logits = model.decode(params, z, c)
    distortion = -jax.vmap(bernoulli_log_likelihood)(logits, x)
    rate = jax.vmap(standard_normal_kl)(q.mean, q.logvar)
    return jnp.mean(distortion + rate), (q.mean, q.logvar, z, logits)


def check(network: str) -> None:
    """Compare one network; exit with a message if it differs."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (128, 28, 28, 1)).astype(np.float32)
    c = rng.integers(0, 10, 128, dtype=np.int32)
    noise = rng.standard_normal((128, 20), dtype=np.float32)

    training = jax_cvae.Training(network, (255 * x).astype(np.uint8), c, [{"latent_dim": 20}])
    params = jax.tree.map(lambda a: a[0], training.population.members.params)
    model = torch_cvae.CVAE(network)
    for count in (training.num_params, sum(p.numel() for p in model.parameters())):
        assert count == torch_cvae.NUM_PARAMS[network], count

    # Away from the start, where every bias is zero.
    trained, fixed = params["params"], {name: v for name, v in params.items() if name != "params"}
    leaves, structure = jax.tree.flatten(trained)
    leaves = [a + 0.05 * rng.standard_normal(a.shape, dtype=np.float32) for a in leaves]
    params = {"params": jax.tree.unflatten(structure, leaves)}
    model.load_state_dict(torch_arrays(model, network, params))

    grad = jax.jit(
        jax.value_and_grad(lambda p: _our_loss(training.model, p | fixed, x, c, noise), has_aux=True)
    )
    (loss, (mean, logvar, z, logits)), gradient = grad(params)

    tx, tc = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(c)
    their_mean, their_logvar = model.encode(tx, tc)
    their_logits = model.decode(torch.from_numpy(np.array(z)), tc).permute(0, 2, 3, 1)
    terms = torch_cvae.negative_beta_elbo(model, tx, tc, torch.from_numpy(noise), beta=1.0)
    terms.loss.backward()
    for what, one, other in (
        ("means", mean, their_mean),
        ("log-variances", logvar, their_logvar),
        ("logits", logits, their_logits),
        ("losses", loss, terms.loss),
    ):
        _require_close(f"{network}: {what}", np.asarray(one), other.detach().numpy())
    expected = torch_arrays(model, network, gradient)
    for name, p in model.named_parameters():
        assert p.grad is not None
        _require_close(f"{network}: gradients of {name}", expected[name].numpy(), p.grad.numpy())
    print(f"{network}: the same posterior, logits, loss and gradients of {training.num_params:,} parameters")


def main() -> None:
    for network in ("mlp", "conv"):
        check(network)


if __name__ == "__main__":
    main()
