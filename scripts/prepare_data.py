"""`python scripts/prepare_data.py --help` says what this does; it is `farout.commands.prepare_data`."""

import sys

from farout.commands.prepare_data import main

if __name__ == "__main__":
    sys.exit(main())
