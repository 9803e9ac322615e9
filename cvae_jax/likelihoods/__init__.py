"""Likelihoods p(x|z,c)."""
