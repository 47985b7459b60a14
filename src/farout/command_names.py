"""What people type: `python train.py` in a checkout, `farout-train` where farout is installed.

Texts are written as for a checkout; `as_typed` puts them into the words that work where they are read.
"""

import re
import sys
from pathlib import Path

from farout.places import INSTALLED

SCRIPTS = (
    "campaign",
    "compare",
    "detect",
    "evaluate_outputs",
    "import_checkpoint",
    "make_table",
    "page",
    "prepare_data",
    "report",
    "reproduce",
    "robustness",
    "sample",
    "sensitivity",
    "status",
)
# The console commands of pyproject.toml, by the files that they stand for.
COMMANDS = {
    **{f"{name}.py": f"farout-{name}" for name in ("train", "eval")},
    **{f"scripts/{name}.py": f"farout-{name.replace('_', '-')}" for name in SCRIPTS},
    "scripts/prepare_data.py": "farout-data",
}
_FILE = re.compile(rf"\bpython ({'|'.join(map(re.escape, COMMANDS))})(?!\w)")


def as_typed(text: str) -> str:
    """A text's `python train.py`, `python scripts/detect.py` ... as a person here would type them."""
    if not (INSTALLED or Path(sys.argv[0]).name.startswith("farout-")):
        return text
    return _FILE.sub(lambda found: COMMANDS[found[1]], text)
