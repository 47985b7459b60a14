"""Write the page of all runs again: index.html in the folder that holds runs/.

    python scripts/page.py                              outputs/index.html
    python scripts/page.py elsewhere --data the/store   elsewhere/index.html, with small pictures from that store

Every evaluation writes it too. Open it in a browser: it needs no server and no network.
"""

from collections.abc import Sequence
from pathlib import Path

from farout.commands.arguments import Parser, guarded
from farout.config.settings import Paths
from farout.report.overview.page import write_overview


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Write it; 2 after a one-line error."""
    parser = Parser(description=__doc__)
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"), help="default: outputs")
    parser.add_argument("--data", help="where data sets are stored (default: $FAROUT_DATA, else data/)")
    options = parser.parse_args(arguments)
    print(f"written: {write_overview(options.outputs, Paths(data=options.data).data_paths().store)}")
    return 0
