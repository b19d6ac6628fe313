"""The worlds of XLand-MiniGrid (Nikulin et al., 2023, arXiv 2312.12044; package ``xminigrid`` 0.9.3): MiniGrid tasks in JAX.

Observations are integer codes [height, width, channels], uint8: tile (13 codes) and colour (12). Actions: 0 forward, 1 turn
right, 2 turn left, 3 pick up, 4 put down, 5 toggle. The reward is 1 - 0.9 * steps / max_steps on success and 0 otherwise.

These are XLand-MiniGrid's rules, not Farama MiniGrid's: other codes, other action order, and by default one sees through walls
(``see_through``) and does not see what one carries (``show_carried``). Ids XLand-MiniGrid-* come with the empty ruleset, so
they, and MiniGrid-Playground, never pay a reward: worlds for exploring without one.

Departures: no auto-reset; the state leaves out xminigrid's key (each step gets its own) and the goal and rules where these are
the same in every episode. Constants let XLA drop the branches of the other goals and rules (1.7 times the steps per second).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep, foreign_code, strong
from envs.builder import FLAG, Choice, Integer, Optional, Refusal, Text, closest, extra_hint, options


@options(
    id=Text("an XLand-MiniGrid id"),
    view=Choice(("partial", "full")),
    view_size=Optional(Integer(3)),
    max_steps=Optional(Integer(1)),
    see_through=FLAG,
    show_carried=FLAG,
)
def xminigrid(
    *,
    id: str = "MiniGrid-DoorKey-8x8",
    view: str = "partial",
    view_size: int | None = None,
    max_steps: int | None = None,
    see_through: bool = True,
    show_carried: bool = True,
) -> Environment:
    """The XLand-MiniGrid world ``id``. ``view_size`` and ``max_steps`` default to the world's own.

    ``view="partial"``: what lies before the agent, [view_size, view_size, 2]; the agent is in the middle of the bottom row,
    looking up. ``view="full"``: the whole grid, [height, width, 3]; channel 2 is 1 + direction at the agent's cell and 0
    elsewhere. ``show_carried``: the agent's own cell shows what it carries (code 0: nothing), as Farama's MiniGrid does.
    ``see_through=False``: walls and closed doors hide what is behind them (partial view only; several times slower).
    info: ``position`` i32[2] (row, column).
    """
    if view_size is not None and view_size % 2 == 0:
        raise Refusal(f"env.view_size={view_size} must be odd, so that the agent is in the middle; try env.view_size={view_size + 1}")
    if view == "full" and not see_through:
        raise Refusal("env.see_through=false needs env.view=partial: the full view shows the whole grid")
    with jax.ensure_compile_time_eval(), foreign_code():  # a builder may run inside a traced function
        library, world, params = _make(id, view_size, max_steps)
        from xminigrid.core.constants import NUM_COLORS, NUM_TILES
        from xminigrid.core.observation import minigrid_field_of_view, transparent_field_of_view
        from xminigrid.types import TimeStep as Foreign

        constants = _constants(world, params)
    absent = dict.fromkeys(("key", *constants))

    def observe(state):
        grid, agent = state.grid, state.agent
        row, column = agent.position
        if show_carried:
            grid = grid.at[row, column].set(agent.pocket)
        if view == "full":
            direction = jnp.zeros(grid.shape[:2], jnp.uint8).at[row, column].set(1 + agent.direction.astype(jnp.uint8))
            return jnp.concatenate([grid, direction[..., None]], axis=-1)
        field_of_view = transparent_field_of_view if see_through else minigrid_field_of_view
        return field_of_view(grid, agent, params.view_size, params.view_size)

    def reset(key):
        with foreign_code():
            state = strong(world.reset(params, key).state.replace(**absent))
            return state, observe(state)

    def step(state, key, action):
        with foreign_code():
            whole = state.replace(key=key, **{name: jnp.asarray(value) for name, value in constants.items()})
            before = Foreign(state=whole, step_type=None, reward=None, discount=None, observation=None)  # only state is read
            after = world.step(params, before, jnp.asarray(action, jnp.int32))
            new = after.state.replace(**absent)
            info = {"position": new.agent.position}
            terminated, truncated = after.discount == 0, new.step_num >= params.max_steps
            return new, strong(TimeStep(observe(new), after.reward, terminated, truncated, info))

    def render(state):
        from xminigrid.rendering.rgb_render import render as draw

        return draw(np.asarray(state.grid), jax.tree.map(np.asarray, state.agent), params.view_size)

    codes = [NUM_TILES, NUM_COLORS] + [5] * (view == "full")
    sides = (params.height, params.width) if view == "full" else (params.view_size, params.view_size)
    high = np.broadcast_to(np.uint8(codes) - np.uint8(1), (*sides, len(codes)))
    spec = Spec(
        observation=spaces.Box(np.zeros_like(high), high, dtype=np.uint8),
        action=spaces.Discrete(world.num_actions(params)),
        name=id,
        max_steps=int(params.max_steps),
        info={"position": spaces.Box(np.zeros(2, np.int32), np.int32([params.height - 1, params.width - 1]), dtype=np.int32)},
        grid=(int(params.height), int(params.width)),
        success_return=0.05 if _pays(library, world, constants) else None,  # a success pays at least 0.1
        deterministic=True,
    )
    return Environment(spec, reset, step, render)


def _make(id: str, view_size: int | None, max_steps: int | None) -> tuple[Any, Any, Any]:
    """The library, its world and its params; refuses ids that are not there."""
    try:
        import xminigrid as library
    except ModuleNotFoundError as error:
        raise Refusal(f"env.id={id} needs the package {error.name!r}, which is not installed{extra_hint('xminigrid')}") from None
    ids = library.registered_environments()
    if id not in ids:
        raise Refusal(f"env.id={id}: XLand-MiniGrid has no such world{closest(id, ids, limit=60)}")
    given = {"view_size": view_size, "max_steps": max_steps}
    world, params = library.make(id, **{name: value for name, value in given.items() if value is not None})
    return library, world, params


def _constants(world: Any, params: Any) -> dict[str, np.ndarray]:
    """Goal and rules, where they do not depend on the key: what ``reset`` leaves untraced is the same in every episode."""
    found = {}

    def look(key):
        state = world.reset(params, key).state
        for name in ("goal_encoding", "rule_encoding"):
            if not isinstance(getattr(state, name), jax.core.Tracer):
                found[name] = np.asarray(getattr(state, name))
        return state.grid

    jax.eval_shape(look, jax.random.key(0))
    return found


def _pays(library: Any, world: Any, constants: dict[str, np.ndarray]) -> bool:
    """False where the goal is the empty one (code 0) and the world does not decide success in a step of its own."""
    own_step = type(world).step is not library.environment.Environment.step
    return own_step or "goal_encoding" not in constants or int(constants["goal_encoding"][0]) != 0
