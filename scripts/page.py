"""`python scripts/page.py --help` says what this does; it is `farout.commands.page`."""

import sys

from farout.commands.page import main

if __name__ == "__main__":
    sys.exit(main())
