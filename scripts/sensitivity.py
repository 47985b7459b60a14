"""`python scripts/sensitivity.py --help` says what this does; it is `farout.commands.sensitivity`."""

import sys

from farout.commands.sensitivity import main

if __name__ == "__main__":
    sys.exit(main())
