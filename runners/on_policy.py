"""On-policy training on JAX worlds: collect a rollout, score it, learn from it, update the bonus.

One iteration is ``rollout`` steps of ``lanes`` worlds; its pieces are in ``runners/iteration.py``. Worlds that live on the host go to
``runners/host_on_policy.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Rollout
from envs.base import Environment, HostEnvironment, Lanes, PyTree, any_member, sample_action
from envs.builder import FLAG, FRACTION, Choice, Integer, Real, Refusal, options
from runners import metrics as m
from runners.base import HostRunner, Runner
from runners.host_on_policy import host_on_policy
from runners.iteration import Record, evaluation_metrics, iteration
from runners.source import jax_source


class OnPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    source: Lanes
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record


@options(
    lanes=Integer(1, 2**20),
    rollout=Integer(1, 2**20),
    discount=FRACTION,
    extrinsic_weight=Real(),
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
    evaluation_mode="greedy",
    overlap=False,
    axis=None,
) -> Runner | HostRunner:
    """Runner for ``make_agent(spec)`` and ``make_intrinsic(spec)``.

    discount and extrinsic_weight belong to the world's own rewards; those of the bonus come with ``make_intrinsic``. ``overlap`` (host
    worlds only; refused for JAX worlds): learn from the rollout before while the next is collected, so that the acting policy is
    one rollout older.
    """
    pieces = iteration(
        env.spec._replace(lanes=lanes, axis=axis),
        make_agent,
        make_intrinsic,
        discount=discount,
        extrinsic_weight=extrinsic_weight,
        tally=env.tally if isinstance(env, Environment) else None,
    )
    if isinstance(env, HostEnvironment):
        return host_on_policy(env, pieces, lanes=lanes, rollout=rollout, evaluation_mode=evaluation_mode, overlap=overlap)
    if overlap:
        raise Refusal(f"runner.overlap=true is for worlds on the host; {env.spec.name!r} and the learner are one program; leave it at false")
    source = jax_source(env, lanes, axis)
    agent, bonus, spec = pieces.agent, pieces.bonus, pieces.spec

    def interact(agent_state, mode):
        """The scan body: one step of all lanes."""

        def one(carry, key):
            lanes_now, memory, bonus_state = carry
            act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
            obs = pieces.seen(bonus_state, lanes_now.obs)
            memory, action, extras = agent.act(agent_state, act_key, (memory, obs, lanes_now.first, mode))
            lanes_now, transition = source.step(lanes_now, step_key, action)
            bonus_state, transition = pieces.observed(agent_state, bonus_state, observe_key, transition, obs)
            lanes_now = source.restart(lanes_now, reset_key, transition.done)
            return (lanes_now, memory, bonus_state), (transition, extras)

        return one

    def init(key):
        source_key, agent_key, bonus_key, warm_key, member_key = jax.random.split(key, 5)
        agent_state = agent.init(agent_key)
        source_state, bonus_state = warm_up(warm_key, agent_state, source.init(source_key), bonus.init(bonus_key))
        return OnPolicyState(member_key, source_state, agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record())

    def warm_up(key, agent_state, source_state, bonus_state):
        """Random steps that only the bonus observes (RND's observation statistics); not counted as training steps."""

        def one(carry, key):
            source_state, bonus_state = carry
            act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
            source_state, transition = source.step(source_state, step_key, sample_action(spec.action, act_key, lanes))
            bonus_state, _ = bonus.observe(bonus_state, observe_key, pieces.shown(agent_state, transition))
            bonus_state = bonus.reset(bonus_state, transition.done)
            return (source.restart(source_state, reset_key, transition.done), bonus_state), None

        if not bonus.info.warmup:
            return source_state, bonus_state
        return jax.lax.scan(one, (source_state, bonus_state), jax.random.split(key, bonus.info.warmup))[0]

    def collect(state, key):
        carry = (state.source, state.memory, state.bonus)
        (source_state, memory, bonus_state), (steps, extras) = jax.lax.scan(interact(state.agent, "explore"), carry, jax.random.split(key, rollout))
        last_obs = pieces.seen(bonus_state, source_state.obs)
        return state._replace(source=source_state, memory=memory, bonus=bonus_state), Rollout(
            steps, extras, state.memory, memory, last_obs, source_state.first
        )

    def step(state, clock):
        rollout_key, learn_key, update_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 3)
        state, batch = collect(state, rollout_key)
        bonus_state, assessed, reward_metrics = pieces.assess(state.agent, state.bonus, batch)
        agent_state, learnt = pieces.learn(state.agent, learn_key, (assessed, clock.progress))
        bonus_state, bonus_metrics = bonus.update(bonus_state, update_key, (assessed.steps, learnt.payload))
        record, metrics = pieces.updated(state.record, assessed, clock)
        metrics |= learnt.metrics | {f"bonus/{name}": value for name, value in bonus_metrics.items()} | reward_metrics
        return state._replace(agent=agent_state, bonus=bonus_state, record=record), m.typed(metrics)

    def start(state, key):
        """Worlds of their own, for watching: what ``watch`` carries."""
        return source.init(key), agent.start(state.agent, lanes), bonus.reset(state.bonus, jnp.ones(lanes, bool))

    def watch(state, carry, key):
        """One step of all lanes; neither agent nor bonus learn."""
        carry, (transition, _) = interact(state.agent, evaluation_mode)(carry, key)
        return carry, transition

    def evaluate(state, key):
        """One episode per lane in worlds of its own. Episodes that outlast the limit are cut."""
        limit = spec.max_steps or 1000
        world_key, loop_key = jax.random.split(key)

        def unfinished(loop):
            return (loop[0] < limit) & any_member(~loop[2], axis)

        def advance(loop):
            t, carry, finished, returns, lengths = loop
            carry, transition = watch(state, carry, jax.random.fold_in(loop_key, t))
            returns = jnp.where(finished, returns, transition.info["episode_return"])
            lengths = jnp.where(finished, lengths, transition.info["episode_length"])
            return t + 1, carry, finished | transition.done, returns, lengths

        zero = (jnp.int32(0), start(state, world_key), jnp.zeros(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))
        _, _, _, returns, lengths = jax.lax.while_loop(unfinished, advance, zero)
        return evaluation_metrics(returns, lengths, spec)

    def parts():
        """Programs that each do a part of ``step``, for ``profile=true``: name -> (state, clock) -> anything."""

        def rolled(state, clock):
            return collect(state, jax.random.fold_in(state.key, clock.iteration))

        def assessed(state, clock):
            state, batch = rolled(state, clock)
            return state, pieces.assess(state.agent, state.bonus, batch)

        def learnt(state, clock):
            state, (_, found, _) = assessed(state, clock)
            return state, found, pieces.learn(state.agent, state.key, (found, clock.progress))

        return {"rollout": rolled, "bonus score": assessed, "agent learn": learnt, "bonus update and the rest": step}

    return Runner(init, step, evaluate, spec, lanes * rollout, env, start, watch, parts, agent, bonus.info.augments)
