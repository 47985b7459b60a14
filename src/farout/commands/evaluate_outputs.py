"""Evaluates outputs that any framework saved: logits and features, one .npz a data set; no network is needed.

FOLDER holds id_test.npz and one NAME.npz for each OOD set, each with arrays logits (N, K) and features (N, D, the input
of the last linear layer); id_test with labels (N,), where accuracy and ECE are wanted. For scores that are fitted it
holds id_train.npz, and for those that compute logits again head.npz (weight, bias). Scores that cannot be computed are
left out, with the reason. results.json, which farout.load_results reads, is written into FOLDER.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from farout.commands.arguments import DONE, Parser, file_to_write, guarded, whole
from farout.config.parse import protocol_file
from farout.engine.progress import say
from farout.evaluation.evaluate import evaluate_outputs
from farout.evaluation.results import as_record
from farout.evaluation.saved_outputs import read_outputs
from farout.files import save_json
from farout.places import conf_names

EPILOG = """\
examples:
  python scripts/evaluate_outputs.py saved/
  python scripts/evaluate_outputs.py saved/ --score msp energy knn --protocol openood --bootstrap 1000
"""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, epilog=EPILOG)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with id_test.npz and NAME.npz of each OOD set")
    parser.add_argument(
        "--score", nargs="+", default=["all"], metavar="NAME", help="files of conf/score (default: all)"
    )
    parser.add_argument("--protocol", nargs="+", metavar="NAME", help="files of conf/protocol (default: all of them)")
    parser.add_argument(
        "--bootstrap", type=whole(2), metavar="N", help="resamples behind 95 %% intervals (default: none)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="another file than FOLDER/results.json")
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table per protocol and write the record; 2 after a one-line error."""
    options = _options(arguments)
    file_to_write("--out", options.out)
    names = options.protocol or conf_names("protocol")
    protocols = [replace(protocol_file(name), bootstrap=options.bootstrap or 0) for name in names]
    saved = read_outputs(options.folder)
    first = evaluate_outputs(
        saved.id_test, saved.ood, options.score, protocols[0], saved.train, saved.head, options.folder.resolve().name
    )
    results = [first, *(first.under(protocol) for protocol in protocols[1:])]
    for each in results:
        say(f"{each}\n")
    out = options.out or options.folder / "results.json"
    save_json(out, as_record(results))
    say(f"results: {out}")
    return DONE
