"""Digits spoken by several speakers, from text."""
