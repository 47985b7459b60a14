"""`python scripts/report.py --help` says what this does; it is `farout.commands.report`."""

import sys

from farout.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
