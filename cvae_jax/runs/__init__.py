"""A run from its configuration to its files: the loop, checkpoints, logs, and what a workdir holds."""
