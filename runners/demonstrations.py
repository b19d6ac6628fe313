"""Demonstrations: actions from a start of the world, read from files, and made again in the world with a state of it at every step.

A file of ``farlands demonstrate``, or an .npz of one's own with ``actions`` [T, ...] and, if they are known, ``rewards`` [T] and ``origin`` u32[2] (the key
of the reset); the folder of a run, for the files in its ``demonstrations/``; or the folder of a data set in minari's format, an episode each.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, HostEnvironment, Lanes, undisturbed
from envs.builder import Refusal
from envs.single import SEED
from runners import dataset
from runners.dataset import Episodes

LARGEST = 2**31  # bytes: the compiler takes no larger constants


class Demonstration(NamedTuple):
    name: str
    actions: np.ndarray  # [T, ...]
    rewards: np.ndarray | None  # f32[T]; None: not known, so not compared
    origin: np.ndarray  # u32[2]; key of the reset
    world: str | None = None  # where it was made, if that is known


class Replayed(NamedTuple):
    """D demonstrations of at most L steps, made again."""

    states: Lanes  # [D, L + 1, ...]; before each step, and after the last; of the host's worlds numpy, and ``world`` is snapshots, [D][n + 1]
    actions: jax.Array | np.ndarray  # [D, L, ...]
    rewards: jax.Array | np.ndarray  # f32[D, L]; 0 beyond the end
    returns: np.ndarray  # f32[D, L + 1]; rewards so far; beyond the end the final one
    lengths: np.ndarray  # i32[D]
    terminated: np.ndarray  # bool[D]; by their last step


def are(path: str) -> bool:
    """Whether there are demonstrations at a path, rather than a data set."""
    return Path(path).is_file() or (Path(path) / "config.yaml").exists()


def read(paths: str | Sequence[str]) -> list[Demonstration]:
    """Raises Refusal where there is none, or one cannot be read."""
    found = [made for path in ([paths] if isinstance(paths, str) else paths) for made in _of(Path(path))]
    for made in found:
        if not len(made.actions):
            raise Refusal(f"{made.name}: this demonstration has no actions; leave it out")
    return found


def _of(path: Path) -> list[Demonstration]:
    if path.is_file():
        return [_of_file(path)]
    if (path / "config.yaml").exists():
        files = sorted((path / "demonstrations").glob("*.npz"))
        if not files:
            raise Refusal(f"{path} has no demonstrations yet; scripts/farlands demonstrate {path} which=end writes one")
        return [_of_file(file) for file in files]
    if path.is_dir():
        return _of_dataset(path)
    raise Refusal(f"runner.demonstrations={path}: there is no such file or folder; give a run, an .npz, or a data set in minari's format")


def _of_file(path: Path) -> Demonstration:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("actions", "rewards", "origin", "meta") if name in file}
        world = json.loads(str(arrays["meta"])).get("world") if "meta" in arrays else None
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise Refusal(f"{path} cannot be read as a demonstration: {' '.join(str(error).split())[:100]}") from None
    if "actions" not in arrays or arrays["actions"].ndim == 0:
        raise Refusal(f"{path} has no array 'actions' [steps, ...]; numpy.savez(FILE, actions=...) writes one")
    rewards = arrays.get("rewards")
    if rewards is not None and rewards.shape != arrays["actions"].shape[:1]:
        raise Refusal(f"{path}: its rewards have the shape {rewards.shape}, for {len(arrays['actions'])} actions")
    origin = np.asarray(arrays.get("origin", (0, 0)), np.uint32)
    if origin.shape != (2,):
        raise Refusal(f"{path}: its origin has the shape {origin.shape}; it must be the key of a reset, two numbers")
    return Demonstration(str(path), arrays["actions"], rewards, origin, world)


def _of_dataset(path: Path) -> list[Demonstration]:
    made = dataset.read(path).episodes
    ends = np.cumsum(made.lengths)[:-1]
    parts = zip(np.split(made.action, ends), np.split(np.float32(made.reward), ends), strict=True)
    return [Demonstration(f"{path}, episode {n}", actions, rewards, np.zeros(2, np.uint32)) for n, (actions, rewards) in enumerate(parts)]


def checksum(demonstrations: Sequence[Demonstration]) -> str:
    """Eight hexadecimal digits, of what is in them."""
    found = 0
    for made in demonstrations:
        for array in (made.actions, made.rewards, made.origin):
            array = np.zeros(0) if array is None else np.ascontiguousarray(array)
            found = zlib.crc32(array.tobytes(), zlib.crc32(f"{array.dtype}{array.shape}".encode(), found))
    return f"{found:08x}"


_NEWEST: dict[Any, Replayed] = {}  # a runner is built several times


def replayed(env: Environment | HostEnvironment, demonstrations: Sequence[Demonstration]) -> Replayed:
    """The states that they go through in ``env``, undisturbed. Raises Refusal for actions that are not the world's, for worlds that leave something to
    chance or cannot be put where they were, and for what does not replay."""
    hosted = isinstance(env, HostEnvironment)
    key = (env.open if hosted else env.step, checksum(demonstrations))
    if key not in _NEWEST:
        actions = [_legal(made, env) for made in demonstrations]
        longest = max(map(len, actions))
        padded = np.stack([np.concatenate([a, np.broadcast_to(a[:1], (longest - len(a), *a.shape[1:]))]) for a in actions])
        lengths = np.array([len(a) for a in actions], np.int32)
        with jax.ensure_compile_time_eval():
            made = (_replayed_on_host if hosted else _replayed)(env, demonstrations, padded, lengths)
        _NEWEST.clear()
        _NEWEST[key] = made
    return _NEWEST[key]


def _replayed_on_host(env: HostEnvironment, demonstrations: Sequence[Demonstration], actions: np.ndarray, lengths: np.ndarray) -> Replayed:
    """All side by side, each from the world's start; the origin of a demonstration is the world's own affair."""
    if env.steerable is None:
        raise Refusal(f"episodes start at states of demonstrations, and the world {env.spec.name!r} cannot be put there; use a JAX world, or env=atari")
    if env.settled is not None and not env.settled():
        raise Refusal(f"demonstrations are made again step by step, and the world {env.spec.name!r} leaves something to chance; only env=atari may")
    (demos, longest), obeyed = actions.shape[:2], np.ones(len(lengths), bool)
    worlds = env.steerable(demos)
    try:
        seen, steps = [worlds.reset([SEED] * demos, obeyed)], []
        kept = [worlds.save()]
        for t in range(longest):
            made, _ = worlds.step(actions[:, t], obeyed)
            seen.append(made.obs)
            steps.append((made.reward, made.terminated, made.truncated))
            kept.append(worlds.save())
    finally:
        worlds.close()
    snapshots = [[row[i] for row in kept[: n + 1]] for i, n in enumerate(lengths)]
    told = [np.stack(column, axis=1) for column in zip(*steps, strict=True)]
    obs = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *seen)
    return _compared(env, demonstrations, (snapshots, obs), actions, told, lengths)


def _replayed(env: Environment, demonstrations: Sequence[Demonstration], padded: np.ndarray, lengths: np.ndarray) -> Replayed:
    calm = undisturbed(env)
    if not calm.deterministic:
        raise Refusal(f"demonstrations are made again step by step, and the world {env.spec.name!r} leaves something to chance; only sticky actions may")
    demos, longest = padded.shape[:2]
    size = demos * (longest + 1) * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(calm.reset, jax.random.PRNGKey(0))))
    if size > LARGEST:
        raise Refusal(f"the states of {demos} demonstrations of up to {longest:,} steps take {size:,} bytes; at most {LARGEST:,}: give fewer, or shorter ones")

    def one(origin, actions):
        def step(carry, action):
            world, obs = carry
            world, seen = calm.step(world, jax.random.PRNGKey(0), action)
            return (world, seen.obs), (carry, seen.reward.astype(jnp.float32), seen.terminated, seen.truncated)

        last, (before, *told) = jax.lax.scan(step, calm.reset(origin), actions)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), before, last), *told

    origins = jnp.stack([jnp.asarray(made.origin, jnp.uint32) for made in demonstrations])
    (world, obs), *told = jax.jit(jax.vmap(one))(origins, jnp.asarray(padded))
    made = _compared(env, demonstrations, (world, obs), padded, [np.array(x) for x in told], lengths)
    return made._replace(states=jax.tree.map(jnp.asarray, made.states), actions=jnp.asarray(padded), rewards=jnp.asarray(made.rewards))


def _compared(env: Any, demonstrations: Sequence[Demonstration], seen: tuple[Any, Any], actions: np.ndarray, told: list, lengths: np.ndarray) -> Replayed:
    """What was gone through: ``seen``, worlds and observations [D, L + 1, ...]; ``told``, rewards and ends [D, L]. Raises Refusal for what does not replay."""
    (reward, terminated, truncated), (demos, longest) = told, actions.shape[:2]
    for made, got, ended, n in zip(demonstrations, reward, terminated | truncated, lengths, strict=True):
        _refuse_another(made, env, got[:n], ended[:n])
    reward[np.arange(longest) >= lengths[:, None]] = 0.0
    returns = np.concatenate([np.zeros((demos, 1), np.float32), np.cumsum(reward, axis=1, dtype=np.float32)], axis=1)
    time = np.broadcast_to(np.arange(longest + 1, dtype=np.int32), (demos, longest + 1))
    states = Lanes(*seen, np.ones((demos, longest + 1), bool), returns, time)
    return Replayed(states, actions, reward, returns, lengths, terminated[np.arange(demos), lengths - 1])


def episodes(env: Environment | HostEnvironment, demonstrations: Sequence[Demonstration]) -> Episodes:
    """What they saw and did, in ``env``, for whoever learns from data. A demonstration that did not end its episode is cut where it ends."""
    made = replayed(env, demonstrations)
    ends = made.lengths - 1

    def steps(values, extra: int = 0):
        return np.concatenate([np.asarray(x)[: n + extra] for x, n in zip(values, made.lengths, strict=True)])

    last = [np.arange(n + 1) == n for n in ends]
    terminated = np.concatenate([at & ended for at, ended in zip(last, made.terminated, strict=True)])
    truncated = np.concatenate([at & ~ended for at, ended in zip(last, made.terminated, strict=True)])
    obs = jax.tree.map(lambda x: steps(x, 1), made.states.obs)
    obs = jax.tree.map(np.asarray, env.decode(obs)) if isinstance(env, HostEnvironment) else obs
    return Episodes(obs, steps(made.actions), steps(made.rewards), terminated, truncated, {}, made.lengths.astype(np.int64))


def _legal(made: Demonstration, env: Environment | HostEnvironment) -> np.ndarray:
    """Its actions, in the dtype that they have in programs."""
    space, actions = env.spec.action, made.actions
    if isinstance(space, spaces.Discrete):
        fits = actions.ndim == 1 and np.issubdtype(actions.dtype, np.integer)
        fits = fits and actions.min() >= space.start and actions.max() < space.start + space.n
        return actions.astype(np.int32) if fits else _refuse_actions(made, env)
    low, high = space.low, space.high
    fits = actions.shape[1:] == space.shape and np.issubdtype(actions.dtype, np.number)
    fits = fits and bool(np.all((actions >= low - 1e-4) & (actions <= high + 1e-4)))
    return actions.astype(np.float32) if fits else _refuse_actions(made, env)


def _refuse_actions(made: Demonstration, env: Environment | HostEnvironment) -> Any:
    inside = f", from {made.actions.min():g} to {made.actions.max():g}" if np.issubdtype(made.actions.dtype, np.number) else ""
    shape = f"{made.actions.dtype} {made.actions.shape[1:]}{inside}"
    raise Refusal(f"{made.name}: its actions are {shape}, and those of the world {env.spec.name!r} are {env.spec.action}")


def _refuse_another(made: Demonstration, env: Environment | HostEnvironment, reward: np.ndarray, done: np.ndarray) -> None:
    where = f"{made.name} does not replay in the world {env.spec.name!r}"
    hint = f"; it was made in {made.world!r}" if made.world not in (None, env.spec.name) else "; is it the same world, with the same start?"
    if np.any(done[:-1]):
        raise Refusal(f"{where}: the episode ends at step {int(np.argmax(done)) + 1} of {len(done)}{hint}")
    if made.rewards is not None and not np.allclose(reward, made.rewards, rtol=1e-4, atol=1e-5):
        at = int(np.argmax(~np.isclose(reward, made.rewards, rtol=1e-4, atol=1e-5)))
        raise Refusal(f"{where}: step {at + 1} pays {reward[at]:g}, and the demonstration has {made.rewards[at]:g}{hint}")
