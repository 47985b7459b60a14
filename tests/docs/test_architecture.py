"""The picture of the rooms is that of the imports as they are, and the drawing does what it says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs/draw_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_picture_is_current(draw):
    committed = (ROOT / "docs/figures/architecture.svg").read_text(encoding="utf-8")
    assert draw.drawn(draw.rooms(ROOT)) == committed, "imports or docstrings changed: run `make architecture`"


def test_it_shows_every_room_with_its_purpose(draw):
    found = {room.name: room for room in draw.rooms(ROOT)}
    source = ROOT / "src/farout"
    folders = {f"{path.parent.name}/" for path in source.glob("*/__init__.py")}
    modules = {path.stem for path in source.glob("*.py") if path.stem != "__init__"}
    assert found.keys() == folders | modules | set(draw.ENTRIES)
    assert [name for name, room in found.items() if not room.purpose] == []
    assert "engine/" in found["runs/"].imports and "runs/" not in found["engine/"].imports
    texts = {text for part in ElementTree.fromstring(draw.drawn([*found.values()])).iter() if (text := part.text)}
    assert found.keys() <= texts


def test_arrows_are_the_imports_that_no_longer_way_explains(draw):
    imports = {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset(), "d": frozenset("c")}
    assert draw.rows_of(imports) == {"a": 0, "d": 0, "b": 1, "c": 2}
    assert draw.direct_only(imports) == [("a", "b"), ("b", "c"), ("d", "c")]
    assert draw.ways([("d", "c")], draw.rows_of(imports)) == [["d", "d>c@1", "c"]]


def test_a_circle_is_named(draw):
    imports = {"a": frozenset("b"), "b": frozenset("a"), "c": frozenset("a")}
    with pytest.raises(ValueError, match="circle among a, b"):
        draw.rows_of(imports)


def test_the_order_of_rooms_on_disk_is_of_no_account(draw):
    found = draw.rooms(ROOT)
    pictures = {draw.drawn(found), draw.drawn(draw.rooms(ROOT))}
    assert len(pictures) == 1
