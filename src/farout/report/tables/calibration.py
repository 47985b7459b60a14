"""The table of calibration: ECE with the protocol's bins, beside accuracy and the paper's figures."""

from collections.abc import Iterable, Mapping

from farout.papers import Paper, RowKind, load
from farout.report.records import EvaluatedRun, Record, runs_under
from farout.report.tables.cells import Measures, Table
from farout.report.tables.extra import Facts, tabulate_extra

CALIBRATION = Measures((), ("ece", "accuracy"), "percent", 100.0, "Calibration (%; ECE better small)")


def calibration_table(
    records: Iterable[Record],
    paper: Paper | str = "jem",
    protocol: str | None = None,
    expected: Mapping[str, str] | None = None,
) -> Table:
    """ECE and accuracy on the ID test set, a column per network.

    Arguments and errors are those of `farout.report.tables.tabulate.table1`; OOD sets play no part.
    """
    paper = load(paper) if isinstance(paper, str) else paper
    runs = runs_under(records, protocol or paper.protocol)
    bins = ", ".join(dict.fromkeys(str(run.protocol.get("bins")) for run in runs))
    how = f"protocol {protocol or paper.protocol}: confidence is max p(y|x), ECE has {bins} bins of equal width"
    return tabulate_extra(paper, "calibration", runs, CALIBRATION, _facts, how)


def _facts(kind: RowKind, run: EvaluatedRun) -> Facts:
    return {measure: run.id.get(measure) for measure in CALIBRATION.id}
