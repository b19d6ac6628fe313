"""From a plain configuration to an experiment: the settings of the run, its members, and the function that makes a runner.

Everything is checked here, before jax compiles anything: keys, ranges, what a bonus needs and a world gives.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from envs.base import Environment, HostEnvironment, Spec
from envs.builder import FLAG, Anything, Choice, Integer, Optional, Refusal, build, check, closest, locate, ranges_of
from envs.wrappers import wrapped
from exploration.intrinsic import Intrinsic, intrinsic
from runners import views
from runners.base import HostRunner, Runner
from runners.batching import AXIS, BATCHINGS
from runners.compose import flatten


class CountOrSteps(NamedTuple):
    """How many, or a list of environment steps; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        listed = isinstance(value, (list, tuple)) and all(Integer(1).accepts(v) for v in value)
        return listed or Integer(0).accepts(value)

    def describe(self) -> str:
        return "a whole number in [0, inf], or a list of environment steps, as [10000,50000]"


PARTS = ("env", "agent", "runner", "exploration")
SETTINGS = {
    "seeds": Anything("a count, or a list of whole numbers, as [0,1,2]"),
    "total_steps": Integer(1),
    "vmap": Anything(),
    "run_dir": Anything(),
    "overwrite": FLAG,
    "batching": Choice(("auto", *BATCHINGS)),
    "segments": Integer(1),
    "evaluations": CountOrSteps(),
    "debug": FLAG,
    "checkpoint.seconds": Integer(0),
    "checkpoint.keep": Integer(1),
    **views.SETTINGS,
}
STREAM = tuple(p for p in inspect.signature(intrinsic).parameters if p not in ("spec", "bonus", "name"))
WORLD = tuple(p for p in inspect.signature(wrapped).parameters if p != "env")
SHARED = {"exploration": (intrinsic, STREAM), "env": (wrapped, WORLD)}  # every entry of the part has these keys beside its builder's own


class Member(NamedTuple):
    """One line of every table: a seed, with one value for each traced hyper-parameter."""

    seed: int
    hyper: dict[str, float]

    def label(self) -> str:
        return " ".join([f"seed={self.seed}", *(f"{path}={value:g}" for path, value in self.hyper.items())])


class Experiment(NamedTuple):
    config: dict[str, Any]  # resolved, plain
    members: list[Member]
    make_runner: Callable[[dict[str, Any]], Runner]  # traced hyper-parameters of one member -> Runner

    @property
    def name(self) -> str:
        part = lambda name: self.config[name]["_target_"].rpartition(".")[2]  # noqa: E731
        world = self.config["env"].get("id") or self.config["env"].get("game") or part("env")
        return "-".join(str(x).replace("/", "_").replace(":", "_") for x in (world, part("agent"), part("exploration")))


def experiment(config: Mapping[str, Any]) -> Experiment:
    """The checked experiment of a resolved configuration. Raises Refusal for the first thing that is wrong."""
    config = {key: value for key, value in config.items()}
    for part in PARTS:
        if not isinstance(config.get(part), Mapping) or "_target_" not in config[part]:
            raise Refusal(f"{part} is missing from the configuration; choose one, as {part}=...")
    settings(config)
    for part in PARTS:
        config[part] = whole_numbers(part, config[part])
    check_parts(config)
    swept = {path: list(values) if isinstance(values, (list, tuple)) else [values] for path, values in flatten(config["vmap"]).items()}
    for path, values in swept.items():
        check_swept(config, path, values)
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    members = [Member(seed, hyper) for hyper in combinations for seed in config["seeds"]]
    if any(path.startswith("env.") for path in swept):  # a world of its own for every member
        return Experiment(config, members, lambda hyper: make_runner(replaced(config, hyper)))

    @functools.cache
    def world() -> Environment | HostEnvironment:
        with jax.ensure_compile_time_eval():  # may be asked for first while jax traces
            return make_world(config)

    return Experiment(config, members, lambda hyper: make_runner(replaced(config, hyper), world()))


def settings(config: dict[str, Any]) -> None:
    """Check and complete the top-level settings, in place."""
    unknown = set(config) - {k.split(".")[0] for k in SETTINGS} - set(PARTS)
    if unknown:
        raise Refusal(f"unknown key {min(unknown)}{closest(min(unknown), [*SETTINGS, *PARTS])}")
    config.setdefault("logger", views.without())
    check_grouped(config)
    for key, legal in SETTINGS.items():
        value = get(config, key)
        if isinstance(value, float) and value.is_integer() and isinstance(legal, Integer):
            value = int(value)
            put(config, key, value)
        if not legal.accepts(value):
            raise Refusal(f"{key}={value!r} is not legal: it must be {legal.describe()}")
    seeds = config["seeds"]
    if Integer(1).accepts(seeds):
        seeds = list(range(seeds))
    if not (isinstance(seeds, (list, tuple)) and seeds and all(Integer(0, 2**32 - 1).accepts(s) for s in seeds)):
        raise Refusal(f"seeds={config['seeds']!r} is not legal: it must be {SETTINGS['seeds'].describe()}")
    if len(set(seeds)) != len(seeds):
        raise Refusal(f"seeds={seeds} names a seed twice: the same run would be counted as two")
    config["seeds"] = list(seeds)


def check_grouped(config: Mapping[str, Any]) -> None:
    """Settings with a dot in their name are where they belong, and nothing else is there (checkpoint=5, +logger.foo=1)."""
    given = flatten({key: value for key, value in config.items() if key not in (*PARTS, "vmap")})
    for key, value in given.items():
        inside = [name for name in SETTINGS if name.startswith(key + ".")]
        if inside:
            raise Refusal(f"{key}={value!r} is not legal: it holds {', '.join(inside)}; set one of these")
        if key not in SETTINGS:
            raise Refusal(f"unknown key {key}{closest(key, SETTINGS)}")
    for key in SETTINGS:
        if key not in given and key != "vmap":
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
    names = SHARED[part][1] if part in SHARED else ()
    return tuple(name for name in names if part != "env" or name not in ranges_of(builder))


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
        check(locate(own.pop("_target_")), own, part)


def check_swept(config: Mapping[str, Any], path: str, values: list[Any]) -> None:
    """A ``vmap.<path>`` must name a number that may be traced, with legal values only."""
    part, _, name = path.partition(".")
    if part not in PARTS or not name or "." in name:
        raise Refusal(f"vmap.{path}: only numbers of {', '.join(PARTS)} can differ between members, as vmap.exploration.scale=[0.1,1]")
    builder = locate(config[part]["_target_"])
    ranges = entry_ranges(part, builder)
    if name not in ranges:
        legal = [n for n, kind in ranges.items() if kind.traceable]
        raise Refusal(f"vmap.{path}: {builder.__name__} takes no {name!r}{closest(name, legal)}")
    if not ranges[name].traceable:
        advice = f"sweep it with -m {path}={','.join(map(str, values))}"
        raise Refusal(f"vmap.{path}: {name} decides the shape of the program and cannot differ inside one; {advice}")
    if not values:
        raise Refusal(f"vmap.{path} is empty; give at least one value, as vmap.{path}=[0.1,1]")
    for value in values:
        if value is None or not ranges[name].accepts(value):
            raise Refusal(f"vmap.{path}: {value!r} is not legal: it must be {ranges[name].describe()}")


def make_world(config: Mapping[str, Any]) -> Environment | HostEnvironment:
    world, wrappers = parted("env", config["env"])
    return wrapped(build(world), **wrappers)


def make_runner(config: Mapping[str, Any], world: Environment | HostEnvironment | None = None) -> Runner | HostRunner:
    """The runner of one member, in ``world`` if that is made already. Called while tracing: hyper-parameters may be traced scalars."""
    env = make_world(config) if world is None else world
    exploration, stream = parted("exploration", config["exploration"])

    def make_intrinsic(spec: Spec) -> Intrinsic:
        return intrinsic(spec, build(exploration, spec), name=exploration["_target_"], **stream)

    runner = dict(config["runner"])
    return locate(runner.pop("_target_"))(env, lambda spec: build(config["agent"], spec), make_intrinsic, axis=AXIS, **runner)


def replaced(config: Mapping[str, Any], hyper: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the values of ``hyper`` ({'exploration.scale': x}) put in."""
    made = {key: dict(value) if key in PARTS else value for key, value in config.items()}
    for path, value in hyper.items():
        put(made, path, value)
    return made


def get(tree: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        tree = tree[key]
    tree[last] = value


def iterations_of(total_steps: int, steps_per_iteration: int) -> int:
    """Iterations that give at least ``total_steps`` environment steps."""
    return math.ceil(total_steps / steps_per_iteration)
