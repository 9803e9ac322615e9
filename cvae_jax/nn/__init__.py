"""Layers: dense, convolutional, onto and from the latents."""
