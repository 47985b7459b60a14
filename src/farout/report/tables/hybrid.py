"""The table of hybrid modelling: how well a network classifies, and how good the images are that it generates."""

from collections.abc import Iterable, Mapping, Sequence

from farout.papers import Paper, RowKind, load
from farout.report.records import EvaluatedRun, Record, runs_under
from farout.report.tables.cells import INAPPLICABLE, Measures, Table
from farout.report.tables.extra import Facts, tabulate_extra

# Frechet distances to the ID test images on features of our own, by what is compared with them.
OWN = {
    "samples": "Frechet distance of the samples, own features",
    "uniform_noise": "the same of uniform noise",
    "as_many_of_test": "the same of as many test images",
}
INCEPTION = ("inception_score", "fid")
HYBRID = Measures(
    (),
    ("accuracy", *INCEPTION, *OWN),
    "value",
    1.0,
    "Hybrid modelling (accuracy in %; IS better large, FID and distances better small)",
    titles=OWN,
)


def hybrid_table(
    records: Iterable[Record],
    paper: Paper | str = "jem",
    protocol: str | None = None,
    expected: Mapping[str, str] | None = None,
) -> Table:
    """Accuracy, Inception score, FID and our own Frechet distances, a column per network.

    The figures of samples are those of each run's samples.json; where there is none, or no IS and FID in it, a note
    says why. Arguments and errors are those of `farout.report.tables.tabulate.table1`; OOD sets play no part.
    """
    paper = load(paper) if isinstance(paper, str) else paper
    runs = runs_under(records, protocol or paper.protocol)
    how = (
        f"accuracy under protocol {protocol or paper.protocol}; figures of samples are those of each run's samples.json"
    )
    return tabulate_extra(paper, "hybrid", runs, HYBRID, _facts, how, _notes(runs))


def _facts(kind: RowKind, run: EvaluatedRun) -> Facts:
    """In percent and as numbers; `absent` says why there are none."""
    accuracy = run.id.get("accuracy")
    inception, own = run.samples.get("inception", {}), run.samples.get("frechet_distance", {})
    values = {"accuracy": None if accuracy is None else 100 * accuracy}
    values |= {name: facts["value"] for name, facts in own.items() if name in OWN}
    if "fid" in inception:
        values |= {"fid": inception["fid"]["value"], "inception_score": inception["inception_score"]["mean"]}
    why = "not sampled" if kind.method == "jem" else INAPPLICABLE
    lacks = dict.fromkeys(INCEPTION, "no Inception weights") | dict.fromkeys(OWN, "no features given")
    return {**values, "absent": {name: text if run.samples else why for name, text in lacks.items()}}


def _notes(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Where samples come from, why IS and FID are not there, and on whose features our own distances are."""
    notes = []
    for run in (run for run in runs if run.samples):
        notes.append(f"Samples of {run.name}: {_origin(run.samples['sampling'])}.")
        if reason := run.samples["inception"].get("reason"):
            notes.append(f"No IS and no FID of {run.name}: {reason}.")
        if own := run.samples.get("frechet_distance"):
            space = f"{own['features']} ({own['dimensions']} dimensions)"
            notes.append(f"Own features, of {run.name}: {space}, against {own['reference']}; this is not FID.")
    return notes


def _origin(facts: Mapping[str, object]) -> str:
    start = "the replay buffer" if facts["source"] == "buffer" else "uniform noise"
    further = (
        f" after {facts['rounds']} rounds of {facts['steps']} steps" if facts["rounds"] else " as training left it"
    )
    return f"{facts['n']:,} of {start}{further}"
