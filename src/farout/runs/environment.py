"""Facts about where and when something ran, for records."""

import datetime
import platform
import re
import subprocess
from pathlib import Path

import torch

from farout.engine.precision import tf32_allowed
from farout.errors import ConfigError
from farout.places import INSTALLED, ROOT


def choose_device(name: str, option: str = "trainer.device") -> torch.device:
    """The device that an option names; auto is CUDA where there is one, and else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d{1,9})?", name):
        raise ConfigError(f"{option}={name} is not a device: choose auto, cpu, cuda, cuda:N, mps or xpu")
    device = torch.device(name)
    if device.type != "cpu" and (device.index or 0) >= device_count(device.type):
        count = device_count(device.type) or "no"
        raise ConfigError(f"{option}={name}, but there is {count} {device.type.upper()} device here: use {option}=cpu")
    return device


def device_count(kind: str) -> int:
    """How many devices of a kind (cuda, mps, xpu) there are here."""
    counts = {"cuda": torch.cuda.device_count, "mps": torch.mps.device_count, "xpu": torch.xpu.device_count}
    return counts[kind]()


def device_name(device: torch.device) -> str:
    """A device as people know it."""
    if device.type != "cpu":
        return _accelerator(device)
    return f"CPU ({_cpu_model()}, {torch.get_num_threads()} threads)"


def conditions(device: torch.device, channels_last: bool, compiled: bool) -> dict[str, str | int | bool]:
    """What changes nothing but the last digits of a run, and so is no part of its identity: recorded, and compared."""
    if device.type != "cpu":
        hardware = {"device": _accelerator(device)}
    else:
        hardware = {"device": _cpu_model(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return {
        **hardware,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),  # a class of its own, which no checkpoint may hold
        "channels_last": channels_last,
        "compiled": compiled,
        "tf32": tf32_allowed(),
    }


def _accelerator(device: torch.device) -> str:
    names = {"cuda": torch.cuda.get_device_name, "xpu": torch.xpu.get_device_name}
    return names[device.type](device) if device.type in names else f"Apple GPU ({_cpu_model()})"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the code, with + when files differ from it; None outside a checkout."""
    if INSTALLED:  # and a repository around the installation is somebody else's
        return None
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def stamp(device: torch.device) -> dict[str, str | None]:
    """Date, commit, device and PyTorch version of a measurement."""
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return {"date": today, "commit": commit(), "device": device_name(device), "torch": torch.__version__}
