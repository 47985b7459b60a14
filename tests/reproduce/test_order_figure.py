"""README's picture shows the figures of the records beside the paper's."""

import pytest

from farout.config.settings import ROOT
from farout.errors import MissingDataError
from farout.papers import load
from farout.report.figures.style import svg_text
from farout.reproduce.order_figure import full_scale_columns, order_figure
from farout.reproduce.pages import Ledger
from farout.reproduce.result_tables import column_means, result_tables

LEDGER = Ledger.read(ROOT / "results")
SHOWN = (ROOT / "docs/figures/order.svg").read_text()


def test_it_has_every_mean_of_the_table_and_of_the_paper() -> None:
    columns = full_scale_columns(LEDGER.records)
    table = result_tables(LEDGER.records, ["full"], "results", ["energy"], ["stand_in"])
    assert [column.label for column in columns] == ["softmax", "energy", "OE", "energy fine-tuned"]
    for column in columns:
        (ours,) = column_means(columns, "fpr95")[column.label]
        theirs = load("energy").value("cifar10", column.kind.key, "mean", "fpr95").value
        assert f"| {ours:.1f} " in table
        for text in (SHOWN, svg_text(order_figure(LEDGER.records))):
            assert all(f">{number:.1f}<" in text for number in (ours, theirs)), column.label


def test_without_records_it_says_what_to_run() -> None:
    with pytest.raises(MissingDataError, match="make reproduce-table1"):
        order_figure([])
