"""Policy-based Go-Explore ("First return, then explore", arXiv 2004.12919): a goal-conditioned policy returns to cells, so nothing has to be put back.

An episode begins with a cell that ``exploration/routes.py`` chooses. The cells on the best known way there are sub-goals, of which the next is shown to the
agent; any of the next ``window`` counts as reached, and pays. At the last one the return is over, for the agent's values too. From there on the lane
explores, with actions that are drawn and kept for a while, or with the policy and goals drawn from all cells alike; from exploring the agent does not learn.
Where the policy is late, its temperature grows: 1 + (``overdue`` x steps too late)^2, counted since as many steps as the known way took per sub-goal, or since
``patience`` steps without a new cell. Evaluations go to the best cell, without chance, and on.

Departures: goals after the return are never neighbours that are not known yet, which only games with known rooms have; the way's mean steps per sub-goal
stand for those of each one; the best ways are not imitated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.networks import dummy
from envs.base import Environment, HostEnvironment, any_member, sample_action
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Refusal, Text, options
from exploration.cells import cell_function
from exploration.hash_table import lookup
from exploration.routes import Routes, Steps, advance, best, choose, routes, tell, weights
from runners import metrics as m
from runners.base import Runner
from runners.guide import Guide
from runners.iteration import iteration
from runners.on_policy import training
from runners.rewards import RANGES, world_rewards
from runners.source import Source, jax_source, where


class Journey(NamedTuple):
    """Where a lane is on its way."""

    way: jax.Array  # i32[M]; the sub-goals
    count: jax.Array  # i32; of them; 0: nothing to return to
    pointer: jax.Array  # i32; the next one
    pace: jax.Array  # f32; steps per sub-goal of the way
    exploring: jax.Array  # bool; the return is over
    random: jax.Array  # bool; exploring is by actions that are drawn
    action: jax.Array  # of those, the one that is kept
    goal: jax.Array  # i32; the cell that the policy goes to when exploring, -1: none
    since: jax.Array  # i32; steps since a sub-goal, or since a new cell
    chased: jax.Array  # i32; steps since the goal was drawn
    position: jax.Array  # i32[2]; row and column, in worlds that are maps; -1 before the first step


class Rules(NamedTuple):
    """The options that steering needs."""

    actions_weight: Any
    window: int
    sub_goal_reward: Any
    final_reward: Any
    clip: Any
    random: Any
    mean_run: int
    goal_steps: int
    patience: int
    overdue: Any
    give_up: int


@options(
    lanes=Integer(1, 2**20),
    rollout=Integer(1, 2**20),
    cell=Text("auto, state, observation, position, downscaled, or the import path of a function transition -> key"),
    width=Integer(1, 1024),
    height=Integer(1, 1024),
    depth=Integer(1, 255),
    capacity=Integer(1, 2**24),
    longest=Integer(1, 2**16),
    erase_loops=FLAG,
    actions_weight=NON_NEGATIVE,
    window=Integer(1, 2**10),
    sub_goal_reward=NON_NEGATIVE,
    final_reward=NON_NEGATIVE,
    clip=Optional(POSITIVE),
    random=FRACTION,
    mean_run=Integer(1),
    goal_steps=Integer(1),
    patience=Integer(0),
    overdue=NON_NEGATIVE,
    give_up=Integer(1),
    **{name: RANGES[name] for name in ("discount", "extrinsic_weight")},
    evaluation_mode=Choice(("greedy", "explore")),
)
def policy_go_explore(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_intrinsic: Callable,
    *,
    lanes: int = 32,
    rollout: int = 128,
    cell: str = "auto",
    width: int = 11,
    height: int = 8,
    depth: int = 8,
    capacity: int = 4096,
    longest: int = 512,
    erase_loops: bool = False,
    actions_weight: Any = 0.5,
    window: int = 10,
    sub_goal_reward: Any = 1.0,
    final_reward: Any = 3.0,
    clip: Any = 2.0,
    random: Any = 0.5,
    mean_run: int = 20,
    goal_steps: int = 100,
    patience: int = 50,
    overdue: Any = 0.01,
    give_up: int = 1000,
    discount: Any = 0.99,
    extrinsic_weight: Any = 1.0,
    evaluation_mode: str = "greedy",
    axis: str | None = None,
) -> Runner:
    """Runner for ``make_agent(spec)``, of agents that learn from rollouts, and ``make_intrinsic(spec)``.

    The agent sees a dictionary: ``world``, its observation; ``goal``, the observation when the sub-goal was reached; in worlds that are maps ``place``, by how
    many rows and columns the sub-goal is away, one-hot.

    Args:
      cell, width, height, depth: what a cell is, see ``exploration/cells.py``.
      capacity, longest, erase_loops, actions_weight: of ``exploration/routes.py``.
      window, sub_goal_reward, final_reward, clip, random, mean_run, goal_steps, patience, overdue, give_up: see the module docstring and the entry's file.
      discount, extrinsic_weight: of rewards; the weight is of the world's own.

    Raises Refusal for worlds on the host and for observations that are dictionaries.
    """
    if isinstance(env, HostEnvironment):
        raise Refusal(f"runner=policy_go_explore is for JAX worlds, and {env.spec.name!r} lives on the host; use runner=go_explore, or a JAX world")
    if isinstance(env.spec.observation, spaces.Dict):
        raise Refusal(f"runner=policy_go_explore shows a goal beside the observation, and those of {env.spec.name!r} are a dictionary already")
    spec = env.spec._replace(observation=shown_space(env), lanes=lanes, axis=axis)
    pieces = iteration(spec, make_agent, make_intrinsic, rewards=world_rewards(discount, 1.0), tally=env.tally)
    rules = Rules(actions_weight, window, sub_goal_reward, final_reward, clip, random, mean_run, goal_steps, patience, overdue, give_up)
    identify = cell_function(env.spec, cell, width, height, depth)
    look = looks(env, dummy(env.spec.observation)[0], jnp.zeros(2, jnp.int32))
    source = jax_source(env, lanes, axis, note=nowhere(longest, env))
    steer = steering(env, source, identify, rules, extrinsic_weight)

    def init():
        return routes(capacity, longest, lanes, look)

    def learnt(assessed):
        """Steps of the return, which ends where it arrives."""
        info, rolled = assessed.steps.info, assessed.rollout
        steps = rolled.transitions
        rolled = rolled._replace(transitions=steps._replace(terminated=steps.terminated | info["arrived"]))
        return assessed._replace(rollout=rolled, weights=1.0 - info["exploring"])

    def told(state: Routes, steps):
        info = steps.info
        look = looks(env, steps.next_obs["world"], info.get("position"))
        told = Steps(info["cell"], steps.first, steps.done, info["episode_return"], info["episode_length"], look)
        state, happened = tell(state, told, erase_loops, axis)
        top = best(state)
        return state, {
            "archive/cells": m.Last(jnp.sum(state.count > 0, dtype=jnp.int32)),
            "archive/score": m.Last(state.score[top], state.count[top] > 0),
            "archive/best_length": m.Last(state.length[top], state.count[top] > 0),
            "archive/dropped": m.Last(state.table.dropped),
            "archive/accepted": happened["accepted"],
            "return/arrived": m.mean(info["arrived"], (steps.done & ~info["exploring"]) | info["arrived"]),
            "return/sub_goals": m.mean(info["sub_goals"], steps.done | info["arrived"]),
            "return/exploring": m.mean(info["exploring"]),
            "return/temperature": m.mean(info["temperature"], ~info["exploring"]),
        }

    def begin(state, key, lanes_now):
        del lanes_now
        return steer(state).init(key)

    guide = Guide(init, told, learnt, source=steer(init()), begin=begin, steer=steer, watched=lambda state: steer(state, to_the_best=True))
    return training(env, pieces, guide, rollout, evaluation_mode)


def shown_space(env: Environment) -> spaces.Dict:
    """What the agent sees."""
    shown = {"world": env.spec.observation, "goal": env.spec.observation}
    if env.spec.grid:
        shown["place"] = spaces.Box(0.0, 1.0, (sum(2 * side - 1 for side in env.spec.grid),), np.float32)
    return spaces.Dict(shown)


def looks(env: Environment, obs, position) -> dict:
    """What is kept of a cell that was reached."""
    return {"goal": obs, "place": position} if env.spec.grid else {"goal": obs}


def nowhere(longest: int, env: Environment) -> Journey:
    action = sample_action(env.spec.action, jax.random.PRNGKey(0), 1)[0]
    zero, no, unknown = jnp.int32(0), jnp.bool_(False), jnp.full(2, -1, jnp.int32)
    return Journey(jnp.zeros(longest, jnp.int32), zero, zero, jnp.float32(1), no, no, jnp.zeros_like(action), jnp.int32(-1), zero, zero, unknown)


def steering(env: Environment, source: Source, identify: Callable, rules: Rules, extrinsic_weight: Any) -> Callable[..., Source]:
    """(routes, to_the_best=False) -> ``source`` whose lanes go to cells. Its steps tell, in their info, the cell that they reached (``cell``), whether
    the lane was ``exploring`` before the step, at which ``temperature``, whether it ``arrived`` with it, and how many ``sub_goals`` of its way were reached."""
    lanes, space = source.spec.lanes, env.spec.action

    def steered(state: Routes, to_the_best: bool = False) -> Source:
        known = weights(state, rules.actions_weight) > 0
        some = jnp.any(known)

        def goal_of(journey: Journey):
            """i32[N]; the cell that the agent is shown, -1: none."""
            at = jnp.clip(journey.pointer, 0, jnp.maximum(journey.count - 1, 0))
            ahead = jnp.take_along_axis(journey.way, at[:, None], axis=1)[:, 0]
            return jnp.where(journey.exploring, journey.goal, jnp.where(journey.count > 0, ahead, -1))

        def shown(obs, journey: Journey):
            goal = goal_of(journey)
            look = jax.tree.map(lambda x: where(goal >= 0, x[jnp.maximum(goal, 0)], jnp.zeros((), x.dtype)), state.look)
            made = {"world": obs, "goal": look["goal"]}
            if env.spec.grid:
                away = look["place"] - journey.position
                hot = [jax.nn.one_hot(away[:, axis] + side - 1, 2 * side - 1) for axis, side in enumerate(env.spec.grid)]
                made["place"] = jnp.concatenate(hot, axis=1) * ((goal >= 0) & (journey.position[:, 0] >= 0))[:, None]
            return made

        def temperature(now):
            journey: Journey = now.note
            late = jnp.maximum(journey.since - jnp.where(journey.exploring, rules.patience, journey.pace), 0.0)
            return (1.0 + jnp.square(rules.overdue * late)).astype(jnp.float32)

        def drawn(journey: Journey, key) -> Journey:
            """On the way to a cell."""
            cell_key, random_key, action_key = jax.random.split(key, 3)
            cells = jnp.broadcast_to(best(state), (lanes,)) if to_the_best else choose(state, cell_key, lanes, rules.actions_weight)
            count = jnp.where(known[cells], state.count[cells], 0)
            random = False if to_the_best else jax.random.uniform(random_key, (lanes,)) < rules.random
            return journey._replace(
                way=state.cells[cells],
                count=count,
                pointer=jnp.zeros_like(count),
                pace=state.length[cells] / jnp.maximum(count, 1),
                exploring=count == 0,
                random=jnp.broadcast_to(random, (lanes,)) | ((count == 0) & jnp.logical_not(to_the_best)),
                action=sample_action(space, action_key, lanes).astype(journey.action.dtype),
                goal=jnp.where(known[cells], cells, -1) if to_the_best else jnp.full(lanes, -1, jnp.int32),
                since=jnp.zeros_like(count),
                chased=jnp.zeros_like(count),
                position=jnp.full((lanes, 2), -1, jnp.int32),
            )

        def dressed(now):
            return now._replace(obs=shown(now.obs, now.note))

        def init(key):
            now = source.init(key)
            return dressed(now._replace(note=drawn(now.note, jax.random.fold_in(key, 1))))

        def restart(now, key, mask, starts=None):
            assert starts is None

            def begun(now):
                bare = source.restart(now._replace(obs=now.obs["world"]), key, mask)
                note = jax.tree.map(lambda a, b: where(mask, a, b), drawn(bare.note, jax.random.fold_in(key, 1)), bare.note)
                return dressed(bare._replace(note=note))

            return jax.lax.cond(any_member(mask, source.spec.axis), begun, lambda now: now, now)

        def step(now, key, action):
            journey: Journey = now.note
            random_key, keep_key, goal_key = jax.random.split(jax.random.fold_in(key, 1), 3)
            by_chance = journey.exploring & journey.random
            fresh = jax.random.uniform(keep_key, (lanes,)) < 1.0 / rules.mean_run
            held = where(fresh, sample_action(space, random_key, lanes).astype(journey.action.dtype), journey.action)
            action = where(by_chance, held.astype(action.dtype), action)
            bare, transition = source.step(now._replace(obs=now.obs["world"]), key, action)
            keys = identify(transition)
            cell = lookup(state.table, keys)

            returning = ~journey.exploring
            pointer = jnp.where(returning, advance(journey.way, journey.count, journey.pointer, cell, rules.window), journey.pointer)
            moved = pointer > journey.pointer
            arrived = returning & moved & (pointer == journey.count)
            paid = jnp.where(arrived, rules.final_reward, jnp.where(moved, rules.sub_goal_reward, 0.0))
            own = transition.reward if rules.clip is None else jnp.clip(transition.reward, -rules.clip, rules.clip)
            since = jnp.where(jnp.where(returning, moved, cell < 0), 0, journey.since + 1)
            cut = (since >= rules.give_up) & jnp.logical_not(to_the_best)

            reached = journey.goal == cell
            chased = journey.chased + 1
            redrawn = arrived | journey.exploring & (reached | (chased >= rules.goal_steps) | (journey.goal < 0))
            anywhere = jnp.where(some, jax.random.categorical(goal_key, jnp.where(known, 0.0, -jnp.inf), shape=(lanes,)), -1).astype(jnp.int32)
            goal = journey.goal if to_the_best else jnp.where(redrawn, anywhere, journey.goal)
            note = journey._replace(
                pointer=pointer,
                exploring=journey.exploring | arrived,
                action=held,
                goal=goal,
                since=since,
                chased=jnp.where(redrawn, 0, chased),
                position=transition.info["position"] if env.spec.grid else journey.position,
            )
            told = {"cell": keys, "exploring": journey.exploring, "arrived": arrived, "sub_goals": pointer, "temperature": temperature(now)}
            transition = transition._replace(
                obs=now.obs,
                next_obs=shown(transition.next_obs, note),
                reward=extrinsic_weight * own + paid,
                truncated=transition.truncated | cut & ~transition.terminated,
                info=transition.info | told,
            )
            return dressed(bare._replace(note=note)), transition

        return Source(init, step, restart, source.spec, None if to_the_best else temperature)

    return steered
