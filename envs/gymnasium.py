"""Any Gymnasium world (Towers et al., arXiv 2407.17032), stepped on the host: ``env=gymnasium env.id=Ant-v5``, or ``package:Id``.

A lane restarts in the step in which its episode ends (Gymnasium's SAME_STEP), and the true successor is kept apart from the restart.
``terminated`` and ``truncated`` are the world's own; Gymnasium's TimeLimit truncates. Observations become f32 and small integers
(``envs/observations.py``), rewards f32.

MiniGrid and BabyAI (Chevalier-Boisvert et al., arXiv 2306.13831) also give ``info["position"]`` (row, column), and their codes are
declared as narrow as they are (object 0 to 10, colour 0 to 5, state 0 to 3), so that the grid encoder can number them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as library
import numpy as np
from gymnasium import spaces

from envs import snapshot
from envs.base import HostEnvironment, HostLanes, Spec
from envs.builder import Anything, Entries, Integer, Refusal, Text, closest, extra_hint, locate, options
from envs.lanes import Recipe, open_lanes
from envs.observations import readable
from envs.single import settled, single

ROBOTICS = ("Fetch", "Hand", "AntMaze_", "PointMaze_", "Adroit", "FrankaKitchen")
REGISTERED_BY = {
    "MiniGrid-": "minigrid",
    "BabyAI-": "minigrid",
    "ALE/": "ale_py",
    **dict.fromkeys(ROBOTICS, "gymnasium_robotics"),
}  # packages that register ids when imported
MINIGRID_CODES = np.uint8([10, 5, 3])  # largest code of object, colour, state (minigrid.core.constants)


@options(
    id=Text("the id of a Gymnasium world, or package:Id"),
    arguments=Anything("arguments of gymnasium.make"),
    wrappers=Entries(),
    workers=Integer(0),
    text_size=Integer(0),
    info=Anything("names of numbers in the world's info"),
)
def gymnasium(
    *,
    id: str = "CartPole-v1",
    arguments: Mapping[str, Any] = {},  # noqa: B006 (never changed; the default that the configuration file has)
    wrappers: Sequence[Mapping[str, Any]] = (),
    workers: int = 0,
    text_size: int = 0,
    info: Sequence[str] = (),
) -> HostEnvironment:
    """The Gymnasium world ``id``.

    Args:
      id: a registered id; ``package:Id`` imports the package first.
      arguments: of ``gymnasium.make``.
      wrappers: entries with the import path of a Gymnasium wrapper under ``_target_`` and its keyword arguments, innermost first.
      workers: processes that step the lanes; 0 steps them in this one, which is faster for worlds that are quick to step.
      text_size: buckets for the words of instructions; 0 leaves text out of the observation.
      info: names in the world's info that are numbers or arrays of a fixed shape; they come with every step.

    Raises Refusal for an id, argument or wrapper that is not there, a package that is not installed, or a space without a fixed shape.
    """
    register(id)
    chosen = [functools.partial(locate(e["_target_"], "env.wrappers._target_"), **{k: v for k, v in e.items() if k != "_target_"}) for e in wrappers]

    def make(render: bool = False) -> library.Env:
        env = library.make(id, disable_env_checker=True, **{**arguments, **({"render_mode": "rgb_array"} if render else {})})
        for wrapper in chosen:
            env = wrapper(env)
        return env

    return hosted(id, make, workers, text_size, info)


def hosted(id: str, make: Callable[..., library.Env], workers: int, text_size: int = 0, info: Sequence[str] = ()) -> HostEnvironment:
    """The world that ``make(render=False)`` makes, called ``id`` in error lines; for builders of host worlds."""
    probe = first_made(id, make)
    try:
        spec, convert, found = described(id, probe, text_size, info)
        unsaved = snapshot.why_not(probe)
    finally:
        probe.close()
    recipe = Recipe(make, spec.observation, convert, spec.action, found, spec.name)

    def open_(lanes: int, render: bool = False) -> HostLanes:
        return open_lanes(recipe, lanes, workers, render, unsaved is None)

    alone, steerable = functools.partial(single, make, convert, unsaved is None), open_ if unsaved is None else None
    return HostEnvironment(spec, open_, unsaved, single=alone, steerable=steerable, settled=functools.cache(functools.partial(settled, make)))


def described(id: str, probe: library.Env, text_size: int, info: Sequence[str]) -> tuple[Spec, Callable, dict[str, tuple[spaces.Space, Callable]]]:
    """(spec, converter of observations, readers of info) of a world; resets and steps it to see its limit and its info."""
    probe.reset(seed=0)
    space, convert = readable(probe.observation_space, text_size)
    found: dict[str, tuple[spaces.Space, Callable]] = {}
    grid = None
    if is_minigrid(probe):
        space = narrowed(space)
        grid = (int(probe.unwrapped.height), int(probe.unwrapped.width))
        found["position"] = (spaces.Box(np.zeros(2, np.int32), np.int32([grid[0] - 1, grid[1] - 1]), dtype=np.int32), position)
    found |= {name: number(id, probe, name) for name in info}
    spec = Spec(
        observation=space,
        action=probe.action_space,
        name=id.rpartition(":")[2],
        max_steps=limit(probe),
        info={name: kind for name, (kind, _) in found.items()},
        grid=grid,
        success_return=0.05 if is_minigrid(probe) else getattr(probe.spec, "reward_threshold", None),
    )
    return spec, convert, found


def is_minigrid(env: library.Env) -> bool:
    return hasattr(env.unwrapped, "agent_pos") and hasattr(env.unwrapped, "grid")


def register(id: str) -> None:
    """Import the package that registers ``id``. Raises Refusal when it is not installed."""
    package = next((package for prefix, package in REGISTERED_BY.items() if id.startswith(prefix)), None)
    package = id.partition(":")[0] if ":" in id else package
    if package is None:
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # some print notices about other tasks than these
            module = importlib.import_module(package)
    except ImportError as error:
        name = getattr(error, "name", None) or package
        raise Refusal(f"env.id={id} needs the package {name!r}, which is not installed{extra_hint(name)}") from None
    if package in ("ale_py", "gymnasium_robotics"):
        library.register_envs(module)


def first_made(id: str, make: Callable[[], library.Env]) -> library.Env:
    """The first world of this kind; what Gymnasium says against it becomes a Refusal."""
    try:
        return make()
    except library.error.UnregisteredEnv:
        raise Refusal(f"env.id={id}: Gymnasium has no such world{closest(id, library.registry)}") from None
    except library.error.DependencyNotInstalled as error:
        package = "mujoco" if "mujoco" in str(error).lower() else None
        raise Refusal(f"env.id={id} needs a package that is not installed: {str(error).splitlines()[0]}{extra_hint(package)}") from None
    except (library.error.Error, TypeError, ValueError, ImportError, AttributeError) as error:
        raise Refusal(f"env.id={id} cannot be made with these arguments and wrappers: {type(error).__name__}: {str(error).splitlines()[0]}") from None


def limit(env: library.Env) -> int | None:
    """The limit on an episode's length, in steps: of the outermost TimeLimit, else the world's own."""
    for layer in snapshot.layers(env):
        if isinstance(layer, library.wrappers.TimeLimit):
            return int(layer._max_episode_steps)
    steps = getattr(env.unwrapped, "max_steps", None)
    return int(steps) if isinstance(steps, (int, np.integer)) and steps > 0 else None


def number(id: str, env: library.Env, name: str) -> tuple[spaces.Space, Callable]:
    """Space and reader of ``info[name]``, found by taking a step."""
    env.reset(seed=0)
    info = env.step(env.action_space.sample())[-1]
    if name not in info:
        raise Refusal(f"env.info: the world {id} gives no info {name!r}{closest(name, info)}")
    value = np.asarray(info[name])
    if value.dtype.kind not in "biuf":
        raise Refusal(f"env.info: info[{name!r}] of {id} is not a number but {type(info[name]).__name__}")
    dtype = np.float32 if value.dtype.kind == "f" else np.int32
    low, high = (-np.inf, np.inf) if dtype == np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return spaces.Box(low, high, value.shape, dtype), lambda _, info: info[name]


def position(env: library.Env, info: dict) -> np.ndarray:
    """(row, column) of the agent in MiniGrid, whose own order is (x, y)."""
    x, y = env.unwrapped.agent_pos
    return np.int32([y, x])


def narrowed(space: spaces.Space) -> spaces.Space:
    """MiniGrid declares its codes as any bytes; with the largest ones in the space, encoders know how many there are."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: narrowed(inner) for name, inner in space.spaces.items()})
    codes = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[-1] == 3 and max(space.shape[:2]) < 36
    if not codes:
        return space
    return spaces.Box(np.zeros(space.shape, np.uint8), np.broadcast_to(MINIGRID_CODES, space.shape), dtype=np.uint8)
