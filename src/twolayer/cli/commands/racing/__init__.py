"""Commands that time variants side by side."""
