"""Two revisions against each other: faster, slower or the same."""
