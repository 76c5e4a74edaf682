"""Copies between a GPU's memories, and the forms in which numbers lie there."""
