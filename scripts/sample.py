"""`python scripts/sample.py --help` says what this does; it is `farout.commands.sample`."""

import sys

from farout.commands.sample import main

if __name__ == "__main__":
    sys.exit(main())
