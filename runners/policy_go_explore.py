"""Policy-based Go-Explore ("First return, then explore", arXiv 2004.12919): a goal-conditioned policy returns to cells, so nothing has to be put back.

An episode begins with a cell that ``exploration/routes.py`` chooses. The cells on the best known way there are sub-goals, of which the next is shown to the
agent; any of the next ``window`` counts as reached, and pays. At the last one the return is over, for the agent's values too. From there on the lane
explores, with actions that are drawn and kept for a while, or with the policy and goals drawn from all cells alike; from exploring the agent does not learn.
Where the policy is late, its temperature grows: 1 + (``overdue`` x steps too late)^2, counted since as many steps as the known way took per sub-goal, or since
``patience`` steps without a new cell. Evaluations go to the best cell, without chance, and on.

The last ``imitation_lanes`` lanes do not act: they show the best ways into cells, as they were recorded, with the sub-goals on them, to be imitated where they
pay more than the agent expected. Of whole episodes ``recordings`` are kept (``exploration/recordings.py``), of which ways are beginnings.

Departures: goals after the return are never neighbours that are not known yet, which only games with known rooms have; the way's mean steps per sub-goal
stand for those of each one; ways into cells whose episode is kept no longer are not imitated, and the world's rewards count in what a way is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.base import Imitation
from agents.networks import dummy
from envs.base import Environment, HostEnvironment, sample_action
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Refusal, Text, options
from exploration.cells import cell_function
from exploration.recordings import Written, write
from exploration.recordings import recorded as can_be_shown
from exploration.recordings import recordings as fresh_tapes
from exploration.routes import Steps, best, routes, tell
from runners import metrics as m
from runners.base import Runner
from runners.guide import Guide
from runners.iteration import iteration
from runners.on_policy import training
from runners.returning import Journey, Known, Rules, looks, nowhere, shown_space, steering
from runners.rewards import RANGES, world_rewards
from runners.showing import Kept, kept_of
from runners.source import jax_source


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
    imitation_lanes=Integer(0),
    imitation_coef=NON_NEGATIVE,
    imitation_value_coef=NON_NEGATIVE,
    recordings=Integer(1, 2**20),
    recorded=Integer(1, 2**20),
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
    imitation_lanes: int = 2,
    imitation_coef: Any = 0.1,
    imitation_value_coef: Any = 0.01,
    recordings: int = 64,
    recorded: int = 512,
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
      imitation_lanes: of the ``lanes``; imitation_coef and imitation_value_coef: see ``agents.base.Imitation``.
      recordings, recorded: the episodes that are kept for them, and the steps of each.
      discount, extrinsic_weight: of rewards; the weight is of the world's own.

    Raises Refusal for worlds on the host, for observations that are dictionaries, and for recordings that the lanes need to write on.
    """
    if isinstance(env, HostEnvironment):
        raise Refusal(f"runner=policy_go_explore is for JAX worlds, and {env.spec.name!r} lives on the host; use runner=go_explore, or a JAX world")
    if isinstance(env.spec.observation, spaces.Dict):
        raise Refusal(f"runner=policy_go_explore shows a goal beside the observation, and those of {env.spec.name!r} are a dictionary already")
    acting = lanes - imitation_lanes
    if acting < 1:
        raise Refusal(f"runner.imitation_lanes={imitation_lanes} leaves none of runner.lanes={lanes} to act for itself; give fewer")
    if imitation_lanes and recordings <= lanes:
        raise Refusal(f"runner.recordings={recordings} are too few: each of {lanes} lanes writes on one or shows one; give more than {lanes}")
    spec = env.spec._replace(observation=shown_space(env), lanes=lanes, axis=axis)
    pieces = iteration(spec, make_agent, make_intrinsic, rewards=world_rewards(discount, 1.0), tally=env.tally)
    rules = Rules(
        actions_weight,
        window,
        sub_goal_reward,
        final_reward,
        clip,
        random,
        mean_run,
        goal_steps,
        patience,
        overdue,
        give_up,
        extrinsic_weight,
        discount,
        imitation_lanes,
    )
    identify = cell_function(env.spec, cell, width, height, depth)
    look = looks(env, dummy(env.spec.observation)[0], jnp.zeros(2, jnp.int32))
    source = jax_source(env, lanes, axis, note=nowhere(longest, env, recorded if imitation_lanes else 1))
    steer = steering(env, source, identify, rules)

    def init():
        known = routes(capacity, longest, acting, look)
        if not imitation_lanes:
            return Known(known)
        key = jax.random.PRNGKey(0)
        now, action = jax.eval_shape(source.init, key), jax.eval_shape(lambda key: sample_action(env.spec.action, key, lanes), key)
        return Known(known, fresh_tapes(recordings, recorded, acting, capacity, kept_of(source, now, key, action)))

    def learnt(assessed):
        """Steps of the return, which ends where it arrives."""
        info, rolled = assessed.steps.info, assessed.rollout
        steps = rolled.transitions
        assessed = assessed._replace(rollout=rolled._replace(transitions=steps._replace(terminated=steps.terminated | info["arrived"])))
        if not imitation_lanes:
            return assessed._replace(weights=1.0 - info["exploring"])
        found = Imitation(info["imitated"].astype(jnp.float32), info["to_go"], imitation_coef, imitation_value_coef)
        return assessed._replace(weights=1.0 - (info["exploring"] | info["imitated"]), imitation=found)

    def counted(assessed):
        """Of episodes that are shown, no ends."""
        if not imitation_lanes:
            return assessed
        steps, own = assessed.steps, ~assessed.steps.info["imitated"]
        return assessed._replace(steps=steps._replace(terminated=steps.terminated & own, truncated=steps.truncated & own))

    def being_read(journeys: Journey):
        showing = jax.tree.map(lambda x: x[acting:], journeys.showing)
        return jnp.where(showing.on, showing.tape, recordings)

    def told(known: Known, steps, journeys: Journey):
        steps = jax.tree.map(lambda x: x[:, :acting], steps)
        info, (state, kept) = steps.info, known
        look = looks(env, steps.next_obs["world"], info.get("position"))
        told = Steps(info["cell"], steps.first, steps.done, info["episode_return"], info["episode_length"], look)
        state, happened = tell(state, told, erase_loops, axis)
        shown = {}
        if imitation_lanes:
            bare = {name: info[name] for name in kept.steps.info}
            step = Kept(steps.obs["world"], steps.action, info["own_reward"], steps.next_obs["world"], bare, info["cell"])
            kept = write(kept, Written(steps.first, info["episode_length"] - 1, happened["cell"], happened["better"], step), being_read(journeys))
            shown["archive/recorded"] = m.Last(jnp.sum(can_be_shown(kept), dtype=jnp.int32))
        top = best(state)
        return Known(state, kept), shown | {
            "archive/cells": m.Last(jnp.sum(state.count > 0, dtype=jnp.int32)),
            "archive/score": m.Last(state.score[top], state.count[top] > 0),
            "archive/best_length": m.Last(state.length[top], state.count[top] > 0),
            "archive/dropped": m.Last(state.table.dropped),
            "archive/accepted": jnp.sum(happened["better"], dtype=jnp.int32),
            "return/arrived": m.mean(info["arrived"], (steps.done & ~info["exploring"]) | info["arrived"]),
            "return/sub_goals": m.mean(info["sub_goals"], steps.done | info["arrived"]),
            "return/exploring": m.mean(info["exploring"]),
            "return/temperature": m.mean(info["temperature"], ~info["exploring"]),
        }

    def begin(state, key, lanes_now):
        del lanes_now
        return steer(state).init(key)

    guide = Guide(init, told, learnt, counted, source=steer(init()), begin=begin, steer=steer, watched=lambda state: steer(state, to_the_best=True))
    return training(env, pieces, guide, rollout, evaluation_mode)
