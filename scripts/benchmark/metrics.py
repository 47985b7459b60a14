"""`python scripts/benchmark/metrics.py --help` says what this does; it is `farout.commands.benchmark.metrics`."""

import sys

from farout.commands.benchmark.metrics import main

if __name__ == "__main__":
    sys.exit(main())
