"""Write report.html of a finished run again, from what its folder holds.

    python scripts/report.py outputs/runs/NAME
    python scripts/report.py outputs/runs/NAME --out somewhere/

Every evaluation writes the report itself. A run's folder keeps no images, so a page that is written again takes over
the pictures of mistakes from the page that is there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from farout.errors import FaroutError
from farout.report.rebuild import rebuild_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Write it; 2 after a one-line error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of an evaluated run")
    parser.add_argument("--out", type=Path, help="another folder for report.html (default: the run's)")
    options = parser.parse_args(arguments)
    try:
        print(f"written: {rebuild_report(options.run, options.out)}")
    except FaroutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
