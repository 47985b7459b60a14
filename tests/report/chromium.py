"""Opening a page in headless Chromium as it lies on the disk, and at the width of a phone."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PHONE = 360  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
    "--window-size=1200,900",
    "--enable-logging=stderr",
    "--v=0",
    "--dump-dom",
)


class Shown(NamedTuple):
    """What a browser made of a page: the document after scripts, and what it wrote to the console."""

    dom: str
    console: list[str]


Browser = Callable[[Path], Shown]


def program() -> str | None:
    """A Chromium of this machine."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def shown(browser: str, profile: Path, file: Path) -> Shown:
    """The file opened by a browser whose user data are in the folder `profile`."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Shown(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def altered(page: Path, policy: str, name: str, inserted: str) -> Path:
    """A copy of the page without its policy and with something more at its end."""
    text = page.read_text("utf-8")
    assert policy in text
    copy = page.with_name(name)
    before, end, after = text.replace(policy, "").rpartition("</body>")
    copy.write_text(f"{before}{inserted}{end}{after}", "utf-8")
    return copy


def on_a_phone(page: Path, policy: str, name: str, inserted: str) -> Path:
    """The page in a frame as wide as a phone (a window cannot be so narrow), which tells what the frame reports."""
    copy = altered(page, policy, f"inner_{name}", inserted)
    frame = f'<iframe src="{copy.name}" width="{PHONE}" height="900" style="border:0"></iframe>'
    listening = "<script>addEventListener('message', e => { document.body.dataset.measured = e.data; });</script>"
    outer = page.with_name(name)
    outer.write_text(f"<!doctype html><body>{listening}{frame}</body>", "utf-8")
    return outer
