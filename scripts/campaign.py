"""`python scripts/campaign.py --help` says what this does; it is `farout.commands.campaign`."""

import sys

from farout.commands.campaign import main

if __name__ == "__main__":
    sys.exit(main())
