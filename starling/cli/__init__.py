"""The command line. `main` is the console script; verbs import what they need only when they run."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the one place where an expected error becomes a message and an exit code."""
    from starling.cli.app import app
    from starling.infra.errors import StarlingError

    try:
        app()
    except StarlingError as error:
        print(f"starling: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(0)
