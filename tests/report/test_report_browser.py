"""report.html of ten scores on eight sets in headless Chromium: its numbers, its console, its width on a phone."""

import re
from pathlib import Path

import pytest
from chromium import PHONE, Browser, Shown, altered, on_a_phone
from page_reader import Reader
from synthetic_evidence import CLASSES, ENERGY, SCORES, entry, evidence, features, head, measured, scores

from farout.metrics.protocol import Protocol
from farout.report.page.html import POLICY, write_report

VALUES = scores(1500)
SPACE = measured(features(n=500))
ENTRY = entry(VALUES, ENERGY, geometry={"features": SPACE.facts(), "embedding": SPACE.facts()})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    facts = evidence(VALUES, focus="energy", sphere=SPACE.sphere("embedding", CLASSES))
    return write_report(folder / "report.html", head(), [ENTRY, entry(VALUES, Protocol("plain"))], facts)


# Every folded part opened, every choice made in turn: the widest that the page becomes.
MEASURE = """
<script>
addEventListener('load', () => {
  const widths = [], shown = [];
  const note = () => widths.push(document.scrollingElement.scrollWidth);
  document.querySelectorAll('details').forEach(part => part.open = true);
  note();
  document.querySelectorAll('.tabs > input').forEach(choice => {
    choice.click();
    note();
    const panels = [...choice.parentElement.lastElementChild.children];
    shown.push(panels.filter(panel => panel.offsetHeight > 0).length);
  });
  const tables = [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length;
  const small = [...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length)
    .map(t => t.getBoundingClientRect().height).sort((a, b) => a - b);
  parent.postMessage([innerWidth, Math.max(...widths), Math.min(...shown), Math.max(...shown),
    widths.length, tables, small[0]].join(' '), '*');
});
</script>
"""


def _measured(shown: Shown) -> list[float]:
    found = re.search(r'data-measured="([^"]*)"', shown.dom)
    assert found, "the script ran"
    return [float(word) for word in found[1].split()]


def test_it_is_one_file_below_three_megabytes(page: Path) -> None:
    assert 300_000 < page.stat().st_size < 3_000_000
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_the_browser_shows_every_number_and_has_nothing_to_complain(page: Path, browser: Browser) -> None:
    shown = browser(page)
    assert shown.console == []
    rows = {line[0]: line[1:] for line in Reader(shown.dom).tables["FPR95 (%, lower is better)"]}
    for score in SCORES:
        own = [row for row in ENTRY["rows"] if row["score"] == score]
        mean = next(mean for mean in ENTRY["means"] if mean["score"] == score)
        assert rows[score] == [f"{100 * row['fpr95']:.2f}" for row in [*own, mean]]
    words = Reader(shown.dom).words
    for row in ENTRY["rows"]:
        assert f"{100 * row['fpr95']:.1f}" in words
        assert f"AUROC {100 * row['auroc']:.1f}" in words
    assert "93.39 %" in words
    for angle in SPACE.facts()["separability"].values():
        assert f"{angle:.2f}" in words
        assert f"{angle:+.1f}°" in words


def test_a_broken_page_is_heard_in_the_console(page: Path, browser: Browser) -> None:
    console = browser(altered(page, POLICY, "broken.html", "<script>nowhere.to.be.found()</script>")).console
    assert any("nowhere is not defined" in line for line in console)


def test_the_policy_stops_and_reports_what_would_slip_in(page: Path, browser: Browser) -> None:
    copy = page.with_name("guarded.html")
    slipped = '<script>document.body.dataset.measured = 1</script><img src="https://example.invalid/a.png">'
    copy.write_text(page.read_text("utf-8").replace("</body>", f"{slipped}</body>"), "utf-8")
    shown = browser(copy)
    assert 'data-measured="' not in shown.dom
    refused = [line for line in shown.console if "Content Security Policy" in line]
    assert any("example.invalid" in line for line in refused)
    assert len(refused) == 2


def test_a_phone_need_not_scroll_sideways(page: Path, browser: Browser) -> None:
    shown = browser(on_a_phone(page, POLICY, "phone.html", MEASURE))
    width, widest, fewest, most, states, scrolling, smallest = _measured(shown)
    assert width == PHONE
    assert widest <= PHONE
    assert (fewest, most) == (1, 1), "one panel at a time"
    assert states == 1 + 10 + 8
    assert scrolling >= 4, "wide tables scroll in their own boxes"
    assert smallest > 6, "the smallest letters of the figures"


def test_the_width_is_really_measured(page: Path, browser: Browser) -> None:
    wide = on_a_phone(page, POLICY, "wide.html", '<div style="width:500px">wide</div>' + MEASURE)
    assert _measured(browser(wide))[1] >= 500
