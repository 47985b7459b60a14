"""What is said under the demonstration's table follows from its figures."""

import pytest
from synthetic_records import record, row

from farout.report.tables.cells import Table
from farout.report.tables.tabulate import table1
from farout.reproduce.remarks import COMMAND, demo_remarks


def _table(softmax: float, energy: float, oe: float, tuned: float) -> Table:
    ce = record("ce", 1, [row("msp", "svhn", softmax), row("energy", "svhn", energy)])
    return table1([ce, record("oe", 1, [row("msp", "svhn", oe)]), record("energy", 1, [row("energy", "svhn", tuned)])])


@pytest.mark.parametrize(
    ("figures", "shown", "missing"),
    [
        ((0.2, 0.4, 0.1, 0.05), ("energy fine-tuned before energy (5.0 and 40.0; paper 3.3 and 33.0)",),
         ("energy before softmax (40.0 and 20.0; paper 33.0 and 51.0)",)),
        ((0.4, 0.2, 0.05, 0.1), ("energy before softmax (20.0 and 40.0;",),
         ("energy fine-tuned before OE (10.0 and 5.0;",)),
        ((0.2, 0.2, 0.2, 0.2), ("no step of its table",), ("energy before softmax", "before energy", "before OE")),
        ((0.4, 0.3, 0.2, 0.1), ("before softmax", "before energy", "before OE"), ("that this is so on photographs",)),
    ],
)  # fmt: skip
def test_each_step_stands_where_its_figures_put_it(
    figures: tuple[float, ...], shown: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    first, second = demo_remarks(_table(*figures))
    assert all(words in first for words in shown) and all(words in second for words in missing)
    assert first.count(" before ") + second.count(" before ") == 3
    assert COMMAND in second


def test_nothing_is_said_without_the_rows() -> None:
    table = table1([record("ce", 1, [row("msp", "svhn", 0.2)])], rows=["softmax"])
    assert demo_remarks(table) == []
