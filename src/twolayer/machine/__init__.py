"""This computer: its processors and memory, its threads, and what was measured on it."""
