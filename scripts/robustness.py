"""`python scripts/robustness.py --help` says what this does; it is `farout.commands.robustness`."""

import sys

from farout.commands.robustness import main

if __name__ == "__main__":
    sys.exit(main())
