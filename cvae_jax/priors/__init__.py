"""Priors p(z|c)."""
