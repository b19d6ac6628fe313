"""Every world of gymnax (Lange, 2022, github.com/RobertTLange/gymnax, 1.0.1) as an ``Environment``.

gymnax's own ``step`` resets by itself; here its ``step_env``, ``reset_env`` and ``is_truncated`` are used, so ``obs`` is the true
successor, and ``terminated`` (the MDP ended) and ``truncated`` (``max_steps_in_episode`` reached) stay apart. Both are set when
both happen in one step, as in gymnax and Gymnasium.

Departures: rewards and Box observations are float32 (gymnax mixes in int32 and weak types; uint8 images stay as they are), the
state keeps its dtypes from reset on, and gymnax's own ``info`` (its discount repeats ``terminated``) is left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep, foreign_code, strong
from envs.builder import FLAG, Anything, Integer, Real, Refusal, Text, closest, extra_hint, options

DETERMINISTIC = frozenset({"CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"})


@options(id=Text("a gymnax id"))
def gymnax(*, id: str = "CartPole-v1", **params: Any) -> Environment:
    """The gymnax world ``id``; ``params`` are fields of its ``EnvParams``, as ``max_steps_in_episode=200``.

    ``success_return`` is Gymnasium's reward threshold for the same id, where it has one (CartPole-v1: 475).
    Raises Refusal for an unknown id or field, a value of the wrong kind, and worlds without array observations.
    """
    with jax.ensure_compile_time_eval(), foreign_code():  # a builder may run inside a traced function
        world, settings = _make(id, params)
        observation = _space(id, "observation", world.observation_space(settings))
        action = _space(id, "action", world.action_space(settings))
    cast = np.int32 if isinstance(observation, spaces.Discrete) else observation.dtype

    def reset(key):
        with foreign_code():
            obs, state = world.reset_env(key, settings)
        return strong(state), jnp.asarray(obs, cast)

    def step(state, key, action):
        with foreign_code():
            obs, new, reward, terminated, _ = world.step_env(key, state, action, settings)
            truncated = world.is_truncated(new, settings)
        new = jax.tree.map(lambda leaf, old: jnp.asarray(leaf, old.dtype), new, state)
        ended = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
        return new, TimeStep(jnp.asarray(obs, cast), jnp.asarray(reward, jnp.float32).reshape(()), *ended, {})

    spec = Spec(
        observation=observation,
        action=action,
        name=id,
        max_steps=int(settings.max_steps_in_episode),
        success_return=getattr(gymnasium.registry.get(id), "reward_threshold", None),
        deterministic=id in DETERMINISTIC,
    )
    _expect_array(id, reset, spec)
    return Environment(spec, reset, step)


def _make(id: str, params: dict[str, Any]) -> tuple[Any, Any]:
    """gymnax's world and its params; refuses ids and fields that are not there."""
    try:
        import gymnax as library
    except ModuleNotFoundError as error:
        raise Refusal(f"env.id={id} needs the package {error.name!r}, which is not installed{extra_hint('gymnax')}") from None
    if id not in library.registered_envs:
        raise Refusal(f"env.id={id}: gymnax has no such world{closest(id, library.registered_envs, limit=40)}")
    try:
        world, settings = library.make(id)
    except Exception as error:  # MNISTBandit downloads its data here
        raise Refusal(f"env.id={id}: gymnax cannot make this world here: {type(error).__name__}: {error}") from None
    legal = {field.name: _range(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    legal["max_steps_in_episode"] = Integer(1)
    for name, value in params.items():
        if name not in legal:
            raise Refusal(f"env.{name}: the gymnax world {id} has no parameter {name!r}{closest(name, legal, limit=40)}")
        if not legal[name].accepts(value):
            raise Refusal(f"env.{name}={value!r} is not legal for {id}: it must be {legal[name].describe()}")
    return world, settings.replace(**params)


def _range(default: Any) -> Any:
    """Legal values of a parameter, told from its default; arrays are not checked."""
    kinds = {bool: FLAG, int: Integer(-(2**31), 2**31 - 1), float: Real()}
    return kinds.get(type(default), Anything())


def _space(id: str, role: str, space: Any) -> spaces.Space:
    """gymnax space -> Gymnasium space; Discrete and Box only."""
    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(int(space.n))
    if kind == "Box":
        dtype = np.uint8 if space.dtype == np.uint8 else np.float32
        low, high = (np.broadcast_to(np.asarray(side, dtype), space.shape) for side in (space.low, space.high))
        return spaces.Box(low, high, dtype=dtype)
    raise Refusal(f"env.id={id}: its {role} space is a {kind}; farlands takes Discrete and Box, one array each")


def _expect_array(id: str, reset: Any, spec: Spec) -> None:
    obs = jax.eval_shape(reset, jax.random.key(0))[1]
    if obs.shape != spec.observation.shape:
        raise Refusal(f"env.id={id}: its observations are {obs.shape}, but its observation space says {spec.observation.shape}")
