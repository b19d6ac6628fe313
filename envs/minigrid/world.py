"""MiniGrid's tasks as JAX worlds, with the observations, rewards and limits of Farama's minigrid 3.2.0 (arXiv 2306.13831).

Given the same level, the same actions give the same observations, rewards (to float32) and ends, step for step; levels follow the same
distributions (tests/envs/test_minigrid.py shows both). Success pays 1 - 0.9 t / max_steps, and is followed by the end.

Departures: the observation is the image alone, without direction and mission (no task here needs the text); ``Spec`` has the MultiRoom
sizes of the papers, which minigrid does not register.
"""

from __future__ import annotations

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import FLAG, FRACTION, Choice, Integer, Optional, Refusal, Text, closest, options
from envs.minigrid import core, pictures, views
from envs.minigrid.tasks import TASKS
from envs.wrappers import with_action_noise, with_random_start


@options(
    id=Text("a MiniGrid id"),
    view=Choice(("partial", "full", "symbolic")),
    view_size=Integer(3, 31),
    max_steps=Optional(Integer(1)),
    see_through=Optional(FLAG),
    layout=Optional(Integer(0)),
    random_start=Integer(0, 1000),
    action_noise=FRACTION,
)
def minigrid(
    *,
    id: str = "MiniGrid-DoorKey-8x8-v0",
    view: str = "partial",
    view_size: int = 7,
    max_steps: int | None = None,
    see_through: bool | None = None,
    layout: int | None = None,
    random_start: int = 0,
    action_noise: float | jax.Array = 0.0,
) -> Environment:
    """The MiniGrid task ``id``.

    Args:
      view: "partial", uint8 [view_size, view_size, 3] of (kind, colour, state), what lies before the agent; "full", uint8 [width, height, 3],
        the whole grid, where the agent is (10, 0, direction); "symbolic", i32 [width, height, 3] of (column, row, kind), -1 for empty cells.
      view_size: an odd number of cells.
      max_steps: None is the task's own limit; rewards shrink with it.
      see_through: whether walls and closed doors hide what is behind; None is the task's own choice.
      layout: the seed of the one level that all episodes have; None draws a level for each.
      random_start: episodes begin after 0 to so many uniformly random actions; their steps count.
      action_noise: with this probability a uniformly random action is done instead of the one given.

    info: ``position`` i32[2] (row, column); ``state_id`` uint32[2], a fingerprint of level, agent and what it carries, for exact counts.
    """
    if id not in TASKS:
        raise Refusal(f"env.id={id}: there is no such MiniGrid task here{closest(id, TASKS, limit=60)}; others of Farama's: env=gymnasium")
    if view_size % 2 == 0:
        raise Refusal(f"env.view_size={view_size} must be odd, so that the agent is in the middle; try env.view_size={view_size + 1}")
    task = TASKS[id]
    limit = task.max_steps if max_steps is None else max_steps
    clear = task.see_through if see_through is None else see_through
    look = {"partial": lambda state: views.partial(state, view_size, clear), "full": views.full, "symbolic": views.symbolic}[view]

    if layout is not None:
        with jax.ensure_compile_time_eval():
            level = task.level(jax.random.PRNGKey(layout))

    def reset(key):
        state = core.begin(task.level(key) if layout is None else level)
        return state, look(state)

    def step(state, key, action):
        del key
        state, outcome = core.act(state, action)
        success = getattr(outcome, task.aim) | outcome.goal
        reward = jnp.where(success, 1 - 0.9 * (state.time.astype(jnp.float32) / limit), 0.0)
        info = {"position": state.position, "state_id": core.identity(state)}
        return state, TimeStep(look(state), reward.astype(jnp.float32), success | outcome.lava, state.time >= limit, info)

    spec = Spec(
        observation=_space(view, task, view_size),
        action=spaces.Discrete(7),
        name=id,
        max_steps=limit,
        info={
            "position": spaces.Box(np.zeros(2, np.int32), np.int32([task.height - 1, task.width - 1]), dtype=np.int32),
            "state_id": spaces.Box(0, 2**32 - 1, (2,), np.uint32),
        },
        grid=(task.height, task.width),
        success_return=0.05,  # a success pays at least 0.1
        deterministic=True,
    )
    render = lambda state: pictures.picture(state, view_size, clear)  # noqa: E731
    made = Environment(spec, reset, step, render, costly_reset=layout is None)
    if not (isinstance(action_noise, numbers.Real) and action_noise == 0):
        made = with_action_noise(made, action_noise)
    return with_random_start(made, random_start) if random_start else made


def _space(view: str, task, view_size: int) -> spaces.Box:
    if view == "symbolic":
        top = np.broadcast_to(np.int32([task.width - 1, task.height - 1, 10]), (task.width, task.height, 3))
        return spaces.Box(np.broadcast_to(np.int32([0, 0, -1]), top.shape), top, dtype=np.int32)
    sides = (view_size, view_size) if view == "partial" else (task.width, task.height)
    top = np.broadcast_to(np.uint8([9, 5, 2] if view == "partial" else [10, 5, 3]), (*sides, 3))
    return spaces.Box(np.zeros_like(top), top, dtype=np.uint8)
