"""What any world can be wrapped in: sticky actions, and a noisy TV. Every ``env=`` entry has their keys beside its builder's own.

- ``sticky_actions``: with this probability the action executed last is executed again instead of the one given (Machado et al.,
  "Revisiting the Arcade Learning Environment", arXiv 1709.06009, section 5.2). Departure: ALE starts an episode with the no-op as the
  last action; not every world has one, so here there is nothing to repeat at the first step.
- ``noisy_tv``: observations show as many numbers in [0, 1) beside what they showed before. They are drawn anew only when the remote is
  used, by the first action of a Discrete space or by a first Box component above 0; otherwise they stay as they are. No model
  predicts them, so bonuses paid for errors of prediction pay for ever (Burda et al., "Large-Scale Study of Curiosity-Driven
  Learning", arXiv 1808.04355, section 5; the remote is that of Savinov et al., arXiv 1810.02274).

Sticky actions are outermost: the remote is used by the action that is executed, whoever chose it. Each comes as a pure function
``Environment -> Environment``; for host worlds see envs/lane_wrappers.py.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, HostEnvironment, PyTree
from envs.builder import FRACTION, Integer, Refusal, options


class StickyState(NamedTuple):
    world: PyTree
    action: jax.Array  # executed last
    first: jax.Array  # bool[]; nothing was executed in this episode yet


class NoisyTVState(NamedTuple):
    world: PyTree
    numbers: jax.Array  # f32[K] in [0, 1); what the TV shows


@options(sticky_actions=FRACTION, noisy_tv=Integer(0, 2**16))
def wrapped(env: Environment | HostEnvironment, *, sticky_actions: float | jax.Array = 0.0, noisy_tv: int = 0) -> Environment | HostEnvironment:
    """``env`` with sticky actions and a noisy TV; ``env`` itself where both are 0. ``sticky_actions`` may be traced."""
    never = isinstance(sticky_actions, numbers.Real) and sticky_actions == 0
    if isinstance(env, HostEnvironment):
        from envs.lane_wrappers import wrapped_lanes

        return env if never and not noisy_tv else wrapped_lanes(env, sticky_actions, noisy_tv)
    if noisy_tv:
        env = with_noisy_tv(env, noisy_tv)
    return env if never else with_sticky_actions(env, sticky_actions)


def with_sticky_actions(env: Environment, probability: float | jax.Array) -> Environment:
    """``env`` in which the last action is repeated with ``probability`` (may be traced)."""
    shape, dtype = env.spec.action.shape or (), env.spec.action.dtype

    def reset(key):
        world, obs = env.reset(key)
        nothing = jnp.zeros(shape, jax.dtypes.canonicalize_dtype(dtype))
        return StickyState(world, nothing, jnp.bool_(True)), obs

    def step(state, key, action):
        chance_key, world_key = jax.random.split(key)
        repeats = ~state.first & (jax.random.uniform(chance_key) < probability)
        executed = jnp.where(repeats, state.action, jnp.asarray(action, state.action.dtype))
        world, timestep = env.step(state.world, world_key, executed)
        return StickyState(world, executed, jnp.bool_(False)), timestep

    return env._replace(spec=env.spec._replace(deterministic=False), reset=reset, step=step, render=_of_world(env.render))


def with_noisy_tv(env: Environment, size: int) -> Environment:
    """``env`` beside a TV that shows ``size`` numbers, f32[size]."""
    space, remote = env.spec.action, remote_of(env.spec.action)

    def reset(key):
        world_key, tv_key = jax.random.split(key)
        world, obs = env.reset(world_key)
        shown = jax.random.uniform(tv_key, (size,))
        return NoisyTVState(world, shown), beside(obs, shown)

    def step(state, key, action):
        world_key, tv_key = jax.random.split(key)
        world, timestep = env.step(state.world, world_key, action)
        shown = jnp.where(remote(action), jax.random.uniform(tv_key, (size,)), state.numbers)
        return NoisyTVState(world, shown), timestep._replace(obs=beside(timestep.obs, shown))

    spec = env.spec._replace(observation=tv_space(env.spec.observation, space, size), deterministic=False)
    return env._replace(spec=spec, reset=reset, step=step, render=_of_world(env.render))


def _of_world(render: Callable | None) -> Callable | None:
    return None if render is None else lambda state: render(state.world)


def remote_of(space: spaces.Space) -> Callable[[Any], Any]:
    """action -> bool: whether it uses the remote of the TV."""
    if isinstance(space, spaces.Discrete):
        return lambda action: action == int(space.start)
    if isinstance(space, spaces.Box):
        return lambda action: action.reshape(-1)[0] > 0
    raise Refusal(f"env.noisy_tv needs Discrete or Box actions, for the remote; here they are {type(space).__name__}; leave it at env.noisy_tv=0")


def beside(obs: Any, shown: Any) -> dict[str, Any]:
    """The observation with the TV: {"obs": obs, "tv": shown}; one that is a dictionary already gains the entry "tv"."""
    return {**(obs if isinstance(obs, dict) else {"obs": obs}), "tv": shown}


def tv_space(observation: spaces.Space, action: spaces.Space, size: int) -> spaces.Dict:
    """The space of ``beside``. Raises Refusal where the world shows a "tv" of its own, or has no action for the remote."""
    remote_of(action)
    inner = dict(observation.spaces) if isinstance(observation, spaces.Dict) else {"obs": observation}
    if "tv" in inner:
        raise Refusal("env.noisy_tv: the world's observations have an entry 'tv' already; leave it at env.noisy_tv=0")
    return spaces.Dict({**inner, "tv": spaces.Box(0.0, 1.0, (size,), np.float32)})
