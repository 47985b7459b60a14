"""The last stage of a table: what was measured beside the paper's numbers, and the records that it was taken from."""

from collections.abc import Sequence
from pathlib import Path

from farout.config.settings import Settings
from farout.data.catalogue import load_entry
from farout.engine.progress import say
from farout.files import write_bytes
from farout.report.figures.reliability import reliability_panels
from farout.report.figures.style import png_bytes
from farout.report.page.rebuild import last_evaluation, read_evidence
from farout.report.records import read_record
from farout.report.tables.cells import Table
from farout.report.tables.paper import write_tables
from farout.reproduce.ledger import keep_record
from farout.reproduce.rows import TableRequest
from farout.reproduce.stages import Evaluate, Stage
from farout.runs.run import Run


def tabulate(request: TableRequest, stages: Sequence[Stage], out: Path, ledger: Path | None = None) -> dict[str, Table]:
    """Every table of the paper by name, from the runs that were evaluated, written to `out`.

    The folder `ledger` gets a record of each run.

    Raises ConfigError for records that cannot stand side by side.
    """
    evaluated = [stage for stage in stages if isinstance(stage, Evaluate)]
    runs = list({run.folder: run for run in (stage.run for stage in evaluated)}.values())
    records, first = [read_record(run.folder) for run in runs], evaluated[0].own
    tables = write_tables(records, out, request.paper, first.protocol.name, expected=_titles(first))
    if request.paper == "jem":
        draw_reliability(runs, out / "reliability.png")
    if ledger is not None:
        for record in records:
            keep_record(record, ledger, request.label)
    return tables


def draw_reliability(runs: Sequence[Run], path: Path) -> None:
    """The diagrams of classifiers and JEM beside each other, with the bins of the paper's protocol.

    Runs whose scores lie on another machine, where they were evaluated, are left out.
    """
    networks, bins = {}, 0
    for run in runs:
        entry = last_evaluation(read_record(run.folder))[0]
        if not (run.folder / "scores/id.npz").is_file():
            say(f"  note: without {run.name} in {path.name}: its scores are where it was evaluated")
            continue
        evidence = read_evidence(run.folder / "scores", entry)
        bins = entry["protocol"]["bins"]
        known = run.identity
        name = f"{known['method']['name'].upper()} {known['backbone']['name']}, seed {known['seed']}"
        if evidence.confidence is not None and evidence.correct is not None:
            networks[name] = (evidence.confidence, evidence.correct)
    if networks:
        write_bytes(path, png_bytes(reliability_panels(networks, bins)))
        say(f"written: {path}")


def _titles(settings: Settings) -> dict[str, str]:
    """Every set of the list by its title, so that one that is not there leaves a visible gap."""
    paths = settings.paths.data_paths()
    return {name: str(load_entry(name, paths)["title"]) for name in settings.ood_data.sets}
