"""From a plain configuration to an experiment: the settings of the run, its members, and the function that makes a runner.

Everything is checked here, before jax compiles anything: keys, ranges, what a bonus needs and a world gives.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from agents.base import Agent
from envs.base import Environment, HostEnvironment, Spec
from envs.builder import LARGEST_WHOLE, Refusal, build, locate
from envs.wrappers import wrapped
from exploration.base import Archive, Bonus, Population
from exploration.intrinsic import Intrinsic, given, intrinsic
from runners.base import HostExplorer, HostRunner, HostSearch, Runner
from runners.batching import AXIS
from runners.checks import PARTS, check_parts, check_swept, parted, settings, whole_numbers
from runners.compose import flatten, get, put
from runners.ranges import MOST_MEMBERS


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
    complete = getattr(locate(config["runner"]["_target_"]), "completed", None)
    config["runner"] = complete(config["runner"]) if complete else config["runner"]
    swept = {path: list(values) if isinstance(values, (list, tuple)) else [values] for path, values in flatten(config["vmap"]).items()}
    for path, values in swept.items():
        check_swept(config, path, values)
    points = together(config)
    number = math.prod(map(len, swept.values())) * len(points) * len(config["seeds"])
    if number > MOST_MEMBERS:
        raise Refusal(f"seeds and vmap make {number:,} members; at most {MOST_MEMBERS:,} fit into one program: give fewer, or sweep with -m")
    combinations = [dict(zip(swept, values, strict=True)) | point for values in itertools.product(*swept.values()) for point in points]
    members = [Member(seed, hyper) for hyper in combinations for seed in config["seeds"]]
    if any(path.startswith("env.") for path in members[0].hyper):  # a world of its own for every member
        return Experiment(config, members, lambda hyper: make_runner(replaced(config, hyper)))

    @functools.cache
    def world() -> Environment | HostEnvironment:
        with jax.ensure_compile_time_eval():  # may be asked for first while jax traces
            return make_world(config)

    return Experiment(config, members, lambda hyper: make_runner(replaced(config, hyper), world()))


def together(config: dict[str, Any]) -> list[dict[str, float]]:
    """The points of ``zip``: the first values of all its lists, the second ones, and so on. Raises Refusal for lists that do not fit."""
    lists = {path: list(values) if isinstance(values, (list, tuple)) else [values] for path, values in flatten(config["zip"]).items()}
    for path, values in lists.items():
        check_swept(config, path, values, word="zip", repeats=True)
        if get(config["vmap"], path) is not None:
            raise Refusal(f"zip.{path} and vmap.{path} are both given; leave one out")
    lengths = {path: len(values) for path, values in lists.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"zip.{path} has {count}" for path, count in lengths.items())
        raise Refusal(f"the lists of zip go together, one value of each, so they must be equally long: {said}")
    points = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)] or [{}]
    if len({tuple(point.values()) for point in points}) != len(points):
        raise Refusal("zip names a point twice: the same run would be counted as two")
    return points


def make_world(config: Mapping[str, Any]) -> Environment | HostEnvironment:
    world, wrappers = parted("env", config["env"])
    made = build(world)
    return wrapped(expect(made, (Environment, HostEnvironment), "env", world["_target_"]), **wrappers)


def make_runner(config: Mapping[str, Any], world: Environment | HostEnvironment | None = None) -> Runner | HostRunner | HostExplorer | HostSearch:
    """The runner of one member, in ``world`` if that is made already. Called while tracing: hyper-parameters may be traced scalars."""
    env = make_world(config) if world is None else world
    exploration, stream = parted("exploration", config["exploration"])

    def make_agent(spec: Spec) -> Agent:
        return expect(build(config["agent"], spec), (Agent,), "agent", config["agent"]["_target_"])

    def make_exploration(spec: Spec) -> Intrinsic | Archive | Population:
        spec = given(spec, stream.get("input", "observation"))
        found = expect(build(exploration, spec), (Bonus, Archive, Population), "exploration", exploration["_target_"])
        return intrinsic(spec, found, name=exploration["_target_"], **stream) if isinstance(found, Bonus) else found

    runner = dict(config["runner"])
    made = locate(runner.pop("_target_"))(env, make_agent, make_exploration, axis=AXIS, **runner)
    return expect(made, (Runner, HostRunner, HostExplorer, HostSearch), "runner", config["runner"]["_target_"])


def expect(made: Any, records: tuple[type, ...], part: str, target: str) -> Any:
    """``made``, if it is one of ``records``."""
    if not isinstance(made, records):
        wanted = " or ".join(record.__name__ for record in records)
        raise Refusal(f"{part}._target_={target} makes a {type(made).__name__}, not an {wanted}")
    return made


def replaced(config: Mapping[str, Any], hyper: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the values of ``hyper`` ({'exploration.scale': x}) put in."""
    made = {key: dict(value) if key in PARTS else value for key, value in config.items()}
    for path, value in hyper.items():
        put(made, path, value)
    return made


def iterations_of(total_steps: int, steps_per_iteration: int) -> int:
    """Iterations that give at least ``total_steps`` environment steps."""
    iterations = -(-total_steps // steps_per_iteration)
    if iterations > LARGEST_WHOLE:
        raise Refusal(f"total_steps={total_steps:,} are {iterations:,} iterations of {steps_per_iteration:,} steps; at most 2^31 - 1 can be counted")
    return iterations
