"""`python -m pilotage.testing.echo`: the same as the `pilotage-echo` command."""

import sys

from pilotage.testing.echo.command import main

if __name__ == "__main__":
    sys.exit(main())
