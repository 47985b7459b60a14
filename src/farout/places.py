"""Where things lie: conf/, and the folder of data, packs and results where nobody names another.

In a checkout, also one installed with `pip install -e`, conf/ is the repository's, and those folders lie beside it.
Installed from a wheel, conf/ came with the package, and they lie in the current folder. Files of a conf/ in the current
folder come before those of farout's own.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "conf").is_dir()  # a wheel has it there
ROOT = PACKAGE.parents[1]  # of the repository, and without meaning where there is none
CONF = PACKAGE / "conf" if INSTALLED else ROOT / "conf"


def work_folder() -> Path:
    """Where data/, packs/ and results/ lie."""
    return Path.cwd() if INSTALLED else ROOT


def own_conf() -> Path | None:
    """The conf/ of the current folder; None where there is none, and where it is farout's own."""
    here = Path("conf")
    return here.resolve() if here.is_dir() and not here.samefile(CONF) else None


def conf_folders() -> tuple[Path, ...]:
    """Where files of conf/ are looked for, in this order."""
    own = own_conf()
    return (CONF,) if own is None else (own, CONF)


def conf_file(name: str) -> Path:
    """The file of conf/ that `score/energy` means; where there is none, the one that farout would have."""
    files = [folder / f"{name}.yaml" for folder in conf_folders()]
    return next((file for file in files if file.is_file()), files[-1])


def conf_names(group: str) -> list[str]:
    """What a group offers, sorted: its files, by the names that choose them."""
    folders = [folder / group for folder in conf_folders()]
    return sorted(
        {path.relative_to(each).with_suffix("").as_posix() for each in folders for path in each.rglob("*.yaml")}
    )


def is_group(name: str) -> bool:
    """Whether conf/ has a folder of that name."""
    return any((folder / name).is_dir() for folder in conf_folders())
