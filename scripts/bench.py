"""`python scripts/bench.py --help` says what this does; it is `farout.commands.bench`."""

import sys

from farout.commands.bench import main

if __name__ == "__main__":
    sys.exit(main())
