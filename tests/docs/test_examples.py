"""Files of examples/ are those that docs/extending.md and CONTRIBUTING.md show, and that their tests execute."""

import re
from pathlib import Path

from documents import fences

ROOT = Path(__file__).resolve().parents[2]
SHOWN = {  # path in the repository -> text
    named.group(1): text
    for page in ("docs/extending.md", "CONTRIBUTING.md")
    for _, text in fences((ROOT / page).read_text())
    if (named := re.search(r"^# ((?:src|conf)/\S+)$", text, flags=re.MULTILINE))
}
FOLDERS = [path for path in (ROOT / "examples").iterdir() if path.is_dir()]


def test_every_example_that_a_page_shows_is_a_file_with_the_same_text() -> None:
    files = {
        path.relative_to(folder).as_posix(): path.read_text()
        for folder in FOLDERS
        for path in folder.rglob("*.*")
        if path.is_file() and path.suffix in (".py", ".yaml")
    }
    schedule = files.pop("conf/schedule/smoke/smoothed.yaml")
    assert f"echo '{schedule.strip()}' > conf/schedule/smoke/smoothed.yaml" in (ROOT / "docs/extending.md").read_text()
    assert files == SHOWN and len(files) == 9


def test_the_list_names_every_example() -> None:
    text = (ROOT / "examples/README.md").read_text()
    for path in (ROOT / "examples").iterdir():
        assert path.name == "README.md" or f"]({path.name})" in text, path.name
