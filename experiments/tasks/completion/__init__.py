"""Images completed from some of their quadrants (Sohn, Lee & Yan 2015)."""
