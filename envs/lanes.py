"""N Gymnasium worlds as ``HostLanes``, in this process or spread over worker processes; the results are the same.

Each worker owns a block of lanes. Observations, rewards and ends travel through shared memory, commands through a pipe. Workers
ignore Ctrl-C and SIGTERM, which reach the whole group of processes: the main process decides, saves, and closes them; a worker whose
main process is gone ends by itself.

Restarting in the same step is Gymnasium's SAME_STEP, with the true successor and the restart kept apart from the beginning.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from envs import snapshot
from envs.base import HostLanes, PyTree, TimeStep
from envs.builder import Failure

PATIENCE = 10.0  # seconds that a worker may take to close


class WorldError(Failure):
    """A world raised an exception: what, and where."""


class Recipe(NamedTuple):
    """How a lane's world is made and read; sent to workers."""

    make: Callable[[bool], gymnasium.Env]  # whether it will be rendered -> world
    observation: spaces.Space  # what ``convert`` gives
    convert: Callable[[Any], PyTree]
    action: spaces.Space
    info: dict[str, tuple[spaces.Space, Callable[[gymnasium.Env, dict], Any]]]  # name -> (space, (world, its info) -> value)
    name: str


class Arrays(NamedTuple):
    """What a step leaves, for all lanes."""

    next_obs: PyTree  # [N, ...]; the true successors
    obs: PyTree  # [N, ...]; to act on next
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, np.ndarray]


def empty(recipe: Recipe, lanes: int, make: Callable = np.zeros) -> Arrays:
    def obs(space):
        return {key: obs(inner) for key, inner in space.spaces.items()} if isinstance(space, spaces.Dict) else make((lanes, *space.shape), _dtype(space))

    info = {name: make((lanes, *space.shape), _dtype(space)) for name, (space, _) in recipe.info.items()}
    flags = make((lanes,), np.bool_), make((lanes,), np.bool_)
    return Arrays(obs(recipe.observation), obs(recipe.observation), make((lanes,), np.float32), *flags, info)


def _dtype(space: spaces.Space) -> np.dtype:
    return np.dtype(np.int32) if isinstance(space, spaces.Discrete) else space.dtype


def _put(arrays: PyTree, lane: int, obs: PyTree) -> None:
    if isinstance(arrays, dict):
        for key, inner in arrays.items():
            _put(inner, lane, obs[key])
    else:
        arrays[lane] = obs


class Block:
    """Some lanes, stepped one after the other. Writes into ``arrays``, whose first axis is these lanes."""

    def __init__(self, recipe: Recipe, lanes: int, render: bool):
        self.recipe = recipe
        self.envs = [self._told("make", recipe.make, render) for _ in range(lanes)]
        self.obedient = [(lane, env.unwrapped) for lane, env in enumerate(self.envs) if hasattr(env.unwrapped, "obey")]

    def _told(self, what: str, function: Callable, *inputs: Any, **more: Any) -> Any:
        """Call into a world; what it raises becomes a WorldError that says where."""
        try:
            return function(*inputs, **more)
        except Exception as error:
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: Exception) -> WorldError:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = str(error).splitlines()[0] if str(error) else ""
        return WorldError(f"the world {self.recipe.name} failed in {what}: {type(error).__name__}: {said} ({place.filename}:{place.lineno})")

    def _obey(self, obeyed: np.ndarray) -> None:
        """Let worlds that can do as they are told, with nothing left to chance."""
        for lane, world in self.obedient:
            world.obey = bool(obeyed[lane])

    def reset(self, arrays: Arrays, seeds: Sequence[int], obeyed: np.ndarray) -> None:
        self._obey(obeyed)
        for lane, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            _put(arrays.obs, lane, self.recipe.convert(self._told("reset", env.reset, seed=int(seed))[0]))

    def put(self, arrays: Arrays, snapshots: Sequence[bytes | None]) -> None:
        """Put worlds where snapshots were taken (b"": at a fresh start; None: it stays); what is random there is drawn on as before."""
        self._obey(np.zeros(len(self.envs), bool))
        for lane, (env, data) in enumerate(zip(self.envs, snapshots, strict=True)):
            if data == b"":
                _put(arrays.obs, lane, self.recipe.convert(self._told("reset", env.reset)[0]))
            elif data is not None:
                chance = env.unwrapped._np_random
                snapshot.load(env, data)
                env.unwrapped._np_random = chance

    def step(self, arrays: Arrays, actions: np.ndarray, obeyed: np.ndarray) -> None:
        self._obey(obeyed)
        recipe, next_obs, convert = self.recipe, arrays.next_obs, self.recipe.convert
        actions = actions.tolist() if isinstance(recipe.action, spaces.Discrete) else actions.astype(recipe.action.dtype, copy=False)
        rewards, ended, cut, plain = [], [], [], not isinstance(next_obs, dict)
        what = "step"
        try:
            for lane, env in enumerate(self.envs):
                obs, reward, terminated, truncated, info = env.step(actions[lane])
                if plain:
                    next_obs[lane] = convert(obs)
                else:
                    _put(next_obs, lane, convert(obs))
                rewards.append(reward)
                ended.append(terminated)
                cut.append(truncated)
                for name, (_, read) in recipe.info.items():
                    arrays.info[name][lane] = read(env, info)
            arrays.reward[:], arrays.terminated[:], arrays.truncated[:] = rewards, ended, cut
            jax.tree.map(np.copyto, arrays.obs, next_obs)
            what = "reset"
            for lane in np.flatnonzero(arrays.terminated | arrays.truncated):
                _put(arrays.obs, lane, convert(self.envs[lane].reset()[0]))
        except Exception as error:
            raise self._failure(what, error) from error

    def save(self) -> list[bytes]:
        return [snapshot.save(env) for env in self.envs]

    def load(self, snapshots: Sequence[bytes]) -> None:
        for env, data in zip(self.envs, snapshots, strict=True):
            snapshot.load(env, data)

    def render(self, lane: int) -> np.ndarray | None:
        return self._told("render", self.envs[lane].render)

    def close(self) -> None:
        for env in self.envs:
            with contextlib.suppress(Exception):  # a window that is gone already
                env.close()


def open_lanes(recipe: Recipe, lanes: int, workers: int, render: bool = False, saves: bool = True) -> HostLanes:
    """``lanes`` worlds, in ``workers`` processes (0: in this one)."""
    return _here(recipe, lanes, render, saves) if not workers else _apart(recipe, lanes, min(workers, lanes), render, saves)


def _given(arrays: Arrays) -> tuple[TimeStep, PyTree]:
    return TimeStep(arrays.next_obs, arrays.reward, arrays.terminated, arrays.truncated, arrays.info), arrays.obs


def _here(recipe: Recipe, lanes: int, render: bool, saves: bool) -> HostLanes:
    block = Block(recipe, lanes, render)

    nobody = np.zeros(lanes, bool)

    def reset(seeds, obeyed=nobody):
        arrays = empty(recipe, lanes)
        block.reset(arrays, seeds, obeyed)
        return arrays.obs

    def step(actions, obeyed=nobody):
        arrays = empty(recipe, lanes, np.empty)  # new ones each time: jax may still read the last
        block.step(arrays, actions, obeyed)
        return _given(arrays)

    def put(snapshots):
        arrays = empty(recipe, lanes)
        block.put(arrays, snapshots)
        return arrays.obs

    if not saves:
        return HostLanes(reset, step, block.close, render=block.render)
    return HostLanes(reset, step, block.close, block.save, block.load, block.render, put)


# --- worker processes --------------------------------------------------------------------------------------------------


class _Shared:
    """An array in memory that processes share; pickles as the memory, not as its contents."""

    def __init__(self, context: Any, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.memory = context.RawArray(ctypes.c_uint8, max(1, int(np.prod(shape)) * self.dtype.itemsize))

    def view(self) -> np.ndarray:
        return np.frombuffer(self.memory, np.uint8)[: int(np.prod(self.shape)) * self.dtype.itemsize].view(self.dtype).reshape(self.shape)


def _views(shared: PyTree, start: int, stop: int) -> PyTree:
    return jax.tree.map(lambda s: s.view()[start:stop], shared, is_leaf=lambda x: isinstance(x, _Shared))


def _worker(recipe: bytes, pipe: Any, shared: Arrays, actions: _Shared, obeyed: _Shared, start: int, stop: int, render: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    arrays, given, told, block = _views(shared, start, stop), actions.view()[start:stop], obeyed.view()[start:stop], None
    while True:
        try:
            command, *inputs = pipe.recv()
        except EOFError:  # the main process is gone
            break
        try:
            if command == "open":
                block, answer = Block(cloudpickle.loads(recipe), stop - start, render), None
            elif command == "step":
                answer = block.step(arrays, given, told)
            elif command == "reset":
                answer = block.reset(arrays, *inputs, told)
            elif command == "put":
                answer = block.put(arrays, *inputs)
            else:
                answer = getattr(block, command)(*inputs)
            told_back = (True, answer)
        except Exception as error:
            told_back = (False, str(error) if isinstance(error, WorldError) else f"{type(error).__name__}: {error}")
        with contextlib.suppress(BrokenPipeError):  # the main process waits no longer
            pipe.send(told_back)
        if command == "close":
            break


def _apart(recipe: Recipe, lanes: int, workers: int, render: bool, saves: bool) -> HostLanes:
    context = multiprocessing.get_context("forkserver")  # a fork of this process, which runs jax's threads, might hang
    context.set_forkserver_preload(["envs.lanes"])
    shared = empty(recipe, lanes, lambda shape, dtype: _Shared(context, shape, dtype))
    actions = _Shared(context, (lanes, *recipe.action.shape), np.int32 if isinstance(recipe.action, spaces.Discrete) else np.float32)
    obeyed = _Shared(context, (lanes,), np.bool_)
    everything, written, told = _views(shared, 0, lanes), actions.view(), obeyed.view()
    edges = [lanes * n // workers for n in range(workers + 1)]
    blocks = list(zip(edges[:-1], edges[1:], strict=True))
    pipes, processes = [], []
    for start, stop in blocks:
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(cloudpickle.dumps(recipe), theirs, shared, actions, obeyed, start, stop, render), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)

    def ask(command: str, *inputs: Sequence) -> list[Any]:
        """Give every worker its part of each input, and wait for all answers."""
        try:
            for pipe, (start, stop) in zip(pipes, blocks, strict=True):
                pipe.send((command, *(part[start:stop] for part in inputs)))
            answers = [pipe.recv() for pipe in pipes]
        except (EOFError, BrokenPipeError, ConnectionResetError):
            what = f"a worker process of the world {recipe.name} died"
            raise WorldError(f"{what}; was it killed for memory? fewer runner.lanes or env.workers need less") from None
        for good, answer in answers:
            if not good:
                raise WorldError(answer)
        return [answer for _, answer in answers]

    def taken() -> Arrays:
        return jax.tree.map(np.copy, everything)

    def reset(seeds, obeyed=False):
        told[...] = obeyed
        ask("reset", list(seeds))
        return taken().obs

    def step(new, obeyed=False):
        written[...], told[...] = new, obeyed
        ask("step")
        return _given(taken())

    def put(snapshots):
        ask("put", list(snapshots))
        return taken().obs

    def close():
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close",))
        for process in processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()

    def look(lane):
        owner = next(n for n, (start, stop) in enumerate(blocks) if start <= lane < stop)
        pipes[owner].send(("render", lane - blocks[owner][0]))
        good, answer = pipes[owner].recv()
        if not good:
            raise WorldError(answer)
        return answer

    try:
        ask("open")
    except WorldError:
        close()
        raise
    if not saves:
        return HostLanes(reset, step, close, render=look)

    def save():
        return [data for part in ask("save") for data in part]

    def load(snapshots):
        ask("load", list(snapshots))

    return HostLanes(reset, step, close, save, load, look, put)
