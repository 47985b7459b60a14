"""Overrides that nobody would write, from a seeded generator: each composes, or is refused in one line."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

import farout.config.compose
from farout.config.compose import compose_after, compose_settings
from farout.config.composition import composition_record, summary
from farout.config.settings import ROOT
from farout.errors import FaroutError

COUNT = 300
NASTY = r"""
null true nan inf -inf 0 -0 -1 1 1.5 1e400 1e-400 1_0 0x10 99999999999999999999999999 ??? '' " 'null' '???' a.b ../x
/nowhere .. . [] [[]] [1] [null] [a,b] {} {a:1} {a:{b:[1]}} [{a:1}] ${lr} ${seed} ${x} ${.} ${..} ${oc.env:NOWHERE}
${oc.env:NOWHERE,3} ${oc.decode:[} ${hydra:job.name} ${now:%Y} ${oc.create:{a:1}} '${lr}' '${x' ${ } { [ ] ) ( , ; ' \
\' # % & * ü 日本 !!x 1,2 range(3) glob(*) choice(1) interval(0,1) sort(3,1) int(x) str([1]) extend_list(1) os.system
farout.errors.FaroutError farout.scores cpu cuda:99 digits energy svhn@1 gaussian@0 blobs@99999999999
corruption_jigsaw@x """
VALUES = [*NASTY.split(), "", " ", "\x00", "\x1b[31m", "\u202e", "\udcff", "9" * 5000, "a" * 5000]
NAMES = """
hydra hydra.run.dir hydra/launcher hydra.sweeper hydra.job.name hydra.mode hydra/job_logging experiment defaults
_target_ a a.b a.b.c ü lr.x seed[0] .lr lr. ..lr lr..x LR l-r l/r method/ /method method.x score.msp.temperature
score.energy run init_from"""
KEYS = NAMES.split()
FORMS = ["{k}={v}"] * 12 + ["+{k}={v}", "++{k}={v}", "~{k}", "~{k}={v}", "{k}@{v}={v}", "{k}", "{k}=", "={v}"]
FORMS += ["{k}=={v}", "{k}={v}{v}", "{k} = {v}", "{k}=\n{v}", "+{k}", "{v}", "--{k}={v}", "{k}:{v}", "{k}=[{v}"]
FORMS += ["{k}={{a:{v}}}", "{k}='{v}"]


def leaves(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted, groups too."""
    for name, value in config.items_ex(resolve=False):
        yield f"{prefix}{name}"
        if isinstance(value, DictConfig):
            yield from leaves(value, f"{prefix}{name}.")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One Hydra for all compositions, which then reads each file once."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        one = GlobalHydra.instance().hydra

        @contextmanager
        def again() -> Iterator[None]:
            GlobalHydra.instance().hydra = one
            yield

        monkeypatch.setattr(farout.config.compose, "hydra_on_conf", again)
        yield


def words(chance: random.Random, keys: list[str]) -> list[str]:
    """One to three overrides; some of them with a character lost, doubled or changed."""
    found = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        word = chance.choice(FORMS).format(k=chance.choice(keys), v=chance.choice(VALUES))
        if word and chance.random() < 0.2:
            at = chance.randrange(len(word))
            word = word[:at] + chance.choice(("", word[at] * 2, chance.choice("=.[]{}'\"$,@~+ \n\\"))) + word[at + 1 :]
        found.append(word)
    return found


def outcome(given: list[str], root: str) -> str | None:
    """What is wrong with how these overrides end; None where they compose or are refused in one line.

    Of what they compose the first lines can be printed, and the record be written.
    """
    try:
        composition = compose_after([], given, root, None).composition
        assert composition is not None
        summary("NAME", composition)
        json.dumps(composition_record(composition))
    except FaroutError as error:
        message = str(error)
        return None if message and message.isprintable() else f"{given}: {message!r} is not one line"
    except Exception as error:
        return f"{given}: {type(error).__name__}: {error}"
    return None


def test_no_override_ends_in_a_traceback(kept: None) -> None:
    chance = random.Random(1)
    keys = [*leaves(hydra.compose("train", ["id_data=digits"])), *KEYS * 3]
    left, wrong = COUNT, []
    while left > 0:
        given = words(chance, keys)
        left -= len(given)
        wrong.append(outcome(given, chance.choice(("train", "eval"))))
    assert [each for each in wrong if each] == []


def test_the_generator_reaches_every_stage(kept: None) -> None:
    """Words that do not parse, names that do not exist, values of the wrong kind, and settings."""
    assert outcome(["lr=0.2"], "train") is None and compose_settings(["lr=0.2"]).schedule.lr == 0.2
    assert OmegaConf.is_config(hydra.compose("train"))
    messages = []
    for word in ("lr=[", "lrr=1", "lr=abc", "lr=-1", "method=null", "lr=${x}"):
        with pytest.raises(FaroutError) as raised:
            compose_settings([word])
        messages.append(str(raised.value))
    parts = (
        "cannot be read",
        "unknown option",
        "not a number",
        "must be positive",
        "is not there",
        "Interpolation key",
    )
    assert all(part in message for part, message in zip(parts, messages, strict=True)), messages
