"""Lanes that show recorded steps again in place of stepping their worlds, for agents that imitate them (``runners/policy_go_explore.py``)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Lanes, PyTree, Transition
from exploration.recordings import Recordings, at
from runners.source import Source, where


class Showing(NamedTuple):
    """What lanes show."""

    tape: jax.Array  # i32[N]
    number: jax.Array  # i32[N]; of the next step
    length: jax.Array  # i32[N]; steps that are shown; 0: none, the lane's world is stepped

    @property
    def on(self) -> jax.Array:
        return self.length > 0


class Kept(NamedTuple):
    """What is recorded of a step."""

    obs: PyTree
    action: jax.Array
    reward: jax.Array  # the world's own
    next_obs: PyTree
    info: dict[str, jax.Array]
    key: jax.Array  # u32[2]; of the cell that was reached


def kept_of(source: Source, now: Lanes, key: jax.Array, action: jax.Array) -> Kept:
    """The shapes of a step of one lane."""
    step = jax.eval_shape(source.step, now, key, action)[1]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), step)
    return Kept(one.obs, one.action, one.reward, one.next_obs, one.info, jax.ShapeDtypeStruct((2,), jnp.uint32))


def begun(kept: Recordings, showing: Showing, mask: jax.Array, obs: PyTree) -> PyTree:
    """``obs`` [N, ...], and in the lanes of ``mask`` that begin to show something its first."""
    return jax.tree.map(lambda a, b: where(mask & showing.on, a, b), at(kept, showing.tape, showing.number).obs, obs)


def step(source: Source, kept: Recordings, showing: Showing, now: Lanes, key: jax.Array, action: jax.Array) -> tuple[Lanes, Transition]:
    """``source.step``, and in lanes that show something the next of its steps, the last of which cuts the episode. Their worlds are stepped all the same,
    and nobody sees it."""
    now, lived = source.step(now, key, action)
    one: Kept = at(kept, showing.tape, showing.number)
    again = lived._replace(
        obs=one.obs,
        action=one.action,
        reward=one.reward,
        next_obs=one.next_obs,
        terminated=jnp.zeros_like(lived.terminated),
        truncated=showing.number + 1 >= showing.length,
        info=one.info,
    )
    transition = jax.tree.map(lambda a, b: where(showing.on, a, b), again, lived)
    return now._replace(obs=transition.next_obs), transition
