"""`python scripts/benchmark/training.py --help` says what this does; it is `farout.commands.benchmark.training`."""

import sys

from farout.commands.benchmark.training import main

if __name__ == "__main__":
    sys.exit(main())
