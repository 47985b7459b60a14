"""The benchmark at its quick size: every line is there, ratios are numbers, and what differs is not compared."""

import json
import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farout.commands import bench
from farout.commands.benchmark import plain, steps
from farout.commands.benchmark.images import images_of
from farout.commands.benchmark.lines import Different, Growth, Line, Place, Side, require_close
from farout.commands.benchmark.page import BEGIN, END, FIGURE, NOTHING, rendered, update_page
from farout.commands.benchmark.timing import Turn, in_turns
from farout.errors import FaroutError

CPU = torch.device("cpu")
QUICK = Place(CPU, "quick", 1)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the whole benchmark writes."""
    folder = tmp_path_factory.mktemp("bench")
    threads = torch.get_num_threads()
    try:
        assert bench.main(["--quick", "--threads", "1", "--results", str(folder)]) == 0
    finally:
        torch.set_num_threads(threads)
    assert [path.name for path in folder.iterdir()] == ["bench-cpu.json"]
    return json.loads((folder / "bench-cpu.json").read_text())


def test_every_line_is_there(record: dict) -> None:
    """A line is a comparison or says why it is none; there is one for each way of ours and each baseline."""
    parts = Counter(line["part"] for line in record["lines"])
    assert list(parts) == list(bench.PARTS)
    assert (parts["data"], parts["evaluation"], parts["metrics"], parts["prototypes"]) == (3, 2, 4, 2)
    assert (parts["start-up"], parts["memory"], parts["growth"]) == (1, 2, 9)
    for case in steps.CASES.values():
        own = [line["name"] for line in record["lines"] if line["part"] == "training" and case.title in line["name"]]
        compiled = (1, 2) if case is steps.CASES["ce"] else (0,)
        known = {count + more for count in (3, 4) for more in compiled}
        assert len(own) in known, (
            "float32 and bf16, against the plain loop and the ceiling, or bf16 does not pay; compiled"
        )
    knn = " ".join(json.dumps(line) for line in record["lines"] if line["part"] == "knn")
    assert "faiss-cpu" in knn and "scikit-learn" in knn


def test_nothing_is_begun_after_the_time_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What has begun is finished, and what has not says so; that is no failure."""
    clock = iter([0.0, 59.0, *[61.0] * 20])
    monkeypatch.setattr(bench.time, "monotonic", lambda: next(clock))
    assert bench.main(["--quick", "--only", "prototypes,metrics", "--minutes", "1", "--results", str(tmp_path)]) == 0
    lines = json.loads((tmp_path / "bench-cpu.json").read_text())["lines"]
    assert {line["part"] for line in lines if "ratio" in line} == {"metrics"}
    assert ["--minutes" in line["not_measured"] for line in lines if line["part"] == "prototypes"] == [True]


def test_figures_are_numbers_and_circumstances_are_known(record: dict) -> None:
    assert {"date", "commit", "device", "torch", "threads", "cores", "size", "compiled", "lines"} == record.keys()
    assert (record["size"], record["threads"]) == ("quick", 1)
    for line in record["lines"]:
        if "not_measured" in line:
            assert "failed" not in line["not_measured"]
            continue
        if "slope" in line:
            assert len(line["points"]) >= 4 and line["points"][0]["size"] < line["points"][-1]["size"]
            seconds = [point[key] for point in line["points"] for key in ("min", "median")]
            assert all(number > 0 and math.isfinite(number) for number in [*seconds, abs(line["slope"]) + 1])
            continue
        numbers = [line["ratio"], *(line[side][key] for side in ("ours", "baseline") for key in ("min", "median"))]
        assert all(isinstance(number, float) and math.isfinite(number) and number >= 0 for number in numbers), line
        assert line["ratio"] == pytest.approx(line["baseline"]["min"] / line["ours"]["min"])
        assert line["agreement"] and line["scale"] and line["turns"] >= 1


def test_the_record_is_rendered(record: dict) -> None:
    page = rendered({"cpu": record})
    assert page.startswith(f"### cpu\n\n{record['device']}")
    lines = record["lines"]
    assert page.count("\n| ") == 2 + sum("ratio" in line or "slope" in line for line in lines)
    assert all(f"{line['slope']:.2f} | {line['last_slope']:.2f} |" in page for line in lines if "slope" in line)
    assert all(line["not_measured"] in page for line in record["lines"] if "not_measured" in line)


@pytest.mark.parametrize("method", [name for name in steps.CASES if name != "jem"])
def test_a_plain_loop_with_another_loss_is_refused(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = steps._Comparison(method, steps.CASES[method], QUICK, False)
    job = comparison._job(["trainer.precision=fp32"])
    assert "equal" in comparison._agree(job)
    true = comparison._plain_loss

    def nearly(*known: Any) -> plain.Loss:
        loss = true(*known)
        return lambda model, batches: 1.0001 * loss(model, batches)

    monkeypatch.setattr(comparison, "_plain_loss", nearly)
    with pytest.raises(Different, match=r"losses of .* differ by 1\.0e-04"):
        comparison._agree(job)


def test_what_differs_in_value_or_shape_is_not_compared() -> None:
    assert require_close("numbers", [1.0, 2.0], torch.tensor([1.0, 2.0]), 1e-9) == "numbers equal to 1e-09"
    with pytest.raises(Different, match=r"numbers: ours and the baseline differ by 5\.0e-01"):
        require_close("numbers", [1.0, 3.0], [1.0, 2.0], 1e-3)
    with pytest.raises(Different, match="nothing is compared"):
        require_close("numbers", [1.0, np.nan], [1.0, 2.0], 1e-3)
    with pytest.raises(Different, match="shape"):
        require_close("numbers", [1.0], [1.0, 2.0], 1e-3)


def test_a_part_that_fails_is_said_and_the_rest_goes_on(monkeypatch, tmp_path, capsys) -> None:
    def differing(place):
        yield _line(ours=1.0, baseline=2.0)
        raise Different("losses differ: nothing is compared")

    monkeypatch.setattr("farout.commands.benchmark.data_path.lines", differing)
    assert bench.main(["--quick", "--only", "prototypes,data", "--results", str(tmp_path)]) == 2
    assert "data: the rest of it - not measured: failed: losses differ" in capsys.readouterr().out
    lines = json.loads((tmp_path / "bench-cpu.json").read_text())["lines"]
    assert [line["part"] for line in lines] == ["data", "data", "prototypes", "prototypes"]


def test_parts_and_quick_looks_are_not_kept(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "RESULTS", None)  # would raise
    assert bench.main(["--quick", "--only", "prototypes"]) == 0
    assert "not kept" in capsys.readouterr().out


def _line(ours: float, baseline: float) -> Line:
    return Line("data", "x", "y", Side.of("ours", [ours, 3 * ours]), Side.of("theirs", [baseline]), "equal", 2)


def test_the_ratio_is_of_the_least_and_above_one_where_ours_takes_less() -> None:
    line = _line(ours=1.0, baseline=4.0)
    assert (line.ratio, line.ours.least, line.ours.middle) == (4.0, 1.0, 2.0)


def test_slopes_are_powers_and_the_last_one_is_of_the_largest_sizes() -> None:
    def grown(seconds: Callable[[int], float]) -> Growth:
        sides = {n: Side.of("", [seconds(n), 9.0]) for n in (10, 20, 40, 80)}
        return Growth("growth", "x", "y", "images", sides, 2)

    assert grown(lambda n: 0.01 * n).slope == pytest.approx(1)
    assert grown(lambda n: 1e-6 * n**2).slope == pytest.approx(2)
    assert grown(lambda n: 0.5).slope == pytest.approx(0, abs=1e-9)
    late = grown(lambda n: 1.0 + (n == 80))
    assert late.last_slope == pytest.approx(1) and 0 < late.slope < 1


def test_the_picture_of_growth_shows_every_curve_with_its_slope(record: dict, tmp_path) -> None:
    page = tmp_path / "speed.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/bench-cpu.json").write_text(json.dumps(record))
    update_page(page, tmp_path / "results")
    assert f"({FIGURE})" in page.read_text()
    words = ["".join(part.itertext()) for part in ET.parse(tmp_path / FIGURE).iter("{http://www.w3.org/2000/svg}text")]
    for line in (line for line in record["lines"] if "slope" in line):
        assert {f"slope {line['slope']:.2f}", line["by"]} <= {word.replace("\u2212", "-") for word in words}
    again = tmp_path / "again/speed.md"
    again.parent.mkdir()
    again.write_text(page.read_text())
    update_page(again, tmp_path / "results")
    assert (tmp_path / "again" / FIGURE).read_bytes() == (tmp_path / FIGURE).read_bytes()


def test_turns_alternate_and_what_comes_before_is_not_timed() -> None:
    seen: list[str] = []
    tasks = {
        "a": Turn(lambda: seen.append("a"), 2, lambda: seen.append("before a")),
        "b": Turn(lambda: seen.append("b")),
    }
    seconds = in_turns(tasks, 2, warm_up=1)
    assert seen == ["before a", "a", "b"] * 3
    assert {name: len(spent) for name, spent in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("Some Device", "cuda"),
    ],
)
def test_a_record_is_named_by_the_model_of_its_gpu(name: str, short: str) -> None:
    assert bench.short_name(torch.device("cuda"), name) == short
    assert bench.short_name(CPU) == "cpu"


def test_the_page_keeps_its_words_and_needs_its_place(tmp_path) -> None:
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_page(page, tmp_path)
    assert page.read_text() == f"before\n{BEGIN}\n\n{NOTHING}\n\n{END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(FaroutError, match="no place for the tables"):
        update_page(page, tmp_path)


def test_random_images_stand_in_and_say_so() -> None:
    found = images_of(QUICK, "cifar10", 5)
    assert found.origin == "random images" and found.pixels.shape == (5, 3, 32, 32)
    assert torch.equal(found.pixels, images_of(QUICK, "cifar10", 5).pixels)
