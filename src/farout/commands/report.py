"""Write report.html of a finished run again, from what its folder holds.

    python scripts/report.py outputs/runs/NAME
    python scripts/report.py outputs/runs/NAME --out somewhere/

Every evaluation writes the report itself. A run's folder keeps no images, so a page that is written again takes over
the pictures of mistakes from the page that is there.
"""

from collections.abc import Sequence
from pathlib import Path

from farout.commands.arguments import Parser, folder_to_write, guarded
from farout.report.page.rebuild import rebuild_report


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Write it; 2 after a one-line error."""
    parser = Parser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of an evaluated run")
    parser.add_argument("--out", type=Path, help="another folder for report.html (default: the run's)")
    options = parser.parse_args(arguments)
    folder_to_write("--out", options.out)
    print(f"written: {rebuild_report(options.run, options.out)}")
    return 0
