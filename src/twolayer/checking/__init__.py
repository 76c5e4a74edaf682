"""Who decides whether an implementation is right."""
