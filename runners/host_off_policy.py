"""Off-policy training on worlds that live on the host: the iteration of ``runners/off_policy.py``, cut where the worlds step.

The buffer is on the device. A step of the worlds sends it one observation of every lane.

``overlap``: the batches of an iteration are learnt from while its steps are made, so they are drawn from a buffer without those steps, and the policy
that acts has not learnt from them. The lag is a part of the method: timing changes no result. The bonus sees the batches after the steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.replay import Replay, ReplayState
from envs.base import HostEnvironment, Lanes, PyTree
from runners.base import HostRunner
from runners.host_interaction import Play, host_interaction, host_runner
from runners.iteration import Iteration, Record
from runners.replaying import Replaying


class HostOffPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    lanes: Lanes  # its worlds live on the host: ``world`` is empty, and observations are as they arrived
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record
    replay: ReplayState

    @property
    def waiting(self) -> tuple[PyTree, ReplayState]:
        """What learning that overlaps with stepping reads, beside the agent."""
        return self.bonus, self.replay


def host_off_policy(
    env: HostEnvironment, pieces: Iteration, buffer: Replay, lessons: Replaying, *, lanes: int, rollout: int, evaluation_mode: str, overlap: bool
) -> HostRunner:
    """The runner of ``runners.off_policy.off_policy`` for a host world."""
    agent, bonus = pieces.agent, pieces.bonus
    acts = host_interaction(env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode, random=lessons.random)

    def init(key, obs):
        agent_key, bonus_key, member_key = jax.random.split(key, 3)
        agent_state, bonus_state = agent.init(agent_key), bonus.init(bonus_key)
        state = HostOffPolicyState(member_key, acts.fresh(obs), agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record(), None)
        rolled = acts.shapes(state)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (lessons.kept(rolled.transitions), rolled.extras))
        return state._replace(replay=buffer.init(pieces.seen(bonus_state, env.decode(obs)), one))

    def finish(state, play: Play, before: Lanes, action, arrived, given, last: Lanes, learnt, clock):
        play, batch = acts.rolled(state, play, before, action, arrived, given, last)
        following = jax.tree.map(lambda now, end: jnp.concatenate([now[1:], end[None]]), batch.transitions.obs, batch.last_obs)

        def store(stored, step):
            transition, extras, after = step
            return buffer.add(stored, lessons.kept(transition), extras, after), None

        stored = jax.lax.scan(store, state.replay, (batch.transitions, batch.extras, following))[0]
        state = state._replace(lanes=last, memory=play.memory, bonus=play.bonus, replay=stored)
        return lessons.finish(state, batch, acts.keys(state.key, clock)[1], clock, learnt)

    def learn(agent_state, waiting, key, clock):
        return lessons.ahead(agent_state, waiting, acts.keys(key, clock)[1], clock)

    return host_runner(env, pieces, acts, lanes=lanes, rollout=rollout, init=init, finish=finish, learn=learn if overlap else None)
