"""What a configuration may say: the ranges of a run's settings, of the arguments of its parts, and of what differs between members.

Everything here looks at plain values and at what builders declare; nothing is built, and jax compiles nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from envs.builder import FLAG, Anything, Choice, Entries, Integer, Optional, Refusal, Text, check, closest, locate, ranges_of
from envs.wrappers import wrapped
from exploration.intrinsic import intrinsic
from runners import distributed, goals, views
from runners.batching import BATCHINGS
from runners.compose import flatten, get, put
from runners.ranges import MOST_STEPS, CountOrSteps, Runs, Seeds, Words

PARTS = ("env", "agent", "runner", "exploration")
SETTINGS = {
    "seeds": Seeds(),
    "total_steps": Integer(1, MOST_STEPS),
    "stop_at": Optional(Integer(1, MOST_STEPS)),
    "stop_when": Optional(goals.Goal()),
    "vmap": Anything(),
    "zip": Anything(),
    "run_dir": Optional(Text("a folder, as runs/mine")),
    "overwrite": FLAG,
    "init_from": Optional(Text("a finished run")),
    "continues": Optional(Runs()),
    "after": Optional(Words()),
    "export": Anything(),
    "phase": Optional(Choice(("explore", "demonstrate", "robustify", "evaluate"))),
    "batching": Choice(("auto", *BATCHINGS)),
    "segments": Integer(1, 1_000_000),
    "evaluations": CountOrSteps(),
    "debug": FLAG,
    "profile": FLAG,
    "checkpoint.seconds": Integer(0),
    "checkpoint.keep": Integer(1),
    **distributed.SETTINGS,
    **views.SETTINGS,
}
OPEN = ("vmap", "zip", "export")  # with keys of their own, that no file has
STREAM = tuple(p for p in inspect.signature(intrinsic).parameters if p not in ("spec", "bonus", "name"))
WORLD = tuple(p for p in inspect.signature(wrapped).parameters if p != "env")
SHARED = {"exploration": (intrinsic, STREAM), "env": (wrapped, WORLD)}  # every entry of the part has these keys beside its builder's own


def settings(config: dict[str, Any]) -> None:
    """Check and complete the top-level settings, in place."""
    unknown = set(config) - {k.split(".")[0] for k in SETTINGS} - set(PARTS)
    if unknown:
        raise Refusal(f"unknown key {min(unknown)}{closest(min(unknown), [*SETTINGS, *PARTS])}")
    config.setdefault("logger", views.without())  # runs from before these settings have none
    config.setdefault("distributed", distributed.without())
    config.setdefault("profile", False)
    config.setdefault("init_from", None)
    for later in ("stop_at", "stop_when", "continues", "after", "phase"):
        config.setdefault(later, None)
    config.setdefault("zip", {})
    config.setdefault("export", {})
    check_grouped(config)
    for key, legal in SETTINGS.items():
        value = get(config, key)
        kind = legal.inner if isinstance(legal, Optional) else legal
        if isinstance(value, float) and value.is_integer() and abs(value) <= MOST_STEPS and isinstance(kind, (Integer, Seeds, CountOrSteps)):
            value = int(value)
            put(config, key, value)
        if not legal.accepts(value):
            raise Refusal(f"{key}={value!r} is not legal: it must be {legal.describe()}")
    if config["stop_at"] and config["stop_at"] > config["total_steps"]:
        raise Refusal(f"stop_at={config['stop_at']} is beyond total_steps={config['total_steps']}; a longer run is total_steps=...")
    if config["continues"] and config["init_from"]:
        raise Refusal("continues and init_from are both given; leave one out")
    seeds = config["seeds"]
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if len(set(seeds)) != len(seeds):
        raise Refusal(f"seeds={seeds} names a seed twice: the same run would be counted as two")
    config["seeds"] = seeds


def check_grouped(config: Mapping[str, Any]) -> None:
    """Settings with a dot in their name are where they belong, and nothing else is there (checkpoint=5, +logger.foo=1)."""
    given = flatten({key: value for key, value in config.items() if key not in (*PARTS, *OPEN)})
    for key, value in given.items():
        inside = [name for name in SETTINGS if name.startswith(key + ".")]
        if inside:
            raise Refusal(f"{key}={value!r} is not legal: it holds {', '.join(inside)}; set one of these")
        if key not in SETTINGS:
            raise Refusal(f"unknown key {key}{closest(key, SETTINGS)}")
    for key in SETTINGS:
        if key not in given and key not in OPEN:
            raise Refusal(f"{key} is missing from the configuration; give it, as {key}=...")


def whole_numbers(part: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """``entry`` with floats that are whole (1e5) turned into the integers that its builder wants."""
    kinds = entry_ranges(part, locate(entry["_target_"], f"{part}._target_"))

    def fix(name, value):
        kind = kinds.get(name)
        kind = kind.inner if isinstance(kind, Optional) else kind
        return int(value) if isinstance(kind, Integer) and isinstance(value, float) and value.is_integer() else value

    return {name: fix(name, value) for name, value in entry.items()}


def shared(part: str, builder: Callable) -> tuple[str, ...]:
    """The keys of an entry that do not go to its builder. A world's builder that takes one of them itself is given it."""
    names = SHARED[part][1] if part in SHARED and makes(builder) not in ("Archive", "Population") else ()
    return tuple(name for name in names if part != "env" or name not in ranges_of(builder))


def makes(builder: Callable) -> str:
    """The record that a builder says it returns; "" where it does not say."""
    found = inspect.signature(builder).return_annotation
    return "" if found is inspect.Signature.empty else getattr(found, "__name__", str(found)).split(".")[-1]


def entry_ranges(part: str, builder: Callable) -> dict[str, Any]:
    """Range of every key of an entry: those of its builder, and the shared ones."""
    return ranges_of(builder) | {name: ranges_of(SHARED[part][0])[name] for name in shared(part, builder)}


def parted(part: str, entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what goes to the builder, with its _target_; the shared keys)."""
    apart = shared(part, locate(entry["_target_"], f"{part}._target_"))
    return {k: v for k, v in entry.items() if k not in apart}, {k: v for k, v in entry.items() if k in apart}


def check_parts(config: Mapping[str, Any]) -> None:
    """Refuse the first argument of a part that is unknown, missing or out of range."""
    for part in [p for p in PARTS if p in config]:
        own, apart = parted(part, config[part])
        if apart:
            check(SHARED[part][0], apart, part)
        check_entry(part, own, part)


POSITIONAL = {"env": 0, "agent": 1, "exploration": 1, "runner": 3}  # arguments that the program gives to a builder, before those of the entry


def check_entry(part: str, entry: Mapping[str, Any], at: str) -> None:
    """Check an entry's arguments against its builder, and those of the entries inside it."""
    arguments = {name: value for name, value in entry.items() if name != "_target_"}
    builder = locate(entry["_target_"], f"{at}._target_")
    check(builder, arguments, at)
    try:
        inspect.signature(builder).bind(*[None] * POSITIONAL[part], **arguments)
    except TypeError as error:
        raise Refusal(f"{at}._target_={entry['_target_']} cannot be called as a builder for {part}: {error}") from None
    ranges = ranges_of(builder)
    for name, value in arguments.items():
        if not isinstance(ranges.get(name), Entries):  # those belong to the builder
            for inner in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(inner, Mapping) and "_target_" in inner:
                    check_entry(part, inner, f"{at}.{name}")


def check_swept(config: Mapping[str, Any], path: str, values: list[Any], word: str = "vmap", repeats: bool = False) -> None:
    """A ``vmap.<path>`` (or ``zip.<path>``) must name a number that may be traced, with legal values only."""
    part, _, name = path.partition(".")
    if part not in PARTS or not name or "." in name:
        raise Refusal(f"{word}.{path}: only numbers of {', '.join(PARTS)} can differ between members, as vmap.exploration.scale=[0.1,1]")
    builder = locate(config[part]["_target_"])
    ranges = entry_ranges(part, builder)
    if name not in ranges:
        legal = [n for n, kind in ranges.items() if kind.traceable]
        raise Refusal(f"{word}.{path}: {builder.__name__} takes no {name!r}{closest(name, legal)}")
    if not ranges[name].traceable:
        advice = f"sweep it with -m {path}={','.join(map(str, values))}"
        raise Refusal(f"{word}.{path}: {name} decides the shape of the program and cannot differ inside one; {advice}")
    if not values:
        raise Refusal(f"{word}.{path} is empty; give at least one value, as {word}.{path}=[0.1,1]")
    for value in values:
        if value is None or not ranges[name].accepts(value):
            raise Refusal(f"{word}.{path}: {value!r} is not legal: it must be {ranges[name].describe()}")
    if not repeats and len(set(values)) != len(values):
        raise Refusal(f"{word}.{path}={values} names a value twice: the same run would be counted as two")
