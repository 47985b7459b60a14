"""`python scripts/reproduce.py --help` says what this does; it is `farout.commands.reproduce`."""

import sys

from farout.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
