"""The README's picture: the order of softmax, energy, OE and energy fine-tuning in the paper, and in our records."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from farout.errors import MissingDataError
from farout.papers import load
from farout.papers.claims import MEAN
from farout.report.figures.style import PALETTE, SMALL, TEXT, canvas, place, quiet
from farout.report.records import Record
from farout.reproduce.result_tables import Column, column_means, tables_of, votes

WIDTH, HEIGHT = 6.6, 2.3  # inches
ID_DATA, LIST = "cifar10", "stand_in"


def full_scale_columns(records: Sequence[Record]) -> Sequence[Column]:
    """The rows of Energy's table at full scale on CIFAR-10; raises MissingDataError where none was run."""
    for table in tables_of(records, ["energy"], ["full"], [LIST]):
        if table.trials[0].id_data == ID_DATA:
            return table.columns
    raise MissingDataError("no record of Energy's table at full scale: run make reproduce-table1 and keep its records")


def order_figure(records: Sequence[Record]) -> Figure:
    """Mean FPR95 in percent, a panel for the paper's sets and one for ours: orders and gains compare, levels do not."""
    columns, paper = full_scale_columns(records), load("energy")
    names = [column.label for column in columns]
    theirs = [paper.value(ID_DATA, column.kind.key, MEAN, "fpr95").value or 0.0 for column in columns]
    ours = [fmean(column_means(columns, "fpr95")[name]) for name in names]
    seeds = ", ".join(str(trial.seed) for trial in columns[0].seeds)
    figure = canvas(HEIGHT, "Mean FPR95 (%), lower is better: CIFAR-10, WRN-40-2", "", WIDTH)
    own = len(paper.sets[ID_DATA])
    titles = (f"the paper, its own {own} sets", f"farout, {votes(columns)} votes of stand-in sets, seed {seeds}")
    for place_of, (title, values) in enumerate(zip(titles, (theirs, ours), strict=True)):
        axis = figure.add_subplot(1, 2, place_of + 1)
        quiet(axis)
        bars = axis.barh(range(len(names)), values, color=PALETTE[place_of], height=0.62)
        axis.bar_label(bars, fmt="%.1f", fontsize=TEXT, padding=3)
        axis.set_yticks(range(len(names)), names if place_of == 0 else [], fontsize=TEXT)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.18 * max(theirs + ours))
        axis.set_xticks([])
        axis.set_title(title, fontsize=SMALL, loc="left")
    place(figure, 1.25, 0.1, 0.62, 0.12, (0.15, 0.0))
    return figure
