"""One training step, many members as one program, checkpoints."""
