"""`python scripts/benchmark/views.py --help` says what this does; it is `farout.commands.benchmark.views`."""

import sys

from farout.commands.benchmark.views import main

if __name__ == "__main__":
    sys.exit(main())
