"""`python scripts/verdicts.py --help` says what this does; it is `farout.commands.verdicts`."""

import sys

from farout.commands.verdicts import main

if __name__ == "__main__":
    sys.exit(main())
