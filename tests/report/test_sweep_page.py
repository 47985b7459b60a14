"""sweep.html in headless Chromium: it sorts, draws figures over knobs, and has nothing to complain of; also without."""

import html
import json
import re

import pytest
from chromium import Browser, altered
from page_reader import Reader
from synthetic_runs import EVIL

from farout.files import save_json
from farout.report.overview.page import write_overview
from farout.report.sweeps.page import write_sweep
from farout.report.sweeps.records import Job, SweepFolder

VALIDATION = {"0.1": 0.5, "0.001": 0.25, "10": 0.75}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Three jobs that are done, one with a name that tries to be markup, one that failed."""
    folder = SweepFolder(tmp_path_factory.mktemp("outputs") / "sweeps/mine")
    words = [(f"lr={lr}", f"backbone={'net' if lr == '10' else EVIL}") for lr in VALIDATION]
    jobs = [*(Job(i, each, "done", run=f"../../runs/r{i}") for i, each in enumerate(words))]
    jobs.append(Job(3, ("lr=-1", "backbone=net"), "failed", "lr=-1 must be positive"))
    folder.begin("train", ["lr=..."], ["lr", "backbone"], [])
    for job in jobs:
        folder.write(job)
        if job.run is not None:
            save_json(folder.path / job.run / "run.json", {"validation": {"fpr95": VALIDATION[job.overrides[0][3:]]}})
    write_sweep(folder)
    return folder


VISIT = """
<script>
addEventListener('load', () => {
  const all = query => [...document.querySelectorAll(query)];
  const numbers = () => all('#lines th').map(cell => cell.textContent);
  const seen = { begin: numbers() };
  const press = name => all('#table thead button').find(b => b.getAttribute('aria-label') === name).click();
  press('sort by lr'); seen.lr = numbers(); press('sort by validation FPR95'); seen.figure = numbers();
  press('sort by validation FPR95'); seen.reversed = numbers();
  const dots = () => all('#scatter circle').map(dot => [Number(dot.getAttribute('cx')), dot.textContent]);
  seen.dots = dots(); seen.ringed = all('#scatter circle[stroke="var(--ink)"]').map(dot => dot.textContent);
  seen.key = all('#scatter .key span').map(part => part.textContent);
  document.body.dataset.measured = JSON.stringify(seen);
});
</script>
"""


def test_it_sorts_and_draws_the_figure_over_a_knob(sweep: SweepFolder, browser: Browser) -> None:
    page = sweep.path / "sweep.html"
    assert browser(page).console == [], "under its own policy"
    found = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', page.read_text("utf-8"))
    assert found
    shown = browser(altered(page, found[0], "visited.html", VISIT))
    measured = re.search(r'data-measured="([^"]*)"', shown.dom)
    assert measured and shown.console == [], shown.console
    seen = json.loads(html.unescape(measured[1]))
    assert seen["begin"] == ["0", "1", "2", "3"] and seen["lr"] == ["3", "1", "0", "2"]
    assert seen["figure"] == ["1", "0", "2", "3"] and seen["reversed"] == ["2", "0", "1", "3"], "what is absent is last"
    places = {words[1]: x for x, words in seen["dots"]}
    assert places["1"] < places["0"] < places["2"] and len(places) == 3
    assert places["2"] - places["0"] == pytest.approx(places["0"] - places["1"]), "three decades, by factors"
    assert [words[:2] for words in seen["ringed"]] == ["#1"], "the one that selection takes"
    assert seen["key"] == [f"backbone={EVIL}", "backbone=net"]


def test_without_a_script_the_table_has_all_of_it_and_names_stay_names(sweep: SweepFolder) -> None:
    read = Reader((sweep.path / "sweep.html").read_text("utf-8"))
    head, *lines = next(iter(read.tables.values()))
    assert head[:5] == ["#", "lr", "backbone", "validation FPR95", "score"]
    assert lines[-1][:4] == ["3", "-1", "net", "–"] and "lr=-1 must be positive" in " ".join(lines[-1])
    assert lines[1][1:4] == ["0.001", EVIL, "25.00"] and read.tags["img"] == 0


def test_the_page_of_all_runs_leads_to_it(sweep: SweepFolder) -> None:
    text = write_overview(sweep.path.parents[1]).read_text("utf-8")
    assert '<a href="sweeps/mine/sweep.html">mine</a>: 3 done, 1 failed' in text
    assert '<a href="../../index.html">' in (sweep.path / "sweep.html").read_text("utf-8")
