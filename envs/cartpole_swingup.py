"""Sparse cart-pole swing-up of bsuite (arXiv 1908.03568, v0.3.6), native: the pole hangs, moving costs, and only a pole held up near the middle pays.

    temp = (F + m l thetadot^2 sin) / M,    thetadotdot = (g sin - cos temp) / (l (4/3 - m cos^2 / M)),    xdotdot = temp - m l thetadotdot cos / M

with m = 0.1, M = 1.1, l = 0.5, g = 9.8, F = 10 a for an action a in {-1, 0, 1}, in Euler steps of 0.01 s. The reward is 1 where cos(theta) > ``height``,
|thetadot| < 1 and |x| < ``width``, less ``move_cost`` |a|. An episode ends when |x| > 3, or after 1001 steps, as bsuite's clock has it; time is in the
observation, so that is the end of the MDP and not a truncation.

bsuite's 20 settings are height n/20 and width 1 - n/20. ``actions="continuous"`` takes any a in [-1, 1]; it is ours, for agents like SAC.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import NON_NEGATIVE, Choice, Integer, Real, options

MASS, TOTAL_MASS, LENGTH, GRAVITY, FORCE = 0.1, 1.1, 0.5, 9.8, 10.0
SECONDS, TRACK, SPREAD = 0.01, 3.0, 0.05


class CartPoleState(NamedTuple):
    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array  # 0 is up
    theta_dot: jax.Array
    steps: jax.Array  # i32[]


@options(actions=Choice(("discrete", "continuous")), height=Real(-1.0, 1.0), width=Real(0.0, 3.0), move_cost=NON_NEGATIVE, max_steps=Integer(1))
def cartpole_swingup(*, actions: str = "discrete", height: Any = 0.5, width: Any = 1.0, move_cost: Any = 0.1, max_steps: int = 1001) -> Environment:
    """Observation f32[8]: x/3, xdot/3, sin, cos, thetadot, time/10 s, and whether |x| < width and |thetadot| < 1 (1 or -1).

    Args:
      actions: "discrete" (0 left, 1 none, 2 right) or "continuous" (Box [-1, 1]).
      height: the cosine above which the pole counts as up.
      width: how near the middle it must be.
      move_cost: of a full action.
      max_steps: after which the episode ends.
    """
    discrete = actions == "discrete"

    def seen(state):
        near, slow = jnp.abs(state.x) < width, jnp.abs(state.theta_dot) < 1.0
        flags = [jnp.where(flag, 1.0, -1.0) for flag in (near, slow)]
        angle = [jnp.sin(state.theta), jnp.cos(state.theta), state.theta_dot]
        return jnp.stack([state.x / TRACK, state.x_dot / TRACK, *angle, state.steps * SECONDS / 10.0, *flags]).astype(jnp.float32)

    def reset(key):
        x, x_dot, theta, theta_dot = jax.random.uniform(key, (4,), minval=-SPREAD, maxval=SPREAD)
        state = CartPoleState(x, x_dot, jnp.pi + theta, theta_dot, jnp.int32(0))
        return state, seen(state)

    def step(state, key, action):
        push = action.astype(jnp.float32) - 1.0 if discrete else jnp.clip(action.reshape(()), -1.0, 1.0)
        sin, cos = jnp.sin(state.theta), jnp.cos(state.theta)
        temp = (FORCE * push + MASS * LENGTH * jnp.square(state.theta_dot) * sin) / TOTAL_MASS
        theta_acc = (GRAVITY * sin - cos * temp) / (LENGTH * (4.0 / 3.0 - MASS * jnp.square(cos) / TOTAL_MASS))
        x_acc = temp - MASS * LENGTH * theta_acc * cos / TOTAL_MASS
        new = CartPoleState(
            x=state.x + SECONDS * state.x_dot,
            x_dot=state.x_dot + SECONDS * x_acc,
            theta=jnp.mod(state.theta + SECONDS * state.theta_dot, 2.0 * jnp.pi),
            theta_dot=state.theta_dot + SECONDS * theta_acc,
            steps=state.steps + 1,
        )
        up = (jnp.cos(new.theta) > height) & (jnp.abs(new.theta_dot) < 1.0) & (jnp.abs(new.x) < width)
        reward = up.astype(jnp.float32) - move_cost * jnp.abs(push)
        ended = (jnp.abs(new.x) > TRACK) | (new.steps >= max_steps)
        return new, TimeStep(seen(new), reward, ended, jnp.zeros((), bool), {"upright": up.astype(jnp.int32)})

    spec = Spec(
        observation=spaces.Box(-np.inf, np.inf, (8,), np.float32),
        action=spaces.Discrete(3) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32),
        name="cartpole_swingup",
        max_steps=max_steps,
        info={"upright": spaces.Discrete(2)},
        success_return=100.0,  # bsuite's mark for the best episode
        deterministic=True,
    )
    return Environment(spec, reset, step, render)


def render(state: CartPoleState) -> np.ndarray:
    """The track, the cart and the pole, uint8 [120, 360, 3]."""
    picture = np.full((120, 360, 3), 245, np.uint8)
    picture[80:82] = 90
    centre = int(180 + 50 * float(np.clip(state.x, -3.4, 3.4)))
    picture[72:80, max(0, centre - 12) : centre + 12] = (50, 54, 64)
    for part in np.linspace(0.0, 44.0, 90):
        row, column = 72 - part * np.cos(float(state.theta)), centre + part * np.sin(float(state.theta))
        row, column = int(np.clip(row, 1, 118)), int(np.clip(column, 1, 358))
        picture[row - 1 : row + 2, column - 1 : column + 2] = (210, 60, 60)
    return picture
