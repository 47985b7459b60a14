"""`python scripts/torture.py --help` says what this does; it is `farout.commands.torture`."""

import sys

from farout.commands.torture import main

if __name__ == "__main__":
    sys.exit(main())
