"""On-policy training on JAX worlds: collect a rollout, score it, learn from it, update the bonus.

One iteration is ``rollout`` steps of ``lanes`` worlds; its pieces are in ``runners/iteration.py``. Worlds that live on the host go to
``runners/host_on_policy.py``. A ``Guide`` may steer the lanes (``runners/guide.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Rollout
from envs.base import Environment, HostEnvironment, Lanes, PyTree
from envs.builder import FLAG, Choice, Integer, options
from runners import metrics as m
from runners.base import HostRunner, Runner
from runners.guide import Guide, unguided
from runners.host_on_policy import host_on_policy
from runners.interaction import interaction
from runners.iteration import Iteration, Record, iteration
from runners.rewards import RANGES, world_rewards
from runners.source import jax_source, refuse_overlap


class OnPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    source: Lanes
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record
    guide: PyTree = ()


@options(
    lanes=Integer(1, 2**20),
    rollout=Integer(1, 2**20),
    **RANGES,
    evaluation_mode=Choice(("greedy", "explore")),
    overlap=FLAG,
)
def on_policy(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_intrinsic: Callable,
    *,
    lanes=8,
    rollout=128,
    discount=0.99,
    extrinsic_weight=1.0,
    reward_shift=0.0,
    shift_mode="reward",
    evaluation_mode="greedy",
    overlap=False,
    axis=None,
) -> Runner | HostRunner:
    """Runner for ``make_agent(spec)`` and ``make_intrinsic(spec)``.

    discount, extrinsic_weight, reward_shift and shift_mode belong to the world's own rewards (``runners/rewards.py``); those of the bonus come with
    ``make_intrinsic``. ``overlap`` (host worlds only; refused for JAX worlds): learn from the rollout before while the next is collected, so that the
    acting policy is one rollout older.
    """
    pieces = iteration(
        env.spec._replace(lanes=lanes, axis=axis),
        make_agent,
        make_intrinsic,
        rewards=world_rewards(discount, extrinsic_weight, reward_shift, shift_mode),
        tally=env.tally if isinstance(env, Environment) else None,
    )
    if isinstance(env, HostEnvironment):
        return host_on_policy(env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode, overlap=overlap)
    refuse_overlap(env, overlap)
    return training(env, pieces, unguided(jax_source(env, lanes, axis)), rollout, evaluation_mode)


def training(env: Environment, pieces: Iteration, guide: Guide, rollout: int, evaluation_mode: str) -> Runner:
    """The runner of ``pieces`` in the lanes of ``guide``."""
    source, lanes = guide.source, pieces.spec.lanes
    acts = interaction(source, pieces, evaluation_mode)
    agent, bonus, spec = pieces.agent, pieces.bonus, pieces.spec

    def init(key):
        source_key, agent_key, bonus_key, warm_key, member_key = jax.random.split(key, 5)
        agent_state = agent.init(agent_key)
        source_state, bonus_state = acts.warm_up(warm_key, agent_state, source.init(source_key), bonus.init(bonus_key))
        guided = guide.init()
        if guide.begin:
            source_state = guide.begin(guided, jax.random.fold_in(source_key, 1), source_state)
            bonus_state = bonus.reset(bonus_state, jnp.ones(lanes, bool)) if bonus.info.warmup else bonus_state
        return OnPolicyState(member_key, source_state, agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record(), guided)

    def collect(state, key):
        carry = (state.source, state.memory, state.bonus)
        interact = interaction(guide.steer(state.guide), pieces, evaluation_mode).interact
        (source_state, memory, bonus_state), (steps, extras) = jax.lax.scan(interact(state.agent, "explore"), carry, jax.random.split(key, rollout))
        last_obs = pieces.seen(bonus_state, source_state.obs)
        return state._replace(source=source_state, memory=memory, bonus=bonus_state), Rollout(steps, extras, state.memory, memory, last_obs, source_state.first)

    def step(state, clock):
        rollout_key, learn_key, update_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 3)
        state, batch = collect(state, rollout_key)
        bonus_state, assessed, reward_metrics = pieces.assess(state.agent, state.bonus, batch)
        agent_state, learnt = pieces.learn(state.agent, learn_key, (guide.learnt(assessed), clock.progress))
        bonus_state, bonus_metrics = bonus.update(bonus_state, update_key, (assessed.steps, learnt.payload))
        record, metrics = pieces.updated(state.record, guide.counted(assessed), clock)
        guided, guide_metrics = guide.tell(state.guide, pieces.world(batch.transitions), state.source.note)
        metrics |= guide_metrics | learnt.metrics | {f"bonus/{name}": value for name, value in bonus_metrics.items()} | reward_metrics
        return state._replace(agent=agent_state, bonus=bonus_state, record=record, guide=guided), m.typed(metrics)

    def parts():
        """Programs that each do a part of ``step``, for ``profile=true``: name -> (state, clock) -> anything."""

        def rolled(state, clock):
            return collect(state, jax.random.fold_in(state.key, clock.iteration))

        def assessed(state, clock):
            state, batch = rolled(state, clock)
            return state, pieces.assess(state.agent, state.bonus, batch)

        def learnt(state, clock):
            state, (_, found, _) = assessed(state, clock)
            return state, found, pieces.learn(state.agent, state.key, (guide.learnt(found), clock.progress))

        return {"rollout": rolled, "bonus score": assessed, "agent learn": learnt, "bonus update and the rest": step}

    def watched(state):
        return interaction(guide.watched(state.guide), pieces, evaluation_mode) if guide.watched else acts

    def evaluate(state, key):
        return watched(state).evaluate(state, key)

    def start(state, key):
        return watched(state).start(state, key)

    def watch(state, carry, key):
        return watched(state).watch(state, carry, key)

    return Runner(init, step, evaluate, spec, lanes * rollout, env, start, watch, parts, agent, bonus.info.augments, guided=guide.watched is not None)
