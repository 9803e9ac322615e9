"""Datasets as arrays: reading, checking, preprocessing."""
