"""What was measured before, for people."""
