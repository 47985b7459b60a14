"""`python scripts/benchmark/jem.py --help` says what this does; it is `farout.commands.benchmark.jem`."""

import sys

from farout.commands.benchmark.jem import main

if __name__ == "__main__":
    sys.exit(main())
