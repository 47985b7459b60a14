"""Kill train.py at random moments, repeat it until it ends, and compare: the same bits as if nothing had happened.

    python scripts/torture.py                           50 kills over all methods, on digits at smoke scale
    python scripts/torture.py --kills 5 --methods jem_restarts --seed 7

Every method is trained once without a kill, then again and again with SIGKILLs: most while it trains, some while it
starts. Weights, what the method keeps, the losses and the restarts of every run, parents included, must be equal.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farout.commands.arguments import Parser, folder_to_write, guarded, require_checkout, whole
from farout.engine.progress import say
from farout.errors import ConfigError, FaroutError
from farout.files import new_file, set_aside
from farout.places import ROOT

COMMON = ["scale=smoke", "id_data=digits", "logger=none", "evaluate=false", "trainer.device=cpu", "max_steps=24"]
COMMON += ["trainer.checkpoint_steps=2", "trainer.log_every=1"]
SMALL = ["backbone=resnet20", "pretrain.max_steps=6"]
VIEWS = ["backbone=resnet18_cider", "backbone.width=4", "backbone.projection_dim=8", "transform=digits_views"]
JEM = ["method=jem", "backbone=wrn_10_2_jem", "backbone.widen_factor=1", "sgld_steps=2", "buffer_size=64"]
# Far too high a rate, halved by each restart: diverges about ten times, and ends.
DIVERGING = ["lr=1", "loss_bound=1e5", "restart_lr_factor=0.5", "restart_every=3", "restart_sgld_steps=1"]
METHODS = {
    "ce": ["method=ce", *SMALL],
    "energy": ["method=energy", *SMALL],
    "oe": ["method=oe", *SMALL],
    "oe_scratch": ["method=oe_scratch", *SMALL],
    "cider": ["method=cider", *VIEWS],
    "supcon": ["method=supcon", *VIEWS],
    "jem": [*JEM, "holdout=0.2", "epochs=2", "batch_size=60", "keep=best"],
    "jem_restarts": [*JEM, *DIVERGING],
}
WHILE_IT_STARTS = 0.15  # share of the kills
TIMEOUT = 900.0  # seconds after which a command that neither ends nor trains is a failure


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--kills", type=whole(1), default=50, help="in all (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--seed", type=whole(0), help="of the moments (default: another every time; it is printed)")
    parser.add_argument("--folder", type=Path, help="keep the outputs here (default: a temporary folder)")
    return parser.parse_args(arguments)


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Kill and compare; 1 where something differs."""
    options = parse(arguments)
    require_checkout("this test of train.py")
    folder_to_write("--folder", options.folder)
    if options.folder is not None and options.folder.is_dir() and any(options.folder.iterdir()):
        raise ConfigError(f"--folder {options.folder} is not empty: finished runs would not be trained again")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    say(f"{options.kills} kills over {', '.join(options.methods)}; the same moments again: --seed {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        differing = torture(options.methods, options.kills, random.Random(seed), folder)
    if differing:
        say(f"DIFFERENT: {', '.join(differing)} (--seed {seed})")
        return 1
    say("all ended bit-equal to uninterrupted training")
    return 0


def torture(methods: Sequence[str], kills: int, moments: random.Random, folder: Path) -> list[str]:
    """Spread the kills over the methods; returns those whose end differs."""
    differing = []
    for number, name in enumerate(methods):
        share = kills // len(methods) + (number < kills % len(methods))
        victim = Victim(name, folder / name, moments)
        if share and not victim.survives(share):
            differing.append(name)
    return differing


@dataclass
class Victim:
    """One method's training, uninterrupted in `whole` and with kills in `killed`."""

    name: str
    folder: Path
    moments: random.Random
    start_up: float = 0.0  # seconds until training begins
    training: float = 0.0  # seconds of it
    whole: dict[str, str] = field(default_factory=dict)

    def survives(self, kills: int) -> bool:
        """Whether every end is the same; a command that ends before its turn to be killed is begun anew."""
        began, trained, ended = self.run("whole")
        self.start_up, self.training, self.whole = trained - began, ended - trained, ends(self.folder / "whole")
        say(f"{self.name}: {len(self.whole)} results in {ended - began:.0f} s, {self.restarts()} restarts")
        same, done = True, 0
        while done < kills:
            if self.killed():
                done += 1
                say(f"  {self.name}: kill {done} of {kills}, {self.where()}")
            else:
                same = self.compared() and same
        self.run("killed")
        return self.compared() and same

    def command(self, which: str) -> subprocess.Popen[bytes]:
        """train.py, what it says in a file."""
        outputs = self.folder / which
        outputs.mkdir(parents=True, exist_ok=True)
        words = [*COMMON, *METHODS[self.name], f"paths.outputs={outputs}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with new_file(outputs / "said.txt") as said:
            arguments = [sys.executable, str(ROOT / "train.py"), *words]
            return subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)

    def said(self, which: str) -> str:
        return (self.folder / which / "said.txt").read_text(errors="replace")

    def run(self, which: str) -> tuple[float, float, float]:
        """To its end; returns when it began, when it said that it trains, and when it ended."""
        began = time.monotonic()
        process = self.command(which)
        trained = self.trains(process, which, began + TIMEOUT)
        process.wait(timeout=TIMEOUT)
        if process.returncode:
            raise FaroutError(f"{self.name}: status {process.returncode}: {self.said(which).strip()[-300:]}")
        return began, trained, time.monotonic()

    def trains(self, process: subprocess.Popen[bytes], which: str, until: float) -> float:
        """Wait until training begins or the process ends; returns when."""
        while process.poll() is None and time.monotonic() < until:
            if any(word in self.said(which) for word in (" trains: ", " resumes: ")):
                break
            time.sleep(0.01)
        return time.monotonic()

    def killed(self) -> bool:
        """One try at a random moment; False where the command was faster."""
        early = self.moments.random() < WHILE_IT_STARTS
        wait = self.moments.random() * (self.start_up if early else self.training)
        process = self.command("killed")
        if not early:
            self.trains(process, "killed", time.monotonic() + TIMEOUT)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode not in (0, -signal.SIGKILL):
            raise FaroutError(f"{self.name}: status {process.returncode}: {self.said('killed').strip()[-300:]}")
        return process.returncode != 0

    def compared(self) -> bool:
        """Whether the end is that of the uninterrupted training; what was killed goes, for a new beginning."""
        found = ends(self.folder / "killed")
        differing = [key for key in self.whole.keys() | found.keys() if self.whole.get(key) != found.get(key)]
        say(f"  {self.name}: " + (f"DIFFERS in {', '.join(sorted(differing))}" if differing else "the same end"))
        if differing:
            set_aside(self.folder / "killed", "differs")
        else:
            shutil.rmtree(self.folder / "killed")
        return not differing

    def restarts(self) -> int:
        records = (json.loads(path.read_text()) for path in self.folder.glob("whole/runs/*/run.json"))
        return sum(len(record["trained"].get("restarts", ())) for record in records)

    def where(self) -> str:
        """The last words before the kill."""
        return (self.said("killed").strip().splitlines() or ["before it said a word"])[-1][:100]


def ends(outputs: Path) -> dict[str, str]:
    """RUN/FILE -> hash of everything that training determines, of all runs of a folder."""
    found = {}
    for path in sorted(outputs.glob("runs/*/*.safetensors")):
        found[f"{path.parent.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(outputs.glob("runs/*/run.json")):
        record = json.loads(path.read_text())
        facts = {key: record.get("trained", {}).get(key) for key in ("losses", "restarts", "steps", "kept")}
        found[f"{path.parent.name}/run.json"] = json.dumps({**facts, "validation": record.get("validation")})
    return found
