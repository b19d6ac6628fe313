"""On-policy training on worlds that live on the host: the iteration of ``runners/on_policy.py``, cut where the worlds step.

``overlap``: while rollout i is collected, the agent learns from rollout i - 1; the policy that acts in rollout i has learnt from the
rollouts before i - 1. The lag is a fixed part of the method, and the rollout that waits is part of the state: timing changes no result.
Scores and updates of the bonus keep their place. The first iteration learns nothing, and the last rollout is not learnt from.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Learnt
from envs.base import HostEnvironment, Lanes, PyTree
from runners import metrics as m
from runners.base import HostRunner
from runners.guide import Guide, unguided
from runners.host_interaction import Play, host_interaction, host_runner
from runners.host_steering import HostSteering
from runners.iteration import Assessed, Iteration, Record


class HostOnPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    lanes: Lanes  # its worlds live on the host: ``world`` is empty, and observations are as they arrived
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record
    waiting: Assessed | None  # with overlap: the rollout that was not learnt from yet
    guide: PyTree = ()


def host_on_policy(
    env: HostEnvironment,
    pieces: Iteration,
    *,
    lanes: int,
    rollout: int,
    evaluation_mode: str,
    overlap: bool = False,
    guide: Guide | None = None,
    steering: HostSteering | None = None,
) -> HostRunner:
    """The runner of ``runners.on_policy.on_policy`` for a host world; ``guide`` and ``steering`` come together."""
    agent, bonus, guide = pieces.agent, pieces.bonus, guide or unguided()
    more = {"note": steering.note, "temperature": steering.temperature} if steering else {}
    acts = host_interaction(steering.env if steering else env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode, **more)

    def init(key, obs):
        agent_key, bonus_key, member_key = jax.random.split(key, 3)
        agent_state, now = agent.init(agent_key), acts.fresh(obs)
        bonus_state = bonus.init(bonus_key)
        state = HostOnPolicyState(member_key, now, agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record(), None, guide.init())
        return state._replace(waiting=empty_rollout(state)) if overlap else state

    def empty_rollout(state) -> Assessed:
        """A rollout of zeros, for the place where one will wait."""
        shapes = jax.eval_shape(lambda batch: pieces.assess(state.agent, state.bonus, batch)[1], acts.shapes(state))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def learn(agent_state, waiting, key, clock):
        return pieces.learn(agent_state, acts.keys(key, clock)[1], (guide.learnt(waiting), clock.progress))

    def finish(state, play: Play, before: Lanes, action, arrived, given, last: Lanes, learnt, clock):
        _, learn_key, update_key = acts.keys(state.key, clock)
        play, batch = acts.rolled(state, play, before, action, arrived, given, last)
        bonus_state, assessed, reward_metrics = pieces.assess(state.agent, play.bonus, batch)
        if overlap:
            learns = clock.iteration > 0
            agent_state = jax.tree.map(lambda new, old: jnp.where(learns, new, old), learnt[0], state.agent)
            found = Learnt({name: m.Mean(value * learns, learns.astype(jnp.float32)) for name, value in learnt[1].metrics.items()})
        else:
            agent_state, found = pieces.learn(state.agent, learn_key, (guide.learnt(assessed), clock.progress))
        bonus_state, bonus_metrics = bonus.update(bonus_state, update_key, (assessed.steps, found.payload))
        record, metrics = pieces.updated(state.record, guide.counted(assessed), clock)
        guided, guide_metrics = guide.tell(state.guide, pieces.world(batch.transitions), last.note)
        metrics |= guide_metrics | found.metrics | {f"bonus/{name}": value for name, value in bonus_metrics.items()} | reward_metrics
        waiting = assessed if overlap else None
        state = state._replace(lanes=last, memory=play.memory, agent=agent_state, bonus=bonus_state, record=record, waiting=waiting, guide=guided)
        return state, m.typed(metrics)

    return host_runner(env, pieces, acts, lanes=lanes, rollout=rollout, init=init, finish=finish, learn=learn if overlap else None)._replace(steering=steering)
