"""`python scripts/import_checkpoint.py --help` says what this does; it is `farout.commands.import_checkpoint`."""

import sys

from farout.commands.import_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
