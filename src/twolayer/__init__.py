"""Two-layer networks: one interface, many implementations, verified and measured."""
