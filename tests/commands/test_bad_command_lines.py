"""Every script with options that cannot be: one line on stderr, status 2, and nothing left in the working folder.

Each line of the tables is a command's words, and after the arrow what its message says. `in/` holds files that are
none of what is asked for: a text file, an empty one, noise, JSON of other shapes, folders that are no runs.
"""

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from farout.config.settings import ROOT
from script_loader import load_script
from warm_python import WarmPython, finished

DEMO = "--table demo --id digits"
SMALL = "--scale demo --id digits"
TABLES = {
    "campaign": f"""
--nope -> unrecognized arguments: --nope
--table nope -> --table: invalid choice
--table demo --id nope -> demo has no row nope_softmax
--table demo --id '' -> demo has no row _softmax
--table demo --id ../demo/digits -> is not there
{DEMO} --rows nope -> has no row digits_nope
{DEMO} --rows softmax softmax -> names one twice
{DEMO} --rows -> expected at least one argument
{DEMO} --seeds -> expected at least one argument
{DEMO} --seeds 1 1 -> --seeds 1 1 names one twice
{DEMO} --seeds -1 -> must be at least 0
{DEMO} --seeds 1.5 -> is not a whole number
{DEMO} --seeds 99999999999999999999999 -> must be at most 4294967295
{DEMO} --minutes nan -> --minutes nan is not a number
{DEMO} --minutes inf -> is not a number
{DEMO} --minutes 0 -> must be above 0
{DEMO} --minutes -1 -> must be above 0
{DEMO} --minutes x -> is not a number
{DEMO} --scale nope -> scale=nope is not there: choose from
{DEMO} --scale '' -> scale= is not there
{DEMO} --state in/file -> --state in/file cannot be a folder
{DEMO} --state in/file/below -> in/file is a file
{DEMO} --outputs in/file -> --outputs in/file cannot be a folder
{DEMO} --init in/file -> in/file is not a run folder
{DEMO} --init in/noise_run -> run.json
{DEMO} --init in/folder_run -> is not a run folder
{DEMO} --init in/list_run -> run.json
{DEMO} --dry-run outliers=nan -> outliers=nan is not there: choose from
{DEMO} --dry-run logger=5 -> logger=5 is not there: choose from csv, none, tensorboard, wandb
{DEMO} --dry-run logger=[csv,nope] -> logger=nope is not there
{DEMO} --dry-run protocol=null -> protocol=null is not there
{DEMO} --dry-run score=[[1]] -> score=[1] is not there
{DEMO} --dry-run experiment=[a,b] -> use --table and --rows
{DEMO} --dry-run ~seed -> use --seeds
{DEMO} --dry-run a=[ -> a=[ cannot be read
{DEMO} --dry-run a==b -> a==b cannot be read
{DEMO} --dry-run =x -> =x has no name
{DEMO} --dry-run lr=${{x}} -> lr: Interpolation key 'x' not found
{DEMO} --dry-run lr=1,2 -> Ambiguous value
{DEMO} --dry-run trainer.device=cuda:99 -> trainer.device=cuda:99, but there is
""",
    "reproduce": f"""
--scale medium -> experiment=energy/medium/cifar10_softmax is not there
--paper nope -> --paper: invalid choice
--scale nope -> --scale: invalid choice
--scale demo --id nope -> experiment=energy/demo/nope_softmax is not there
--paper oe --scale small -> experiment=oe/small/cifar10_baseline is not there
{SMALL} --seeds -> expected at least one argument
{SMALL} --seeds 1 1 -> names one twice
{SMALL} --seeds -1 -> must be at least 0
{SMALL} --seeds x -> is not a whole number
{SMALL} --init nowhere -> nowhere is not a run folder
{SMALL} --init in/list_run -> run.json
--paper jem {SMALL} --init nowhere -> no rows from a trained network in jem/demo_from_trained
--paper jem --scale small --init nowhere -> nowhere is not a run folder
{SMALL} --recipe ../demo -> experiment=../demo/digits_softmax is not there
{SMALL} --recipe demo -> experiment=demo/digits_softmax is now experiment=energy/demo/digits_softmax
{SMALL} --recipe '' -> experiment=/digits_softmax is not there
{SMALL} --out in/file -> --out in/file cannot be a folder
{SMALL} --record in/file/x -> --record in/file/x cannot be a folder
{SMALL} protocol=5 -> protocol=5 is not there: choose from
{SMALL} seed=5 -> use --seeds
{SMALL} scale=small -> use --scale
{SMALL} paths.outputs=in/file -> paths.outputs in/file cannot be a folder
""",
    "detect": """
-> the following arguments are required
nowhere in/file -> nowhere is not there
in/file -> no image is given
in/noise in/file -> in/noise cannot be read
in/empty in/file -> in/empty cannot be read
in/folder_run in/file -> is not a run folder
in/list_run in/file -> run.json
in/file in/folder -> in/folder is a folder without images
in/file nowhere.png -> nowhere.png is not there
in/file in/file --tpr nan -> --tpr nan is not a number
in/file in/file --tpr 1 -> must be below 1
in/file in/file --max-fit-images 0 -> must be at least 1
in/file in/file --save in/folder -> --save in/folder is a folder
in/file in/file --save in/file/x -> cannot be a folder
""",
    "evaluate_outputs": """
-> the following arguments are required
nowhere -> nowhere has no id_test.npz
in/file -> in/file has no id_test.npz
in/folder -> in/folder has no id_test.npz
in/folder --score nope -> in/folder has no id_test.npz
in/folder --protocol nope -> protocol=nope is not there: choose from
in/folder --bootstrap 1 -> must be at least 2
in/folder --out in/file/x -> --out in/file cannot be a folder
""",
    "import_checkpoint": """
in/file -> --id is missing: name the set that the weights were trained on
in/folder --as-run -> in/folder holds no run.json
in/noise_run --as-run -> run.json
in/folder --as-run --id digits -> --id does not go with --as-run
in/folder --as-run --outliers none -> --outliers does not go with --as-run
in/file --id digits -> in/file is damaged or no file of torch.save
in/noise --id digits -> in/noise is damaged
in/folder --id digits -> in/folder is a folder
nowhere --id digits -> nowhere is not there
in/file --id digits --name a/b -> names a folder
in/file --id digits --outputs in/file -> --outputs in/file cannot be a folder
""",
    "make_table": """
-> there is no folder results
--paper nope -> --paper: invalid choice
--results in/file -> there is no folder in/file
--results in/folder -> there are no records to tabulate
--run nowhere -> nowhere does not exist
--run in/file -> in/file is not JSON
--run in/noise -> in/noise is not JSON
--run in/list.json -> is no record of a run
--run in/null.json -> is no record of a run
--run in/noise_run -> results.json does not exist
--results in/folder --where scale=nope -> there are no records
--run -> expected at least one argument
--out in/file -> --out in/file cannot be a folder
sweep=nowhere -> there is no sweep in outputs/sweeps/nowhere
sweep=../in -> sweep=../in is no table: write sweep=NAME
in/folder -> in/folder is no table: write sweep=NAME
""",
    "prepare_data": """
-> name a data set, or --all, or --list
nope -> no data set 'nope'
'' -> '' is no name of a data set
../x -> '../x' is no name of a data set
digits --split nope -> has no split 'nope'
digits --data in/file -> --data in/file cannot be a folder
--list --conf nowhere -> nowhere has no dataset/*.yaml
--all --conf in/file -> in/file has no dataset/*.yaml
lsun_r --from nowhere -> there is no such file or folder
lsun_r --from in/noise -> neither a folder nor a tar nor a zip file
lsun_r --from in/folder -> in/folder holds no images
lsun_r svhn --from in/file -> --from is for one data set
places365 --from in/folder --names nowhere -> --names nowhere cannot be read
places365 --from in/folder --names in/latin -> --names in/latin cannot be read
places365 --from in/folder --names in/folder -> Is a directory
places365 --from in/folder --names in/empty -> --names in/empty names no file
places365 --from in/folder --names http://127.0.0.1:9/list -> cannot be read
places365 --from in/folder --names http://127.0.0.1:port/list -> cannot be read
places365 --from in/folder --names "http://exa mple/list" -> cannot be read
--pack nope -> no data set 'nope'
--pack digits --out in/file -> --out in/file cannot be a folder
--pack digits --out x.tar -> is one file, but there are several packs
""",
    "report": """
-> the following arguments are required: run
nowhere -> nowhere does not exist
in/file -> in/file is not JSON
in/folder -> results.json does not exist
in/list_run -> is no record of a run
in/folder --out in/file -> --out in/file cannot be a folder
""",
    "status": """
-> there is no folder outputs/runs
nowhere -> there is no folder nowhere/runs
in/file --json -> there is no folder in/file/runs
in/folder --nope -> unrecognized arguments: --nope
""",
    "page": """
nowhere -> there is no folder nowhere/runs
in/file -> there is no folder in/file/runs
in/folder --nope -> unrecognized arguments: --nope
in/folder in/list_run -> unrecognized arguments: in/list_run
""",
    "robustness": """
nowhere -> nowhere is not a run folder
in/noise_run -> run.json
in/list_run -> run.json
in/folder --norm nope -> --norm: invalid choice
in/folder --linf 0 -> --linf 0 must be above 0
in/folder --linf nan -> is not a number
in/folder --l2 inf -> is not a number
in/folder --refine -1 -> must be at least 0
in/folder --images 0 -> must be at least 1
in/folder --steps x -> is not a whole number
in/folder --input-noise nan -> is not a number
in/folder --distal-step 0 -> must be above 0
in/folder --seed -1 -> must be at least 0
""",
    "sample": """
in/file -> in/file is not a run folder
in/list_run -> run.json
in/folder --from nope -> --from: invalid choice
in/folder --rounds -1 -> must be at least 0
in/folder --steps 0 -> must be at least 1
in/folder --reinit nan -> is not a number
in/folder --reinit 2 -> must be at most 1
in/folder --count 1 -> must be at least 2
in/folder --chain-steps 0 -> must be at least 1
in/folder --reference-images 3 -> must be at least 4
in/folder --seed 99999999999 -> must be at most 4294967295
in/folder --out in/file -> --out in/file cannot be a folder
""",
    "bench": """
--only data,nope -> 'nope' is no part: choose from data, training
--device nope -> --device=nope is not a device
--rounds 0 -> must be at least 1
--minutes 0 -> must be at least 1
--results in/file -> --results in/file cannot be a folder
""",
    "benchmark/cider": """
--samples 0 -> must be at least 1
--classes 1 -> must be at least 2
--momentum 2 -> must be at most 1
--device nope -> --device=nope is not a device
--rounds nan -> is not a whole number
--samples 99999999999999 -> there is not enough memory
""",
    "benchmark/jem": """
--backbone nope -> backbone=nope is not there: choose from
--batch 0 -> must be at least 1
--device cuda:77 -> --device=cuda:77, but there is
""",
    "benchmark/metrics": """
--images 0 -> must be at least 1
--rounds -1 -> must be at least 1
""",
    "benchmark/scores": """
in/file -> in/file is not a run folder
nowhere score=[ -> nowhere is not a run folder
""",
    "benchmark/training": """
a=[ -> a=[ cannot be read
--nope -> unrecognized arguments: --nope
outliers=nan -> outliers=nan is not there
""",
    "benchmark/views": """
--batch 0 -> must be at least 1
--precision fp64 -> --precision: invalid choice
--device nope -> --device=nope is not a device
""",
    "sensitivity": f"""
--scale nope -> --scale: invalid choice
--scale demo --id nope -> --scale and --id has no row nope_energy_ft
{SMALL} --seeds 1 1 -> names one twice
{SMALL} --init nowhere -> nowhere is not a run folder
{SMALL} --knob m_in -> write NAME=NUMBER
{SMALL} --knob proto_m=0.9 -> proto_m is no knob of method=energy
{SMALL} --knob m_out=1 -> m_out=1 has the wrong sign
{SMALL} --out in/file -> --out in/file cannot be a folder
{SMALL} --record in/file -> --record in/file cannot be a folder
{SMALL} seed=5 -> use --seeds
""",
    "compare": """
-> the following arguments are required: RUN
nowhere -> nowhere
in/list_run -> is no record of a run
in/noise_run -> results.json does not exist
in/list_run --resamples 1 -> --resamples 1 must be at least 2
in/list_run --results in/file -> --results in/file cannot be a folder
""",
    "verdicts": """
--nope -> unrecognized arguments: --nope
--results in/file -> there is no folder in/file
--keep in/noise_run --results in/file -> results.json does not exist
--keep in/list_run --results in/file -> is no record of a run
--keep in/list_run --check -> --check writes nothing
""",
    "torture": """
--nope -> unrecognized arguments: --nope
--interruptions 0 -> --interruptions 0 must be at least 1
--stages nope -> --stages: invalid choice
--signals INT -> --signals: invalid choice
--methods nope -> --methods: invalid choice
--seed -1 -> --seed -1 must be at least 0
--folder in/file -> --folder in/file cannot be a folder
--folder in/list_run -> --folder in/list_run is not empty
""",
}
LINES = [(name, *line.split("-> ", 1)) for name, table in TABLES.items() for line in table.strip().splitlines()]
COMMANDS = [
    ("train.py", "lr=-0.1", "lr=-0.1 must be positive"),
    ("train.py", "-m seed=glob(*)", "names nothing, so the sweep has no job"),
    ("train.py", "--nope", "unrecognized arguments: --nope"),
    ("eval.py", "run=in/file", "in/file is not a run folder"),
    ("scripts/campaign.py", f"{DEMO} --state in/file", "--state in/file cannot be a folder"),
    ("scripts/prepare_data.py", "", "name a data set, or --all, or --list"),
    ("scripts/report.py", "in/list_run", "is no record of a run"),
    ("scripts/make_table.py", "--nope", "unrecognized arguments: --nope"),
    ("scripts/make_table.py", "--run in/noise", "in/noise is not JSON"),
    ("scripts/make_table.py", "--results in/folder", "there are no records to tabulate"),
]

script = cache(load_script)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder but for `in/`."""
    inputs = tmp_path / "in"
    for name in ("folder", "noise_run", "list_run", "folder_run/run.json"):
        (inputs / name).mkdir(parents=True)
    (inputs / "file").write_text("x")
    (inputs / "empty").write_text("")
    (inputs / "latin").write_bytes(b"caf\xe9\n")
    (inputs / "list.json").write_text("[1, 2]")
    (inputs / "null.json").write_text("null")
    for name in ("list_run/run.json", "list_run/results.json"):
        (inputs / name).write_text("[1, 2]")
    for name in ("noise", "noise_run/run.json"):
        (inputs / name).write_bytes(bytes(range(255, 0, -1)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_enough() -> None:
    assert len(LINES) >= 100 and len(COMMANDS) == 10
    names = {str(path.relative_to(ROOT / "scripts").with_suffix("")) for path in (ROOT / "scripts").rglob("*.py")}
    assert names == set(TABLES), "every script has a table"


@pytest.mark.parametrize(("name", "words", "message"), LINES, ids=[f"{name} {words}" for name, words, _ in LINES])
def test_one_line_status_2_and_nothing_left(
    name: str, words: str, message: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(there.rglob("*"))
    module: ModuleType = script(name)
    assert module.main(shlex.split(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert sorted(there.rglob("*")) == before


def act(line: str, there: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of the shell in that folder."""
    own = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", **environment}
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(command, cwd=there, env={**os.environ, **own}, text=True, capture_output=True, timeout=600)


@pytest.mark.e2e
def test_ten_real_commands(there: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = sorted(there.rglob("*"))
    own = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HYDRA_FULL_ERROR": "0"}
    started = [
        WarmPython([str(ROOT / file), *shlex.split(words)], there, own, tmp_path_factory.mktemp("said"))
        for file, words, _ in COMMANDS
    ]
    results = [finished(process, 600) for process in started]
    for done, (_, words, message) in zip(results, COMMANDS, strict=True):
        assert (done.returncode, done.stdout) == (2, ""), words
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and message in line
    assert sorted(there.rglob("*")) == before


@pytest.mark.e2e
def test_streams_that_nobody_reads_or_that_are_narrow(there: Path) -> None:
    """`--help | head`, closed streams, an encoding without the letters of a name, no width: no traceback."""
    train, table = str(ROOT / "train.py"), str(ROOT / "scripts/make_table.py")
    python = shlex.quote(sys.executable)
    shell = {
        "help": f"{python} {train} --help | head -1",
        "closed": f"{python} {table} --help >&- 2>&- <&-",
        "ascii": f"{python} {table} --run größe.json",
    }
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda line: act(line, there, PYTHONIOENCODING="ascii", COLUMNS="1"), shell.values())
        found = dict(zip(shell, done, strict=True))
    assert found["help"].stdout.startswith("farout - ") and found["help"].stderr == ""
    assert found["help"].returncode in (0, 141)
    assert found["closed"].returncode == 0
    assert found["ascii"].returncode == 2 and found["ascii"].stderr.startswith(
        r"error: gr\xf6\xdfe.json does not exist"
    )
