"""Code in explicit vectors: products in tiles, sums in lanes, and the panels they read."""
