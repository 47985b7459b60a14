"""`python scripts/status.py --help` says what this does; it is `farout.commands.status`."""

import sys

from farout.commands.status import main

if __name__ == "__main__":
    sys.exit(main())
