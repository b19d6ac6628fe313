"""Snapshots of Gymnasium worlds: everything that decides what a world does next, as bytes, put back in place.

A world is a stack of wrappers around a base. A snapshot holds the attributes of every layer, pickled together so that what two
layers share stays shared. Objects of other libraries that cannot be pickled whole (or only slowly) are left where they are, and
their state is saved instead:

===============  ==========================================================================================================
``ALEInterface`` its system state, random generator included (ale-py)
``MjData``       its arrays and the time (mujoco); those of contacts and constraints are made anew by the next step
``MjModel``      nothing: it does not change; so also TextWorld's ``Game``, its knowledge and logic
``Physics``      both of dm_control's: its data, and those arrays of its model that an episode may change (a target's place)
===============  ==========================================================================================================

A world whose attributes cannot be pickled has no snapshots. ``why_not`` finds out by trying: save, go on, load, go on again the same
way, and compare bit for bit.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np


class Handle(NamedTuple):
    """How the state of an object that stays in place is taken and put back."""

    save: Callable[[Any], Any]  # object -> picklable state
    load: Callable[[Any, Any], None]  # (object, state)


def _save_mujoco(data: Any) -> dict[str, Any]:
    found = {"time": data.time}
    for name in _mujoco_arrays(type(data)):
        value = getattr(data, name)
        if isinstance(value, np.ndarray):
            found[name] = value.copy()
    return found


def _load_mujoco(data: Any, state: dict[str, Any]) -> None:
    data.time = state["time"]
    for name, value in state.items():
        if name != "time" and getattr(data, name).shape == value.shape:
            getattr(data, name)[...] = value


_ARRAYS: dict[type, list[str]] = {}


def _mujoco_arrays(kind: type) -> list[str]:
    """Attributes of MjData of a fixed size: not those of contacts, constraints and islands, which every step makes anew."""
    if kind not in _ARRAYS:
        made_anew = ("_", "efc", "iefc", "contact", "dof_island", "island", "tree_island", "map_", "nefc", "timer", "warning", "solver", "maxuse")
        _ARRAYS[kind] = [name for name in dir(kind) if not name.startswith(made_anew)]
    return _ARRAYS[kind]


def _save_physics(physics: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    model = physics.model.ptr
    return _save_mujoco(physics.data.ptr), {name: getattr(model, name).copy() for name in _PLACED}


def _load_physics(physics: Any, state: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    _load_mujoco(physics.data.ptr, state[0])
    for name, value in state[1].items():
        getattr(physics.model.ptr, name)[...] = value
    mujoco = sys.modules["mujoco"]  # whoever has a Physics has imported it
    mujoco.mj_step1(physics.model.ptr, physics.data.ptr)  # its steps begin in the middle of MuJoCo's, with contacts that are there already


_PLACED = ("geom_pos", "geom_quat", "geom_size", "geom_rgba", "site_pos", "site_size", "body_pos", "body_quat", "qpos0", "dof_damping", "mat_rgba")

FIXED = Handle(lambda found: None, lambda found, state: None)
HANDLES: dict[str, Handle] = {
    "ALEInterface": Handle(lambda ale: ale.cloneSystemState(), lambda ale, state: ale.restoreSystemState(state)),
    "MjData": Handle(_save_mujoco, _load_mujoco),
    "MjModel": FIXED,
    "Physics": Handle(_save_physics, _load_physics),
    **dict.fromkeys(("textworld.generator.game.Game", "textworld.generator.inform7.world2inform7.Inform7Game"), FIXED),
    **dict.fromkeys(("textworld.generator.data.KnowledgeBase", "textworld.logic.GameLogic"), FIXED),
}


def handle_of(found: Any) -> Handle | None:
    """By the name of its class, or by its module and name where the name is a common one."""
    kind = type(found)
    return HANDLES.get(kind.__name__) or HANDLES.get(f"{kind.__module__}.{kind.__name__}")


class _Pickler(cloudpickle.Pickler):
    """Replaces the layers by their number, and handles by their number and state; collects handles in the order in which they are met."""

    def __init__(self, file: io.BytesIO, env: gymnasium.Env, with_state: bool = True):
        super().__init__(file)
        self.handles: list[Any] = []
        self._layers = layers(env)
        self._with_state = with_state

    def persistent_id(self, found: Any) -> Any:
        if isinstance(found, gymnasium.Env):
            return next((("layer", n) for n, layer in enumerate(self._layers) if layer is found), None)
        handle = handle_of(found)
        if handle is None:
            return None
        number = next((n for n, known in enumerate(self.handles) if known is found), None)
        if number is not None:
            return number, None
        self.handles.append(found)
        return len(self.handles) - 1, (handle.save(found),) if self._with_state else None


class _Unpickler(pickle.Unpickler):
    """Puts states back into the handles that are there."""

    def __init__(self, file: io.BytesIO, env: gymnasium.Env, handles: list[Any]):
        super().__init__(file)
        self._layers = layers(env)
        self._handles = handles

    def persistent_load(self, found: tuple[Any, Any]) -> Any:
        number, state = found
        if number == "layer":
            return self._layers[state]
        handle = self._handles[number]
        if state is not None:
            handle_of(handle).load(handle, state[0])
        return handle


def layers(env: gymnasium.Env) -> list[gymnasium.Env]:
    """The wrappers of ``env`` from the outside in, and the base."""
    found = [env]
    while isinstance(found[-1], gymnasium.Wrapper):
        found.append(found[-1].env)
    return found


def _attributes(env: gymnasium.Env) -> list[dict[str, Any]]:
    skipped = ("env", "spec", "_cached_spec", "observation_space", "_observation_space")  # the last two are large and never change
    return [{name: value for name, value in vars(layer).items() if name not in skipped} for layer in layers(env)]


def save(env: gymnasium.Env) -> bytes:
    """A snapshot of ``env``. Raises what pickling raises when an attribute cannot be pickled."""
    file = io.BytesIO()
    _Pickler(file, env).dump(_attributes(env))
    return file.getvalue()


def load(env: gymnasium.Env, snapshot: bytes) -> None:
    """Put a snapshot of the same kind of world back into ``env``. Snapshots are pickles: load only your own."""
    collector = _Pickler(io.BytesIO(), env, with_state=False)
    collector.dump(_attributes(env))
    for layer, attributes in zip(layers(env), _Unpickler(io.BytesIO(snapshot), env, collector.handles).load(), strict=True):
        vars(layer).update(attributes)


def why_not(env: gymnasium.Env, steps: int = 12) -> str | None:
    """None when snapshots of ``env`` are exact, else the reason in a few words. Resets and steps the world."""
    actions = [env.action_space.sample() for _ in range(steps)]

    def go_on() -> list[Any]:
        seen = []
        for action in actions:
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append((obs, float(reward), bool(terminated), bool(truncated)))
            if terminated or truncated:
                seen.append(env.reset()[0])
        return seen

    try:
        env.reset(seed=0)
        go_on()
        snapshot = save(env)
        first = go_on()
        load(env, snapshot)
        again = go_on()
    except Exception as error:  # whatever a world's attributes raise when they are pickled
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None if same(first, again) else "after a restore it goes on differently"


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.array_equal(a, b))
