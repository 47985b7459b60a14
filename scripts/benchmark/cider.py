"""`python scripts/benchmark/cider.py --help` says what this does; it is `farout.commands.benchmark.cider`."""

import sys

from farout.commands.benchmark.cider import main

if __name__ == "__main__":
    sys.exit(main())
