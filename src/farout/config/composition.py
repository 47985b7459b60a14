"""What a command will do, in short: the files of conf/ that make it, and what its overrides change in them."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from farout.config.compose import check_overrides, files_alone, hydra_on_conf
from farout.config.settings import Composition
from farout.errors import shorten
from farout.places import conf_folders, is_group, own_conf

WIDTH = 110
Changes = dict[str, tuple[Any, Any]]


def files_of(composition: Composition) -> list[str]:
    """The files of conf/, without .yaml, in the order in which they were read; later ones win."""
    return list(_without_values(composition.root, _choices(composition.overrides), conf_folders())[0])


def own_files_of(composition: Composition) -> list[str]:
    """Those of them that lie in conf/ of the current folder and are not farout's."""
    own = own_conf()
    return [] if own is None else [name for name in files_of(composition) if (own / f"{name}.yaml").is_file()]


def changes_of(composition: Composition) -> Changes:
    """Option -> (what the files say, what the overrides made of it), where that differs; None also where it was not."""
    files = _without_values(composition.root, _choices(composition.overrides), conf_folders())[1]
    found: Changes = {}
    for override in check_overrides([word for word in composition.overrides if not _chooses(word)]):
        value = None if override.is_delete() else override.value()
        found[override.key_or_group] = (_value(files, override.key_or_group), value)
    return {key: change for key, change in found.items() if change[0] != change[1]}


def composition_record(composition: Composition) -> dict[str, Any]:
    """What run.json keeps of it: of a path its last part, since where things lie on a machine helps nobody else."""
    changes = changes_of(composition).items()
    kept = {key: [_portable(old), _portable(new)] for key, (old, new) in changes if not key.startswith("paths.")}
    own = own_files_of(composition)
    return {"files": files_of(composition), **({"own": own} if own else {}), "changed": kept}


def _portable(value: Any) -> Any:
    if not isinstance(value, str) or not (value.startswith("~") or Path(value).is_absolute()):
        return value
    return f".../{Path(value).name}"


def summary(name: str, composition: Composition) -> str:
    """The first lines of a run."""
    changes = [f"{key} {_shown(old)} -> {_shown(new)}" for key, (old, new) in changes_of(composition).items()]
    parts = {"conf/": files_of(composition), "./conf/": own_files_of(composition), "changed": changes or ["nothing"]}
    return "\n".join([name, *(line for title, items in parts.items() if items for line in _block(title, items))])


def _block(title: str, items: Sequence[str]) -> list[str]:
    indent = " " * 10
    return wrap(
        ", ".join(items),
        WIDTH,
        initial_indent=f"  {title:<8}",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _chooses(word: str) -> bool:
    """Whether an override is about a group of conf/, or Hydra's own business."""
    group = word.lstrip("+~").partition("=")[0].partition("@")[0]
    return group.partition(".")[0] == "hydra" or group.startswith("hydra/") or is_group(group)


def _choices(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in overrides if _chooses(word))


@cache
def _without_values(
    root: str, choices: tuple[str, ...], folders: tuple[Path, ...]
) -> tuple[tuple[str, ...], DictConfig]:
    """The files, and what they alone compose to; `folders` are those of conf/."""
    with nullcontext() if GlobalHydra.instance().is_initialized() else hydra_on_conf():  # a command may add folders
        defaults = GlobalHydra.instance().config_loader().compute_defaults_list(root, list(choices), RunMode.RUN)
        paths = [str(entry.config_path) for entry in defaults.defaults if not str(entry.package).startswith("hydra")]
        files = tuple(path for path in dict.fromkeys(paths) if path != "settings")  # which is code
        return files, files_alone(root, choices)[0]


def _value(config: DictConfig, key: str) -> Any:
    try:
        found = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # an interpolation that leads nowhere without the overrides
        return None
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return shorten(str(value).replace(" ", ""), 60)
