"""`python scripts/make_table.py --help` says what this does; it is `farout.commands.make_table`."""

import sys

from farout.commands.make_table import main

if __name__ == "__main__":
    sys.exit(main())
