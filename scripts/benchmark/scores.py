"""`python scripts/benchmark/scores.py --help` says what this does; it is `farout.commands.benchmark.scores`."""

import sys

from farout.commands.benchmark.scores import main

if __name__ == "__main__":
    sys.exit(main())
