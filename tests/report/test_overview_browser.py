"""index.html in headless Chromium: it sorts, filters, compares, and has nothing to complain of; also on a phone."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import PHONE, Browser, Shown, altered, on_a_phone
from page_reader import Reader
from synthetic_runs import EVIL, NAMES, N, values_of, write_all

from farout.report.overview.curves import sampled
from farout.report.overview.page import write_overview


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_overview(write_all(tmp_path_factory.mktemp("outputs")))


@pytest.fixture(scope="module")
def policy(page: Path) -> str:
    found = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', page.read_text("utf-8"))
    assert found
    return found[0]


# What a reader does, by the keyboard where a script can press keys; what stands there afterwards.
VISIT = """
<script>
addEventListener('load', () => {
  const all = query => [...document.querySelectorAll(query)];
  const shown = () => all('#lines tr').filter(line => !line.hidden);
  const names = () => shown().map(line => line.cells[0].textContent.trim());
  const seen = { begin: names(), columns: all('#table thead button').map(b => b.getAttribute('aria-label')) };
  const change = (id, value) => { const e = document.getElementById(id); e.value = value;
    e.dispatchEvent(new Event(e.tagName === 'INPUT' ? 'input' : 'change', { bubbles: true })); };
  const button = label => all('#table thead button').find(b => b.getAttribute('aria-label') === label);
  const figures = () => shown().map(line => line.cells[8].textContent);
  button('sort by FPR95').focus();
  seen.focus = document.activeElement.getAttribute('aria-label');
  document.activeElement.click();
  seen.up = figures(); seen.sorted = all('[aria-sort]').map(h => h.getAttribute('aria-sort'));
  button('sort by FPR95').click();
  seen.down = figures(); seen.reversed = all('[aria-sort]').map(h => h.getAttribute('aria-sort'));
  change('by-protocol', ''); seen.everyProtocol = names().length;
  change('by-protocol', 'plain'); seen.plain = names();
  change('by-method', 'oe'); seen.oe = names();
  seen.dots = all('#set-panels circle').length;
  document.getElementById('reset').click(); seen.reset = names().length;
  change('search', 'energy-NET'); seen.search = names();
  change('search', ''); change('by-protocol', 'energy');
  seen.panels = all('#set-panels figcaption').map(c => c.firstChild.textContent);
  seen.allDots = all('#set-panels circle').length;
  seen.marks = all('#set-panels line title').map(t => t.textContent);
  const box = document.querySelector('[data-column="energy"]'); box.click(); box.click();
  seen.hiddenCells = all('#table [data-score]').filter(c => c.hidden).length;
  const tick = name => shown().find(line => line.cells[0].textContent.trim() === name).querySelector('.pick').click();
  tick(NAMES.ce); tick(NAMES.energy); tick(NAMES.oe);
  seen.chosen = all('tr.chosen').length;
  const tables = all('#compare-body table').map(t => [...t.rows].map(r => [...r.cells].map(c => c.textContent.trim())));
  seen.figures = tables[0]; seen.counts = tables[1];
  seen.paths = all('#compare-body path').length; seen.rocs = all('#compare-body polyline').length;
  seen.said = document.getElementById('compare-body').textContent;
  const set = all('#compare-body select').find(s => s.dataset.name === 'OOD set');
  set.value = 'isun'; set.focus(); set.dispatchEvent(new Event('change'));
  seen.kept = document.activeElement.dataset.name;
  seen.after = document.getElementById('compare-body').textContent;
  document.body.dataset.measured = JSON.stringify(seen);
});
</script>
"""


@pytest.fixture(scope="module")
def visit(page: Path, policy: str, browser: Browser) -> tuple[dict[str, Any], list[str]]:
    script = VISIT.replace("NAMES.", "(" + json.dumps(NAMES) + ").")
    shown = browser(altered(page, policy, "visited.html", script))
    found = re.search(r'data-measured="([^"]*)"', shown.dom)
    assert found, shown.console
    return json.loads(html.unescape(found[1])), shown.console


def test_under_its_own_policy_it_runs_and_has_nothing_to_complain(page: Path, browser: Browser) -> None:
    shown = browser(page)
    assert shown.console == []
    read = Reader(shown.dom)
    assert read.tags["circle"] >= 6, "the script ran"
    assert EVIL in read.words and read.tags["img"] == 0


def test_a_script_that_slips_in_is_stopped(page: Path, browser: Browser) -> None:
    copy = page.with_name("guarded.html")
    slipped = '<script>document.body.dataset.measured = 1</script><img src="https://example.invalid/a.png">'
    copy.write_text(page.read_text("utf-8").replace("</body>", f"{slipped}</body>"), "utf-8")
    shown = browser(copy)
    assert 'data-measured="' not in shown.dom
    assert len([line for line in shown.console if "Content Security Policy" in line]) == 2


def test_it_sorts_both_ways_and_says_so(visit: tuple[dict[str, Any], list[str]]) -> None:
    seen, console = visit
    assert console == []
    figures = [float(figure) for figure in seen["up"] if figure != "–"]
    assert len(figures) == 3 and figures == sorted(figures) and seen["up"][3:] == ["–"] * (len(seen["up"]) - 3)
    assert seen["down"][:3] == seen["up"][:3][::-1] and seen["down"][3:] == seen["up"][3:], "what is absent stays last"
    assert (seen["focus"], seen["sorted"], seen["reversed"]) == ("sort by FPR95", ["ascending"], ["descending"])
    assert {"sort by run", "sort by energy: FPR95", "sort by msp: AUROC", "sort by evaluated"} <= set(seen["columns"])


def test_it_filters_by_protocol_method_and_words(visit: tuple[dict[str, Any], list[str]]) -> None:
    seen, _ = visit
    assert len(seen["begin"]) == 12 and seen["everyProtocol"] == 15
    assert sorted(seen["plain"]) == sorted(NAMES.values()) and seen["oe"] == [NAMES["oe"]]
    assert seen["dots"] == 2, "one for each set of the one line that is left"
    assert seen["reset"] == 15 and set(seen["search"]) == {NAMES["energy"]}
    assert seen["hiddenCells"] == 0


def test_small_multiples_have_a_dot_a_run_and_the_papers_marks(visit: tuple[dict[str, Any], list[str]]) -> None:
    seen, _ = visit
    assert sorted(seen["panels"]) == ["SVHN", "iSUN"] and seen["allDots"] == 6
    assert any("energy fine-tuned on svhn" in mark for mark in seen["marks"])
    assert any("on lsun_r: 52.15 %" in mark for mark in seen["marks"]), "iSUN stands in for it here"


def test_it_compares_figures_curves_and_single_images(visit: tuple[dict[str, Any], list[str]]) -> None:
    seen, _ = visit
    assert seen["chosen"] == 3 and (seen["paths"], seen["rocs"]) == (6, 3)
    head, *lines = seen["figures"]
    assert head == ["OOD set", *(f"{metric} {letter}" for metric in ("FPR95", "AUROC") for letter in "ABC")]
    assert [line[0] for line in lines] == ["SVHN", "iSUN", "mean, 2 votes"]
    values = {method: values_of(method) for method in ("ce", "energy")}
    accepts = {
        method: own["svhn"][score][sampled(N)] >= np.quantile(own["id"][score], 0.05)
        for (method, own), score in zip(values.items(), ("msp", "energy"), strict=True)
    }
    a, b = accepts["ce"], accepts["energy"]
    wanted = [100 * part.mean() for part in (a & b, a & ~b, ~a & b, ~a & ~b)]
    (counts,) = [line for line in seen["counts"] if line[0] == "SVHN"]
    assert counts[1] == f"2000 of {N}"
    assert [float(share) for share in counts[2:6]] == pytest.approx(wanted, abs=0.051)
    rows = sampled(N)[a & ~b]
    assert f"Rows of scores/svhn.npz: {', '.join(map(str, rows[:24]))}" in seen["said"]
    assert seen["kept"] == "OOD set" and "Rows of scores/isun.npz" in seen["after"]


# The widest that the page becomes, with everything open and three lines compared.
MEASURE = """
<script>
addEventListener('load', () => {
  document.querySelectorAll('details').forEach(part => { part.open = true; });
  [...document.querySelectorAll('.pick:enabled')].slice(0, 3).forEach(box => box.click());
  const scrolling = [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length;
  const compared = document.querySelectorAll('#compare-body table').length;
  parent.postMessage([innerWidth, document.scrollingElement.scrollWidth, scrolling, compared].join(' '), '*');
});
</script>
"""


def _measured(shown: Shown) -> list[int]:
    found = re.search(r'data-measured="([^"]*)"', shown.dom)
    assert found, shown.console
    return [int(word) for word in found[1].split()]


def test_a_phone_need_not_scroll_sideways(page: Path, policy: str, browser: Browser) -> None:
    width, widest, scrolling, compared = _measured(browser(on_a_phone(page, policy, "phone.html", MEASURE)))
    assert width == PHONE and widest <= PHONE and scrolling >= 1 and compared == 2
    wide = on_a_phone(page, policy, "wide.html", '<div style="width:500px">wide</div>' + MEASURE)
    assert _measured(browser(wide))[1] >= 500, "the width is really measured"
