"""`python scripts/detect.py --help` says what this does; it is `farout.commands.detect`."""

import sys

from farout.commands.detect import main

if __name__ == "__main__":
    sys.exit(main())
