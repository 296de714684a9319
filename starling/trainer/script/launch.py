"""`python -m starling.trainer.script.launch DIRECTORY COMMAND...`: becomes the script, so that it dies with us.

The kernel's promise to kill this process when its supervisor dies outlives the exec; a script need not ask for it.
"""

from __future__ import annotations

import os
import sys

from starling.infra.processes import die_with_parent


def main() -> None:
    die_with_parent()
    directory, *command = sys.argv[1:]
    os.chdir(directory)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror} (command.run, in the code folder)")


if __name__ == "__main__":
    main()
