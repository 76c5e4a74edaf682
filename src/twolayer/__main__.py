"""`python -m twolayer` is the command line."""

from .cli import app

app(prog_name="twolayer")
