"""Configuration files, builders and the table of cases say the same thing."""

from __future__ import annotations

import importlib
import inspect
import itertools
import math
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from envs.builder import Refusal, build, check, locate, ranges_of
from envs.wrappers import wrapped
from exploration.intrinsic import intrinsic
from runners.checks import STREAM, WORLD, check_parts, makes, shared
from runners.compose import CONFIGS, PRESETS, compose
from runners.experiment import experiment
from tests.laws.cases import ARCHIVES, BONUSES, COMBINED, NESTED, POPULATIONS, TABLES, entry_of, targets

GROUPS = tuple(TABLES)
RECORDS = {"env": ("envs", "Environment"), "agent": ("agents", "Agent"), "exploration": ("exploration", "Bonus"), "runner": ("runners", "Runner")}
GIVEN_BY_THE_PROGRAM = {"axis"}  # arguments of runners that nobody writes in a file
OPTIONS = [(group, file.relative_to(CONFIGS / group).with_suffix("").as_posix()) for group in GROUPS for file in sorted((CONFIGS / group).rglob("*.yaml"))]
METHODS = [(group, option) for group, option in OPTIONS if option != "custom"]
IDS = [f"{group}={option}" for group, option in METHODS]
each_option = pytest.mark.parametrize(("group", "option"), METHODS, ids=IDS)


def read(group: str, option: str) -> dict[str, Any]:
    """The entry of a file. Of its ``defaults``, which are Hydra's, ``sac@task`` puts an option of the same group under a key; others are no part of it."""
    found = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{option}.yaml"))
    inner = [line.split("@") for line in found.pop("defaults", []) if isinstance(line, str) and "@" in line]
    return {key: read(group, name) for name, key in inner} | found


def keyword_only(builder: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(builder).parameters.items()
    return {name: p for name, p in found if p.kind is p.KEYWORD_ONLY and name not in GIVEN_BY_THE_PROGRAM}


def plain(value: Any) -> Any:
    """Tuples as the lists of a file; 1 and 1.0 are not the same number here."""
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else (type(value), value)


def pays(option: str) -> bool:
    """Whether the option has a reward stream; ``none`` has not, and archives and populations have not."""
    if option in ARCHIVES | POPULATIONS:
        return False
    case = BONUSES[option]
    return build(case.entry, case.spec()).info.intrinsic


def builders() -> dict[str, Any]:
    """Import path -> builder, of all files and all cases."""
    named = {read(group, option)["_target_"] for group, option in METHODS}
    named |= {t for table in TABLES.values() for row in table.values() for t in targets(entry_of(row))}
    return {target: locate(target) for target in sorted(named)} | {"exploration.intrinsic.intrinsic": intrinsic, "envs.wrappers.wrapped": wrapped}


def declared_builders() -> list[str]:
    """Public functions of the project that declare ranges and make an Environment, Agent, Bonus or Runner."""
    found = []
    for package, record in RECORDS.values():
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
            for name, made in vars(importlib.import_module(module.name)).items():
                ours = inspect.isfunction(made) and made.__module__ == module.name and hasattr(made, "ranges")
                if ours and makes(made) in (record, "Archive", "Population"):
                    found.append(f"{module.name}.{name}")
    return found


@pytest.mark.parametrize(
    "agent", ["dqn", "rainbow", "bootstrapped_dqn", "sac", "redq", "droq", "td3", "max_info_sac", "max_info_redq", "epsilon_max_info", "drq"]
)
def test_replay_agents_bring_their_runner(agent):
    assert compose([f"agent={agent}"])["runner"]["_target_"] == "runners.off_policy.off_policy"
    assert compose([f"agent={agent}", "runner=on_policy"])["runner"]["_target_"] == "runners.on_policy.on_policy"  # what is typed wins


# --- the table ---------------------------------------------------------------------------------------------------------


@each_option
def test_every_option_has_a_case(group, option):
    rows = {name for name in TABLES[group] if name == option or name.startswith(option + "/")}
    assert rows, f"add a row {option!r} to the table of {group} in tests/laws/cases.py"
    wanted = read(group, option)["_target_"]
    assert {entry_of(TABLES[group][row])["_target_"] for row in rows} == {wanted}, "the rows build something else than the file does"


@pytest.mark.parametrize("target", declared_builders())
def test_every_builder_has_a_case(target):
    assert target in builders(), f"add a row that builds {target} to tests/laws/cases.py"


def test_every_case_stands_for_an_option():
    combining = set(COMBINED) | set(NESTED)
    for group, table in TABLES.items():
        unknown = {name for name in table if name not in combining} - {n for n in table for _, o in METHODS if n == o or n.startswith(o + "/")}
        assert not unknown, f"{group}: no file under configs/{group} is named like {unknown}"


# --- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_the_first_line_says_what_it_is(group, option):
    """``farlands list`` shows it."""
    first = Path(CONFIGS / group / f"{option}.yaml").read_text().partition("\n")[0]
    assert first.startswith("# ") and len(first) > 10


@each_option
def test_keys_are_the_builders_arguments(group, option):
    written = read(group, option)
    builder = locate(written.pop("_target_"), f"{group}._target_")
    wanted = set(keyword_only(builder))
    if group != "exploration" or pays(option):
        wanted |= set(shared(group, builder))
    assert set(written) == wanted


def test_parts_of_ones_own_have_the_shared_keys_only():
    assert set(read("exploration", "custom")) == {"_target_", *STREAM}
    assert set(read("env", "custom")) == {"_target_", *WORLD}


@each_option
def test_values_are_the_builders_defaults(group, option):
    """Documentation that is wrong is worse than none: what the file shows is what the function does without it."""
    written = read(group, option)
    parameters = keyword_only(locate(written.pop("_target_")))
    if group == "exploration" and option == "custom":  # elsewhere the stream's options are chosen for the bonus
        parameters |= {name: inspect.signature(intrinsic).parameters[name] for name in STREAM}
    if group == "env":
        parameters = {name: inspect.signature(wrapped).parameters[name] for name in WORLD} | parameters
    told = {name: plain(value) for name, value in written.items() if name in parameters and parameters[name].default is not inspect.Parameter.empty}
    assert told == {name: plain(parameters[name].default) for name in told}


@each_option
def test_values_are_in_range(group, option):
    check_parts({group: read(group, option)})


@each_option
def test_composes_with_the_defaults(group, option):
    """``farlands train group=option`` gets as far as compiling: nothing is missing, nothing unknown, nothing out of range."""
    made = experiment(compose([f"{group}={option}"]))
    assert made.config[group]["_target_"] == read(group, option)["_target_"]


@pytest.mark.parametrize(("group", "option"), {group: option for group, option in METHODS}.items())
def test_a_mistyped_key_is_refused(group, option):
    with pytest.raises(Refusal, match="unknown key"):
        compose([f"{group}={option}", f"{group}.no_such_key=1"])


# --- builders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", builders())
def test_every_argument_has_a_range(target):
    """Declared, or of an obvious kind: a default that is a float is any real number."""
    builder = builders()[target]
    declared = getattr(builder, "ranges", {})
    bare = [name for name, p in keyword_only(builder).items() if name not in declared and not isinstance(p.default, float)]
    assert not bare, f"@options of {target} leaves out {bare}"


@pytest.mark.parametrize("target", builders())
def test_ranges_accept_the_defaults_and_refuse_nonsense(target):
    builder = builders()[target]
    kinds, parameters = ranges_of(builder), keyword_only(builder)
    for name, parameter in parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert kinds[name].accepts(parameter.default), name
        assert isinstance(kinds[name].describe(), str)
        if kinds[name].traceable:
            assert not kinds[name].accepts(math.nan) and not kinds[name].accepts("1") and not kinds[name].accepts(True), name


@pytest.mark.parametrize("target", [t for t in builders() if t.startswith("exploration.") and t != "exploration.intrinsic.intrinsic"])
def test_no_bonus_takes_an_option_of_the_stream(target):
    """An entry's ``scale``, ``discount``, ``episodic``, ``normalize`` and ``clip`` go to the stream: the bonus would never see them."""
    assert not set(keyword_only(builders()[target])) & set(STREAM)


@pytest.mark.parametrize("name", sorted(BONUSES))
def test_cases_are_legal_entries(name):
    """Rows obey the declared ranges, inner entries too."""

    def walk(part):
        if isinstance(part, dict):
            check(locate(part["_target_"]), {k: v for k, v in part.items() if k != "_target_"}, "exploration")
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else ():
            if isinstance(inner, (dict, list, tuple)):
                walk(inner)

    walk(BONUSES[name].entry)


PRESET_NAMES = [f"{group}={file.relative_to(CONFIGS / group).with_suffix('')}" for group in PRESETS for file in (CONFIGS / group).rglob("*.yaml")]


@pytest.mark.parametrize("preset", sorted(PRESET_NAMES))
def test_presets_are_runs(preset):
    """Every preset composes into a run, and says in its first comment what it is."""
    group, _, option = preset.partition("=")
    experiment(compose([preset]))
    assert (CONFIGS / group / f"{option}.yaml").read_text().splitlines()[1].startswith("# ")


def commands_in_comments() -> list[str]:
    """What presets say to run beside them: words from ``paper=`` or ``experiment=`` on, as long as they are settings."""
    found = []
    for group in PRESETS:
        for file in (CONFIGS / group).rglob("*.yaml"):
            for line in file.read_text().splitlines():
                words = line.split() if line.startswith("# ") else []
                for start in (n for n, word in enumerate(words) if word.startswith(tuple(f"{g}=" for g in PRESETS))):
                    settings = list(itertools.takewhile(lambda word: "=" in word, (word.rstrip(",;.") for word in words[start:])))
                    ended = [n for n, word in enumerate(words[start : start + len(settings)]) if word[-1] in ",;."]
                    found.append(" ".join(settings[: ended[0] + 1] if ended else settings))
    return sorted(set(found))


def test_presets_name_commands():
    assert len(commands_in_comments()) > 10


@pytest.mark.parametrize("command", commands_in_comments())
def test_what_presets_say_to_run_can_be_run(command):
    experiment(compose(command.split()))
