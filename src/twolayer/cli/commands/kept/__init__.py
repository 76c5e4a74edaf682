"""The commands about what was measured before."""
