"""`python scripts/compare.py --help` says what this does; it is `farout.commands.compare`."""

import sys

from farout.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
