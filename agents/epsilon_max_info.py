"""Two learners that share a replay: one for the task, one for the bonus alone, which acts with probability epsilon.

Epsilon-MaxInfoRL (Sukhija et al., arXiv 2412.12098) has two SACs and pays the second for the disagreement of an ensemble: ``agent=epsilon_max_info
exploration=disagreement``. With two DQNs it is the same for Discrete actions (``agent=epsilon_max_info_dqn``); any replay agent and any bonus will do.

    epsilon falls linearly from ``epsilon`` to 0 when ``fraction`` of the run is done

The published schedule falls from 1 to 0.1 at 75 % of the run, and on to 0. Who acts is drawn at the start of an episode, and with ``hold`` again after
so many steps. Both learn from every batch, the task's learner from the world's rewards, the explorer from the bonus. Greedy is the task's policy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Agent
from envs.base import PyTree, Spec
from envs.builder import FRACTION, Integer, Nested, Optional, Real, Refusal, options

PARTS = 2**20


class TwoState(NamedTuple):
    task: PyTree
    explorer: PyTree
    done: jax.Array  # i32[]; parts of the run, of ``PARTS``, that were done when it last learnt


class TwoMemory(NamedTuple):
    task: PyTree
    explorer: PyTree
    exploring: jax.Array  # i32[N]; 1 where the explorer acts
    held: jax.Array  # i32[N]; steps since that was drawn


@options(task=Nested(), explorer=Nested(), epsilon=FRACTION, fraction=Real(0.0, 1.0, open_low=True), hold=Optional(Integer(1)))
def epsilon_max_info(spec: Spec, *, task: Agent, explorer: Agent, epsilon: Any = 1.0, fraction: Any = 0.8333, hold: int | None = None) -> Agent:
    """A task's learner and an explorer.

    Args:
      task, explorer: replay agents, as entries of their own.
      epsilon, fraction: probability of the explorer at first, and the share of the run after which it is 0.
      hold: steps that the choice lasts; None: the episode.

    Raises Refusal for agents that do not learn from a replay, and where there is no bonus for the explorer.
    """
    for name, part in (("task", task), ("explorer", explorer)):
        if part.learns_from != "replay":
            raise Refusal(f"agent.{name} must learn from a replay, as agents.sac.sac and agents.dqn.dqn do")
    if len(spec.streams) < 2:
        raise Refusal("agent=epsilon_max_info has an explorer that learns from a bonus, and there is none; use exploration=disagreement, or agent=sac")

    def init(key):
        task_key, explorer_key = jax.random.split(key)
        return TwoState(task.init(task_key), explorer.init(explorer_key), jnp.int32(0))

    def start(state, lanes):
        zeros = jnp.zeros(lanes, jnp.int32)
        return TwoMemory(task.start(state.task, lanes), explorer.start(state.explorer, lanes), zeros, zeros)

    def epsilon_of(state):
        return jnp.asarray(epsilon * jnp.maximum(0.0, 1.0 - state.done / (PARTS * fraction)), jnp.float32)

    def act(state, key, inputs):
        memory, obs, first, mode = inputs
        task_key, explorer_key, who_key = jax.random.split(key, 3)
        task_memory, action, task_extras = task.act(state.task, task_key, (memory.task, obs, first, mode))
        if mode != "explore":
            return memory._replace(task=task_memory), action, {"task": task_extras}
        explorer_memory, other, explorer_extras = explorer.act(state.explorer, explorer_key, (memory.explorer, obs, first, mode))
        due = first if hold is None else first | (memory.held >= hold)
        drawn = jax.random.bernoulli(who_key, epsilon_of(state), first.shape).astype(jnp.int32)
        exploring = jnp.where(due, drawn, memory.exploring)
        action = jnp.where(exploring.reshape(-1, *[1] * (action.ndim - 1)) == 1, other, action)
        memory = TwoMemory(task_memory, explorer_memory, exploring, jnp.where(due, 0, memory.held) + 1)
        return memory, action, {"task": task_extras, "explorer": explorer_extras}

    def learn(state, key, inputs):
        sample, signal = inputs
        task_key, explorer_key = jax.random.split(key)
        mine = (sample._replace(extras=sample.extras["task"]), signal._replace(streams=signal.streams[:1]))
        others = (sample._replace(extras=sample.extras["explorer"]), signal._replace(streams=signal.streams[1:]))
        task_state, learnt = task.learn(state.task, task_key, mine)
        explorer_state, other = explorer.learn(state.explorer, explorer_key, others)
        state = TwoState(task_state, explorer_state, jnp.asarray(PARTS * signal.progress, jnp.int32))
        metrics = learnt.metrics | {f"explorer/{name}": value for name, value in other.metrics.items()} | {"policy/exploring": epsilon_of(state)}
        return state, learnt._replace(metrics=metrics)

    def encode(state, obs):
        return task.encode(state.task, obs)

    return Agent(init, start, act, learn, encode if task.encode else None, learns_from="replay")
