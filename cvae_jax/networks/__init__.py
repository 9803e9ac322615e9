"""Encoder and decoder bodies."""
