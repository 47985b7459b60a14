"""The papers' numbers: honest where not seen, and cells that average to the printed means."""

import math
from statistics import fmean

import pytest

from farout import papers
from farout.errors import ConfigError
from farout.papers import METRICS, Figure, load

CELLS = [
    (name, id_data, row, metric)
    for name in ("energy", "oe")
    for id_data, rows in load(name).results.items()
    for row in rows
    for metric in METRICS
]


@pytest.mark.parametrize(("name", "id_data", "row", "metric"), CELLS)
def test_cells_average_to_the_printed_mean(name: str, id_data: str, row: str, metric: str) -> None:
    paper = load(name)
    figures = [paper.figure(id_data, row, ood, metric) for ood in paper.sets[id_data]]
    mean = paper.figure(id_data, row, "mean", metric).value
    assert mean is not None
    sure = {figure.certainty for figure in figures} <= {"seen", "recalled, means agree"}
    # Half a unit of the last place for the cells' own rounding, and half for the mean's.
    agrees = all(f.value is not None for f in figures) and abs(fmean(f.value or 0 for f in figures) - mean) <= 0.01
    assert agrees == sure


def test_values_and_trust_of_single_cells() -> None:
    paper = load("energy")
    assert paper.lookup("cifar10", "energy", "svhn") == {"fpr95": 35.59, "auroc": 90.96, "aupr": 97.64}
    assert paper.lookup("cifar10", "energy_ft", "mean") == {"fpr95": 3.32, "auroc": 98.92, "aupr": 99.75}
    assert paper.figure("cifar10", "oe", "svhn", "fpr95") == Figure(4.36, "seen", ("figure",))
    assert paper.figure("cifar10", "oe", "svhn", "auroc").certainty == "recalled, means agree"
    assert paper.figure("cifar100", "energy", "isun", "aupr").certainty == "recalled, unconfirmed"
    assert paper.error("cifar10", "energy_ft") == Figure(4.87, "seen", ("note",))
    assert load("oe").lookup("svhn", "oe_tune", "mean") == {"fpr95": 0.07, "auroc": 99.96, "aupr": 99.85}
    assert load("oe").results["cifar10"]["baseline"].cells["places365"]["fpr95_sd"].value == 2.95


def test_what_is_not_known_stays_unknown() -> None:
    paper = load("energy")
    for ood in paper.sets["cifar100"]:
        assert paper.lookup("cifar100", "energy_ft", ood) is None
        assert paper.lookup("cifar100", "odin", ood) is not None
        assert paper.figure("cifar100", "odin", ood, "aupr") == Figure(None, "unknown", ())
    assert paper.lookup("cifar10", "softmax", "dtd10") is None
    assert paper.lookup("digits", "softmax", "svhn") is None
    assert paper.error("digits", "softmax") == Figure()


@pytest.mark.parametrize("name", papers.names())
def test_every_figure_names_its_sources(name: str) -> None:
    paper = load(name)
    assert set(paper.table) <= set(paper.kinds)
    for id_data, rows in paper.results.items():
        assert set(paper.sets[id_data]) <= set(paper.titles)
        for row in rows.values():
            assert set(row.cells) == {*paper.sets[id_data], "mean"}
            figures = [row.error, *(f for cell in row.cells.values() for f in cell.values())]
            for figure in figures:
                assert set(figure.source) <= set(paper.sources)
                assert (figure.value is None) == (figure.certainty == "unknown") == (not figure.source)


def test_oe_means_round_to_what_the_paper_prints() -> None:
    for rows in load("oe").results.values():
        for row in rows.values():
            for metric, printed in zip(METRICS, row.printed_mean or (), strict=False):
                assert math.isclose(row.cells["mean"][metric].value or 0, printed, abs_tol=0.0500001)


def test_an_unknown_paper_or_certainty_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: energy, oe"):
        load("jem3")
    with pytest.raises(ValueError, match="certainty"):
        Figure(1.0, "hearsay")
