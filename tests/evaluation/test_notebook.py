"""The notebook's cells, run in order as Jupyter would."""

import json

import matplotlib
import pytest

from farout.config.settings import ROOT

NOTEBOOK = json.loads((ROOT / "examples/own_classifier.ipynb").read_text())


@pytest.mark.e2e
def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("agg")
    space: dict = {"__name__": "__main__"}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "own_classifier.ipynb", "exec"), space)
    assert "digits 7 to 9" in capsys.readouterr().out
    assert space["results"].id["accuracy"] > 0.9
    assert space["results"].mean("energy")["auroc"] > 0.8
    assert len(space["detector"].classes) == 7 and space["figure"].axes


def test_its_outputs_are_kept_for_readers() -> None:
    shown = ["".join(output.get("text", "")) for cell in NOTEBOOK["cells"] for output in cell.get("outputs", ())]
    assert any("FPR95 / AUROC in percent" in text for text in shown)
    assert NOTEBOOK["nbformat"] == 4 and all(cell["id"] for cell in NOTEBOOK["cells"])
