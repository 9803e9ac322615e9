"""Bounds, latents, disentanglement, sample quality, sampling."""
