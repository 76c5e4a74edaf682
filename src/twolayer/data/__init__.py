"""Data sets that come along, files, and arrays that stay on disk."""
