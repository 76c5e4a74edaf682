"""The asv suite: what every variant costs, commit by commit. How to run it: docs/lab/history.md."""
