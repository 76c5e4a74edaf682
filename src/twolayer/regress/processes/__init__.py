"""The processes that measure revisions, and what passes between them and the command."""
