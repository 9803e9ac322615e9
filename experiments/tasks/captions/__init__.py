"""Scenes of several digits, drawn from captions."""
