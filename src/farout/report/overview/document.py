"""A page that is one file and loads nothing: the shared style, its own script and data inside."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from farout.report.page.style import style_sheet

HERE = Path(__file__).parent


def document(stem: Path, data: Mapping[str, Any], **values: Any) -> str:
    """The page of the template STEM.html.j2, run by what pages share (table.js) and then STEM.js, on `data`."""
    script = "\n".join(path.read_text("utf-8") for path in (HERE / "table.js", stem.with_suffix(".js")))
    return str(
        _template(stem).render(
            style=f"{style_sheet()}\n{(HERE / 'overview.css').read_text('utf-8')}",
            script=script,
            policy=_policy(script),
            data=_inside_script(data),
            **values,
        )
    )


@cache
def _template(stem: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Names in run folders may hold anything: every value is escaped but what the template itself marks as ours.
    environment = Environment(
        loader=FileSystemLoader([stem.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{stem.name}.html.j2")


def _policy(script: str) -> str:
    """Nothing is loaded, and no script runs but ours, whatever stands in the names of runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"


def _inside_script(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
