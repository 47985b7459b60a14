"""The papers' numbers: honest where not seen, and cells that average to the printed means."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean

import pytest
from omegaconf import OmegaConf

from farout import papers
from farout.config.parse import read_protocol
from farout.config.settings import ROOT
from farout.errors import ConfigError
from farout.papers import METRICS, Paper, ReportedValue, load
from farout.scores.odin import ODIN

ROWS = {
    (name, id_data, key, label): row
    for name in papers.names()
    for id_data, rows in load(name).results.items()
    for key, own in rows.items()
    for label, row in {"": own, **own.also}.items()
}
CELLS = [
    (*where, metric) for where, row in ROWS.items() for metric in METRICS if row.cells["mean"][metric].value is not None
]


def test_only_cider_jem_and_odin_leave_means_out() -> None:
    assert {name for name, *_ in set(ROWS) - {tuple(cell[:4]) for cell in CELLS}} == {"cider", "jem", "odin"}
    assert {where[0] for where in CELLS} == set(papers.names()) - {"jem", "odin"}
    # Rows without AUPR, in `also` or not; and KNN on SupCon, whose Places365 is unknown.
    assert len(CELLS) == sum(3 * (name not in ("cider", "jem", "odin")) for name, *_ in ROWS) + 2 * 3 + 8 * 2


@pytest.mark.parametrize(("name", "id_data", "key", "label", "metric"), CELLS)
def test_cells_average_to_the_printed_mean(name: str, id_data: str, key: str, label: str, metric: str) -> None:
    row = ROWS[name, id_data, key, label]
    figures = [row.cells[ood][metric] for ood in load(name).sets[id_data]]
    mean = row.cells["mean"][metric].value
    sure = {figure.certainty for figure in figures} <= {"seen", "recalled, means agree"}
    # Half a unit of the last place for the cells' own rounding, and half for the mean's.
    agrees = all(f.value is not None for f in figures) and abs(fmean(f.value or 0 for f in figures) - mean) <= 0.01
    assert agrees == sure


def lookup(paper: Paper, id_data: str, row: str, ood: str) -> dict[str, float | None] | None:
    """{"fpr95", "auroc", "aupr"} in percent, each None if unknown; None where nothing is known."""
    values = {metric: paper.value(id_data, row, ood, metric).value for metric in METRICS}
    return None if all(value is None for value in values.values()) else values


def test_values_and_trust_of_single_cells() -> None:
    paper = load("energy")
    assert lookup(paper, "cifar10", "energy", "svhn") == {"fpr95": 35.59, "auroc": 90.96, "aupr": 97.64}
    assert lookup(paper, "cifar10", "energy_ft", "mean") == {"fpr95": 3.32, "auroc": 98.92, "aupr": 99.75}
    assert paper.value("cifar10", "oe", "svhn", "fpr95") == ReportedValue(4.36, "seen", ("figure",))
    assert paper.value("cifar10", "oe", "svhn", "auroc").certainty == "recalled, means agree"
    assert paper.value("cifar100", "energy", "isun", "aupr").certainty == "recalled, unconfirmed"
    assert paper.error("cifar10", "energy_ft") == ReportedValue(4.87, "seen", ("note",))
    assert lookup(load("oe"), "svhn", "oe_tune", "mean") == {"fpr95": 0.07, "auroc": 99.96, "aupr": 99.85}
    assert load("oe").results["cifar10"]["baseline"].cells["places365"]["fpr95_sd"].value == 2.95


def test_what_is_not_known_stays_unknown() -> None:
    paper = load("energy")
    for ood in paper.sets["cifar100"]:
        assert lookup(paper, "cifar100", "energy_ft", ood) is None
        assert lookup(paper, "cifar100", "odin", ood) is not None
        assert paper.value("cifar100", "odin", ood, "aupr") == ReportedValue(None, "unknown", ())
    assert lookup(paper, "cifar10", "softmax", "dtd10") is None
    assert lookup(paper, "digits", "softmax", "svhn") is None
    assert paper.error("digits", "softmax") == ReportedValue()


@pytest.mark.parametrize("name", papers.names())
def test_every_figure_names_its_sources(name: str) -> None:
    paper = load(name)
    assert set(paper.table) <= set(paper.kinds)
    for id_data, rows in paper.results.items():
        assert set(paper.sets[id_data]) <= set(paper.titles)
        for row in [some for own in rows.values() for some in (own, *own.also.values())]:
            assert set(row.cells) == {*paper.sets[id_data], "mean"}
            figures = [row.error, *(f for cell in row.cells.values() for f in cell.values())]
            assert_sourced(figures, paper.sources)
            assert {metric for ood in paper.sets[id_data] for metric in row.cells[ood]} >= set(paper.metrics)
    for extra in paper.extra_tables.values():
        assert {kind for rows in extra.values.values() for kind in rows} <= set(extra.kinds)
        figures = [f for rows in extra.values.values() for row in rows.values() for f in row.values()]
        assert_sourced(figures, paper.sources)


def assert_sourced(figures: Iterable[ReportedValue], sources: Mapping[str, str]) -> None:
    for figure in figures:
        assert set(figure.source) <= set(sources)
        assert (figure.value is None) == (figure.certainty == "unknown") == (not figure.source)


def test_cider_says_which_of_two_sources_it_takes() -> None:
    paper = load("cider")
    assert lookup(paper, "cifar10", "cider_knn", "mean") == {"fpr95": 11.12, "auroc": 97.90, "aupr": 98.35}
    printed = paper.also("cifar10", "cider_knn")["the paper's Table 7"]
    assert printed.cells["mean"]["fpr95"] == ReportedValue(12.95, "recalled, means agree", ("recall",))
    assert printed.cells["svhn"]["fpr95"] == ReportedValue(2.89, "seen", ("author",))
    assert paper.value("cifar100", "cider_knn", "textures", "aupr") == ReportedValue(94.40, "seen", ("log",))
    means = {label: row.cells["mean"]["fpr95"].value for label, row in paper.also("cifar100", "cider_knn").items()}
    knn = paper.value("cifar100", "supcon_knn", "mean", "fpr95").value
    assert knn == 60.22
    assert [round(knn - mean, 2) for mean in means.values() if mean] == [13.33, 19.37]  # the two published headlines
    assert lookup(paper, "cifar10", "supcon_knn", "isun") is None
    assert paper.also("cifar10", "supcon_knn")["k = 50, another paper's code"].cells["isun"]["fpr95"].value == 20.06
    assert lookup(paper, "cifar10", "ce_knn", "svhn") is None


def test_cider_scores_by_more_neighbours_on_cifar100_and_reports_angles() -> None:
    paper = load("cider")
    kind = paper.kinds["cider_knn"]
    assert [kind.on(name).score for name in ("cifar10", "cifar100", "digits")] == ["knn_k100", "knn_k300", "knn_k100"]
    assert paper.kinds["ce_msp"].on("cifar100").score == "msp"
    angles = paper.extra_tables["geometry"]
    assert angles.value("cifar10", "supcon", "separability") == ReportedValue(29.86, "seen", ("blog",))
    assert angles.value("cifar10", "cider", "separability").certainty == "recalled, unconfirmed"
    assert angles.value("cifar10", "ce", "compactness").value == 24.53
    assert angles.value("cifar10", "cider_embedding", "dispersion") == ReportedValue()
    assert angles.value("cifar100", "cider", "dispersion") == ReportedValue()
    assert not load("energy").extra_tables


def test_jem_keeps_what_is_only_reported_apart_from_what_is_reproduced() -> None:
    paper = load("jem")
    assert paper.metrics == ("auroc",)
    assert all(paper.kinds[key].method for key in paper.table)
    alone = {key for key, kind in paper.kinds.items() if kind.method is None}
    assert alone == set(paper.kinds) - set(paper.table)
    assert set(paper.results["cifar10"]) == alone | {"wrn_msp", "jem_px", "jem_msp", "jem_mass"}
    assert paper.value("cifar10", "igebm_px", "svhn", "auroc") == ReportedValue(
        63, "recalled, unconfirmed", ("recall",)
    )
    assert paper.value("cifar10", "sada_jem", "celeba", "auroc") == ReportedValue(95, "seen", ("list", "note"))
    assert paper.value("cifar10", "ce_msp", "svhn", "auroc") == ReportedValue()
    hybrid, calibration = paper.extra_tables["hybrid"], paper.extra_tables["calibration"]
    assert hybrid.value("cifar10", "jem", "inception_score") == ReportedValue(8.76, "seen", ("figure", "note"))
    assert hybrid.value("cifar10", "wrn", "accuracy") == ReportedValue(95.8, "seen", ("figure",))
    assert hybrid.value("cifar10", "ncsn", "accuracy") == ReportedValue()
    assert calibration.value("cifar100", "wrn", "ece").value == 22.32
    assert calibration.value("cifar100", "jem", "ece").certainty == "recalled, unconfirmed"
    assert calibration.value("cifar10", "jem", "ece") == ReportedValue()


def test_recalled_figures_of_jem_have_the_order_that_was_seen() -> None:
    """A blog post: by max p(y|x) the Wide-ResNet is best on SVHN and the interpolations, JEM on the other two sets."""
    paper = load("jem")
    by_msp = ("wrn_msp", "jem_msp", "class_glow_msp", "igebm_msp")
    best = {}
    for ood in paper.sets["cifar10"]:
        best[ood] = max(by_msp, key=lambda row, ood=ood: paper.value("cifar10", row, ood, "auroc").value or 0)
    assert best == {"svhn": "wrn_msp", "interp": "wrn_msp", "cifar100": "jem_msp", "celeba": "jem_msp"}


def test_odin_is_scored_with_the_step_of_each_network() -> None:
    paper = load("odin")
    ours = OmegaConf.load(ROOT / "conf/score/odin.yaml")
    chosen = {
        name: ODIN(ours.temperature, epsilon).name for name, epsilon in (("cifar10", 0.0014), ("cifar100", 0.002))
    }
    assert {name: paper.kinds["odin"].on(name).score for name in chosen} == chosen
    assert lookup(paper, "cifar10", "odin", "odin_gaussian") == {"fpr95": 0, "auroc": 100, "aupr": 100}
    smallest = paper.results["cifar10"]["baseline"].cells["odin_uniform"]["detection_error"].value
    at_recall = (5 + (paper.value("cifar10", "baseline", "odin_uniform", "fpr95").value or 0)) / 2
    assert smallest is not None and smallest < at_recall, "not at a recall of 0.95, as the paper defines it"


def test_base_rates_of_cider_are_those_of_its_protocol() -> None:
    paper, protocol = load("cider"), read_protocol(OmegaConf.load(ROOT / "conf/protocol/cider.yaml"))
    available = {"svhn": 10000, "places365": 36500, "lsun_c_32": 10000, "isun": 8925, "textures": 5640}
    for ood, n in available.items():
        rate = 10000 / (10000 + protocol.ood_count(10000, n))
        assert math.isclose(paper.base_rates.get(ood, paper.base_rate), rate, rel_tol=1e-9)


def test_oe_means_round_to_what_the_paper_prints() -> None:
    for rows in load("oe").results.values():
        for row in rows.values():
            for metric, printed in zip(METRICS, row.printed_mean or (), strict=False):
                assert math.isclose(row.cells["mean"][metric].value or 0, printed, abs_tol=0.0500001)


def test_an_unknown_paper_or_certainty_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: cider, energy, jem, odin, oe"):
        load("jem3")
    with pytest.raises(ValueError, match="certainty"):
        ReportedValue(1.0, "hearsay")
