"""`python scripts/evaluate_outputs.py --help` says what this does; it is `farout.commands.evaluate_outputs`."""

import sys

from farout.commands.evaluate_outputs import main

if __name__ == "__main__":
    sys.exit(main())
