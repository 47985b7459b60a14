"""A run's record as overrides of a command line: where `eval.py run=PATH` starts from.

The overrides of the record come first, those that were typed after them. So an option means what it means beside the
overrides that trained the run, and one that would have trained another run is found out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf

from farout.config.coerce import signature_of
from farout.config.compose import compose_after
from farout.config.renamed import SCALES
from farout.config.settings import IdData, OodData, Options, Schedule, Settings, TrainerSettings, defaults_of
from farout.engine.progress import say
from farout.errors import ConfigError
from farout.metrics.protocol import Protocol
from farout.places import conf_file, is_group
from farout.runs.records import read_record

Facts = Mapping[str, Any]

# Groups of which a run has one file, by the key of its identity; typing another file contradicts the run.
IDENTITY_GROUPS = ("method", "backbone", "transform", "id_data")
EVALUATION_GROUPS = ("ood_data", "protocol", "score")
EVALUATION_SCALARS = ("max_eval_images", "max_fit_images", "max_tune_images", "geometry_images", "linear_probe")
CORRUPTIONS = ("corruption_base", "corruption_split")
LEFT_OUT = defaults_of(Options, only_later=True)  # what an identity need not name
IMPORTED = "imported"  # the method of weights from elsewhere, of which nothing but the network is known


def evaluation_record(settings: Settings) -> dict[str, Any]:
    """What run.json keeps of how its command evaluates: no part of the identity, but what `run=PATH` starts from."""
    return {
        "ood_data": asdict(settings.ood_data),
        "protocol": asdict(settings.protocol),
        "scores": {score.name: score.arguments for score in settings.scores},
        "method_score": settings.method_score,
        **{key: getattr(settings.id_data, key) for key in CORRUPTIONS},
        **{key: getattr(settings, key) for key in EVALUATION_SCALARS},
    }


def named_run(words: Sequence[str]) -> Path | None:
    """The run folder that a command line names, where it is there."""
    named = [word.lstrip("+").removeprefix("run=") for word in words if re.match(r"\+*run=", word)]
    folder = Path(named[-1].strip("'\"")) if named else None
    with suppress(OSError, ValueError):  # a name that no folder can have
        return folder if folder is not None and (folder / "run.json").is_file() else None
    return None


def compose_evaluation(overrides: Sequence[str]) -> Settings:
    """The settings of `python eval.py OVERRIDES...`, without a command line; raises ConfigError in one line.

    With `run=PATH` the record of that run comes first.
    """
    return compose_after(overrides_before(overrides), overrides, "eval", list(overrides))


def overrides_before(words: Sequence[str]) -> list[str]:
    """What the record of the run that `words` name has to say before them; nothing where they name none.

    Raises ConfigError for a typed file of a group that is not the run's.
    """
    folder = named_run(words)
    if folder is None:
        return []
    record = read_record(folder)
    return record_as_overrides(record["identity"], record, words)


def record_as_overrides(identity: Facts, record: Facts, typed: Sequence[str] = ()) -> list[str]:
    """The overrides that a run's record amounts to, less those of groups that `typed` chooses anew.

    Values alone are taken from the record, never names of classes to build. Raises ConfigError as `overrides_before`.
    """
    chosen = _choices(typed)
    _check_choices(identity, record, chosen)
    if "experiment" in chosen:  # says all of it; whether it is the run's is seen when it is composed
        return [f"seed={identity['seed']}"] if "seed" in identity and not _imported(identity) else []
    words = [*_identity_words(identity, recorded_scale(record)), *_evaluation_words(record.get("evaluation") or {})]
    return [word for word in words if _key(word).partition(".")[0] not in chosen.keys() & set(EVALUATION_GROUPS)]


def check_agrees(settings: Settings, identity: Facts, name: str) -> None:
    """Raise ConfigError where an option that was typed differs from what the run was trained with."""
    typed = [_key(word) for word in settings.words or ()]
    everything = "experiment" in typed
    for key, ours, theirs in _compared(settings, identity):
        touched = everything or any(key == word or key.startswith(f"{word}.") for word in typed)
        if touched and ours != theirs:
            raise _contradiction(key, ours, theirs, name)
    precision, recorded = settings.trainer.precision, identity.get("precision")
    if "trainer.precision" in typed and recorded is not None and precision not in ("auto", recorded):
        raise _contradiction("trainer.precision", precision, recorded, name)
    if "init_from" in typed and (settings.init_from is None) != (identity.get("parent") is None):
        raise _contradiction("init_from", settings.init_from, identity.get("parent"), name)


def _contradiction(key: str, ours: Any, theirs: Any, name: str) -> ConfigError:
    shown = [_shown(value) for value in (ours, theirs)]
    return ConfigError(f"{key}={shown[0]} is not what {name} was trained with ({key}={shown[1]}): leave it out")


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace(" ", "")


def _key(word: str) -> str:
    """What an override sets: `++a.b@c=1` sets a.b."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _choices(words: Sequence[str]) -> dict[str, str]:
    """Group -> file, of the words that choose one; `score=[a,b]` chooses as well."""
    found = {}
    for word in words:
        key, sign, value = word.lstrip("+~").partition("=")
        group = key.partition("@")[0]
        if sign and group and is_group(group):
            found[group] = value
    return found


def recorded_scale(record: Facts) -> str | None:
    """The scale of a run's record, by the name that it has now."""
    scale = record.get("scale")
    return SCALES.get(scale, scale) if isinstance(scale, str) else None


def _imported(identity: Facts) -> bool:
    return (identity.get("method") or {}).get("name") == IMPORTED


def _name(identity: Facts, group: str) -> str | None:
    """The file of a group that the run was made with, by name; None where the record does not say."""
    value = identity.get(group)
    name = value.get("name") if isinstance(value, Mapping) else value
    return None if name is None else str(name).partition("@")[0]  # an own folder's set is named after its classes too


def _check_choices(identity: Facts, record: Facts, chosen: Mapping[str, str]) -> None:
    recorded = {group: _name(identity, group) for group in IDENTITY_GROUPS} | {"scale": recorded_scale(record)}
    for group, name in recorded.items():
        if group not in chosen or name in (None, IMPORTED) or not _is_file(group, chosen[group]):
            continue
        if chosen[group] != name:
            raise _contradiction(group, chosen[group], name, str(record.get("run") or "the run"))


def _is_file(group: str, name: object) -> bool:
    return bool(re.fullmatch(r"[\w-]+", str(name))) and conf_file(f"{group}/{name}").is_file()


def _identity_words(identity: Facts, scale: object) -> Iterator[str]:
    method = _name(identity, "method")
    names = {group: _name(identity, group) for group in IDENTITY_GROUPS}
    yield from (f"{group}={name}" for group, name in names.items() if _is_file(group, name))
    if _is_file("scale", scale) and _is_file(f"schedule/{scale}", method if _is_file("method", method) else "ce"):
        yield f"scale={scale}"
    for group in ("backbone", "transform"):
        if _is_file(group, names[group]):
            yield from _leaves(group, identity[group], _arguments(group, str(names[group])), but=("weights",))
    own = identity.get("id_data") or {}
    named_by_classes = ("name",) if "@" in str(own.get("name")) else ()
    yield from _leaves("id_data", own, [entry.name for entry in fields(IdData)], but=named_by_classes)
    if _imported(identity):
        return
    if _is_file("method", method):
        yield from _leaves("", identity["method"], _arguments("method", str(method)))
    yield from _leaves("", schedule_of(identity), [entry.name for entry in fields(Schedule)])
    given = {**LEFT_OUT, **{key: value for key, value in identity.items() if value is not None}}
    yield from _leaves("", given, ["seed", "holdout", "holdout_rule", "keep", "outliers", "outlier_order"])
    if identity.get("precision") in get_args(TrainerSettings.__annotations__["precision"]):
        yield f"trainer.precision={identity['precision']}"


def schedule_of(identity: Facts) -> dict[str, Any]:
    """A run's schedule with the fields that its identity leaves out at their defaults."""
    known = identity.get("schedule") or {}
    return {**defaults_of(Schedule, only_later=True), **known} if known else {}


def _arguments(group: str, name: str) -> list[str]:
    """What the class behind a file of a group takes; for a method also where its target lies one level deeper."""
    config = OmegaConf.load(conf_file(f"{group}/{name}"))
    return list(signature_of(str(OmegaConf.select(config, "method._target_" if group == "method" else "_target_"))))


def _evaluation_words(known: Facts) -> Iterator[str]:
    for group, kind in (("ood_data", OodData), ("protocol", Protocol)):
        if isinstance(facts := known.get(group), Mapping):
            if _is_file(group, facts.get("name")):
                yield f"{group}={facts['name']}"
            yield from _leaves(group, facts, [entry.name for entry in fields(kind)], but=())
    yield from _score_words(known.get("scores") or {})
    yield from _leaves("id_data", known, CORRUPTIONS)
    yield from _leaves("", known, EVALUATION_SCALARS)
    if _is_file("score", known.get("method_score")):
        yield f"method.score={known['method_score']}"


def _score_words(scores: Facts) -> Iterator[str]:
    there = [name for name in scores if _is_file("score", name)]
    for name in scores.keys() - set(there):
        say(f"  note: the run's score {name} has no file in conf/score: add it yourself")
    if there:
        yield f"score=[{','.join(there)}]"
    for name in there:
        yield from _leaves(f"score.{name}", scores[name], _arguments("score", name))


def _leaves(prefix: str, values: Facts, allowed: Sequence[str], but: Sequence[str] = ("name",)) -> Iterator[str]:
    """`++prefix.key=value` of the allowed keys; a value that no word can carry is passed over."""
    for key in allowed:
        if key in values and key not in (*but, "_target_") and (text := _literal(values[key])) is not None:
            yield f"++{prefix}{'.' if prefix else ''}{key}={text}"


def _literal(value: Any) -> str | None:
    """A value in the grammar of overrides; None where it has none (mappings), or would be looked up elsewhere."""
    if value is None or isinstance(value, bool):
        return _shown(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'" if "$" not in value and value.isprintable() else None
    parts = [_literal(item) for item in value] if isinstance(value, list) else [None]
    return None if None in parts else f"[{','.join(str(part) for part in parts)}]"


def _compared(settings: Settings, identity: Facts) -> Iterator[tuple[str, Any, Any]]:
    """(option, as composed, as recorded) of everything that an option can set and a record holds."""
    for group in ("backbone", "transform", "id_data"):
        ours: Facts = getattr(settings, group).record()
        yield from _pairs(f"{group}.", ours, identity.get(group) or {}, but=("weights",))
    if _imported(identity):
        return
    yield from _pairs("", settings.method.record(), identity.get("method") or {}, but=("name",))
    yield from _pairs("", asdict(settings.schedule), schedule_of(identity))
    known = {**LEFT_OUT, **identity}
    if known.get("outliers") is None:
        known = {key: value for key, value in known.items() if key not in ("outliers", "outlier_order")}
    for key in ("seed", "holdout", "holdout_rule", "keep", "outliers", "outlier_order"):
        if key in known:
            yield key, getattr(settings, key), known[key]


def _pairs(prefix: str, ours: Facts, theirs: Facts, but: Sequence[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    for key, value in theirs.items():
        if key in ours and key not in but:
            mine = ours[key]
            own_set = prefix == "id_data." and key == "name" and "@" not in str(mine)
            yield f"{prefix}{key}", mine, str(value).partition("@")[0] if own_set else value
