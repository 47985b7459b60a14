"""docs/speed.md shows what results/bench-*.json hold."""

import shutil

from farout.commands.bench import PARTS, RESULTS
from farout.commands.benchmark.page import SPEED, amounts, update_page


def test_the_tables_are_those_of_the_records(tmp_path):
    page = tmp_path / "speed.md"
    shutil.copy(SPEED, page)
    update_page(page, RESULTS)
    assert page.read_text() == SPEED.read_text(), "docs/speed.md is not what results/bench-*.json say: run make bench"


def test_every_part_is_explained():
    text = SPEED.read_text()
    assert [part for part in PARTS if f"| {part} |" not in text] == []


def test_times_are_written_without_powers_of_ten():
    sides = [{"min": least, "median": median} for least, median in ((0.934, 1.0312), (0.00123, 0.0999), (1.2, 1.25))]
    assert [amounts(side, "s") for side in sides] == ["934 ms (1031)", "1.23 ms (99.9)", "1.20 s (1.25)"]
