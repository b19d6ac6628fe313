"""Off-policy training on worlds that live on the host: the iteration of ``runners/off_policy.py``, cut where the worlds step.

The buffer is on the device, and a step of the worlds sends it one observation of every lane; or it stays in the host's memory (``on_host``), and the
device is sent the batches, drawn by the same program, so nothing else changes. That needs ``overlap``: batches are drawn before the steps.

``overlap``: the batches of an iteration are learnt from while its steps are made, so they are drawn from a buffer without those steps, and the policy
that acts has not learnt from them. The lag is a part of the method: timing changes no result. The bonus sees the batches after the steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.replay import Replay, ReplayState
from envs.base import HostEnvironment, Lanes, PyTree
from envs.builder import Refusal
from runners.base import HostRunner, Keep
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
    replay: ReplayState | tuple  # (): it is in the host's memory

    @property
    def waiting(self) -> tuple[PyTree, PyTree]:
        """What learning that overlaps with stepping reads, beside the agent."""
        return self.bonus, self.replay


def host_off_policy(
    env: HostEnvironment, pieces: Iteration, buffer: Replay, lessons: Replaying, *, lanes: int, rollout: int, evaluation_mode: str, overlap: bool, on_host: bool
) -> HostRunner:
    """The runner of ``runners.off_policy.off_policy`` for a host world. Raises Refusal for a buffer on the host without overlap."""
    if on_host and not overlap:
        raise Refusal("runner.buffer=host draws batches before the steps of an iteration are made: it needs runner.overlap=true")
    agent, bonus = pieces.agent, pieces.bonus
    acts = host_interaction(env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode, random=lessons.random)

    def init(key, obs):
        agent_key, bonus_key, member_key = jax.random.split(key, 3)
        agent_state, bonus_state = agent.init(agent_key), bonus.init(bonus_key)
        return HostOffPolicyState(member_key, acts.fresh(obs), agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record(), ())

    def stored(state, obs):
        rolled = acts.shapes(state)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (lessons.kept(rolled.transitions), rolled.extras))
        return buffer.init(pieces.seen(state.bonus, env.decode(obs)), one)

    def added(replay, steps):
        def one(replay, step):
            return buffer.add(replay, *step), None

        return jax.lax.scan(one, replay, steps)[0]

    def finish(state, play: Play, before: Lanes, action, arrived, given, last: Lanes, learnt, clock):
        play, batch = acts.rolled(state, play, before, action, arrived, given, last)
        following = jax.tree.map(lambda now, end: jnp.concatenate([now[1:], end[None]]), batch.transitions.obs, batch.last_obs)
        steps = (lessons.kept(batch.transitions), batch.extras, following)
        state = state._replace(lanes=last, memory=play.memory, bonus=play.bonus, replay=() if on_host else added(state.replay, steps))
        state, metrics = lessons.finish(state, batch, acts.keys(state.key, clock)[1], clock, learnt)
        return (state, metrics, (steps, learnt._replace(agent=()))) if on_host else (state, metrics)

    def learn(agent_state, waiting, key, clock):
        return lessons.ahead(agent_state, waiting, acts.keys(key, clock)[1], clock)

    def draw(replay, key, clock):
        return lessons.draws(replay, acts.keys(key, clock)[1])

    def store(replay, rows):
        steps, learnt = rows
        return lessons.prioritised(added(replay, steps), learnt)

    made = host_runner(env, pieces, acts, lanes=lanes, rollout=rollout, init=init, finish=finish, learn=learn if overlap else None)
    return made._replace(stored=stored, keep=Keep(draw, store) if on_host else None)
