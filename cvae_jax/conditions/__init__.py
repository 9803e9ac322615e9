"""What a condition is made of, and how a network reads it."""
