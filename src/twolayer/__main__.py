"""`python -m twolayer` is the command line."""

import sys


def main() -> None:
    """Run the command line; who interrupts while it is loaded, or cannot load it, is told so."""
    try:
        from .cli import app
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    app(prog_name="twolayer")


if __name__ == "__main__":
    main()
