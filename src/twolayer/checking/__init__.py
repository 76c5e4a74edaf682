"""Who decides that a variant is right: the oracle, its error bounds, and the promises of a plan."""
