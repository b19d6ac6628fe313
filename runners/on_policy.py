"""On-policy training: collect a rollout, score it, learn from it, update the bonus.

One iteration is ``rollout`` steps of ``lanes`` worlds. Per step, in this order: ``features(obs)``, ``act``, world step,
``observe``, ``features(next_obs)``, ``reset(done)``. After the rollout: ``score`` -> ``calibrate`` -> ``value`` of the bonus,
``learn`` of the agent, ``update`` of the bonus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.base import RewardStream, Rollout, Signal
from envs.base import Environment, Lanes, PyTree, any_member, sample_action
from envs.builder import FRACTION, Choice, Integer, Real, options
from exploration.intrinsic import Intrinsic
from runners import metrics as m
from runners.base import Runner
from runners.source import jax_source


class Record(NamedTuple):
    """What has happened in the member's episodes so far."""

    episodes: jax.Array  # i32[]
    best_return: jax.Array  # f32[]
    first_success: jax.Array  # u32[]; environment steps until an episode first succeeded, 0 before
    tally: PyTree  # the world's own score


class OnPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    source: Lanes
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record


@options(lanes=Integer(1), rollout=Integer(1), discount=FRACTION, extrinsic_weight=Real(), evaluation_mode=Choice(("greedy", "explore")))
def on_policy(
    env: Environment,
    make_agent: Callable,
    make_intrinsic: Callable,
    *,
    lanes=8,
    rollout=128,
    discount=0.99,
    extrinsic_weight=1.0,
    evaluation_mode="greedy",
    axis=None,
) -> Runner:
    """Runner for ``make_agent(spec)`` and ``make_intrinsic(spec)`` on a JAX world.

    discount and extrinsic_weight belong to the world's own rewards; those of the bonus come with ``make_intrinsic``.
    """
    source = jax_source(env, lanes, axis)
    intrinsic: Intrinsic = make_intrinsic(source.spec)
    bonus = intrinsic.bonus
    spec = seen_by_agent(source.spec, bonus)
    agent = make_agent(spec)

    def seen(bonus_state, obs):
        return {"obs": obs, "features": bonus.features(bonus_state, obs)} if bonus.info.augments else obs

    def world_part(transitions):
        if not bonus.info.augments:
            return transitions
        return transitions._replace(obs=transitions.obs["obs"], next_obs=transitions.next_obs["obs"])

    def interact(agent_state, mode):
        """The scan body: one step of all lanes."""

        def one(carry, key):
            source_state, memory, bonus_state = carry
            act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
            obs = seen(bonus_state, source_state.obs)
            memory, action, extras = agent.act(agent_state, act_key, (memory, obs, source_state.first, mode))
            source_state, transition = source.step(source_state, step_key, action)
            bonus_state, annotations = bonus.observe(bonus_state, observe_key, transition)
            transition = transition._replace(obs=obs, next_obs=seen(bonus_state, transition.next_obs), annotations=annotations)
            bonus_state = bonus.reset(bonus_state, transition.done)
            source_state = source.restart(source_state, reset_key, transition.done)
            return (source_state, memory, bonus_state), (transition, extras)

        return one

    def init(key):
        source_key, agent_key, bonus_key, warm_key, member_key = jax.random.split(key, 5)
        agent_state = agent.init(agent_key)
        source_state, bonus_state = warm_up(warm_key, source.init(source_key), bonus.init(bonus_key))
        tally = env.tally.init() if env.tally else ()
        record = Record(jnp.int32(0), jnp.float32(jnp.finfo(jnp.float32).min), jnp.uint32(0), tally)
        return OnPolicyState(member_key, source_state, agent.start(agent_state, lanes), agent_state, bonus_state, record)

    def warm_up(key, source_state, bonus_state):
        """Random steps that only the bonus observes (RND's observation statistics); not counted as training steps."""

        def one(carry, key):
            source_state, bonus_state = carry
            act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
            source_state, transition = source.step(source_state, step_key, sample_action(spec.action, act_key, lanes))
            bonus_state, _ = bonus.observe(bonus_state, observe_key, transition)
            bonus_state = bonus.reset(bonus_state, transition.done)
            return (source.restart(source_state, reset_key, transition.done), bonus_state), None

        if not bonus.info.warmup:
            return source_state, bonus_state
        return jax.lax.scan(one, (source_state, bonus_state), jax.random.split(key, bonus.info.warmup))[0]

    def step(state, clock):
        rollout_key, learn_key, update_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 3)
        start = (state.source, state.memory, state.bonus)
        (source_state, memory, bonus_state), (seen_steps, extras) = jax.lax.scan(
            interact(state.agent, "explore"), start, jax.random.split(rollout_key, rollout)
        )
        steps = world_part(seen_steps)

        raw = bonus.score(bonus_state, steps)
        bonus_state = bonus.calibrate(bonus_state, raw)
        reward = bonus.value(bonus_state, raw)
        streams = (RewardStream(steps.reward, discount, extrinsic_weight, True),)
        if bonus.info.intrinsic:
            streams += (RewardStream(reward, intrinsic.discount, intrinsic.scale, intrinsic.episodic),)

        batch = Rollout(seen_steps, extras, state.memory, memory, seen(bonus_state, source_state.obs), source_state.first)
        agent_state, learnt = agent.learn(state.agent, learn_key, (batch, Signal(streams, clock.progress)))
        bonus_state, bonus_metrics = bonus.update(bonus_state, update_key, (steps, learnt.payload))

        record = updated(state.record, steps, clock)
        metrics = episode_metrics(steps) | record_metrics(record) | learnt.metrics
        metrics |= {f"bonus/{name}": value for name, value in bonus_metrics.items()}
        if bonus.info.intrinsic:
            metrics |= stream_metrics(steps.reward, raw, reward)
        return OnPolicyState(state.key, source_state, memory, agent_state, bonus_state, record), m.typed(metrics)

    def updated(record, steps, clock):
        returns, done = steps.info["episode_return"], steps.done
        best = jnp.maximum(record.best_return, jnp.max(jnp.where(done, returns, jnp.finfo(jnp.float32).min)))
        first = record.first_success
        if spec.success_return is not None:
            success = jnp.any(done & (returns >= spec.success_return), axis=1)
            at = (clock.iteration * rollout + jnp.argmax(success) + 1).astype(jnp.uint32) * lanes
            first = jnp.where((first == 0) & jnp.any(success), at, first)
        tally = env.tally.update(record.tally, steps) if env.tally else ()
        return Record(record.episodes + jnp.sum(done, dtype=jnp.int32), best, first, tally)

    def episode_metrics(steps):
        done = steps.done
        found = {"episode/return": m.mean(steps.info["episode_return"], done), "episode/length": m.mean(steps.info["episode_length"], done)}
        if spec.success_return is not None:
            found["episode/success"] = m.mean(steps.info["episode_return"] >= spec.success_return, done)
        return found

    def record_metrics(record):
        found = {"episode/count": m.Last(record.episodes), "episode/best_return": m.Last(record.best_return, record.episodes > 0)}
        if spec.success_return is not None:
            found["episode/first_success_step"] = m.Last(record.first_success, record.first_success > 0)
        if env.tally:
            found |= {f"world/{name}": m.Last(value) for name, value in env.tally.report(record.tally).items()}
        return found

    def stream_metrics(extrinsic, raw, reward):
        weighted = intrinsic.scale * reward
        size, world = jnp.mean(jnp.abs(weighted)), jnp.mean(jnp.abs(extrinsic_weight * extrinsic))
        leaves = jax.tree.leaves(raw)
        names = ["bonus/raw"] if len(leaves) == 1 else [f"bonus/raw_{i}" for i in range(len(leaves))]
        return dict(zip(names, map(jnp.mean, leaves), strict=True)) | {
            "bonus/normalised": jnp.mean(reward),
            "bonus/weighted": jnp.mean(weighted),
            "bonus/share": size / (size + world + 1e-8),
        }

    def evaluate(state, key):
        """One episode per lane in worlds of its own; neither agent nor bonus learn. Episodes that outlast the limit are cut."""
        limit = spec.max_steps or 1000
        world_key, loop_key = jax.random.split(key)
        everywhere = jnp.ones(lanes, bool)
        carry = (source.init(world_key), agent.start(state.agent, lanes), bonus.reset(state.bonus, everywhere))
        one = interact(state.agent, evaluation_mode)

        def unfinished(loop):
            return (loop[0] < limit) & any_member(~loop[2], axis)

        def advance(loop):
            t, carry, finished, returns, lengths = loop
            carry, (transition, _) = one(carry, jax.random.fold_in(loop_key, t))
            returns = jnp.where(finished, returns, transition.info["episode_return"])
            lengths = jnp.where(finished, lengths, transition.info["episode_length"])
            return t + 1, carry, finished | transition.done, returns, lengths

        zero = (jnp.int32(0), carry, ~everywhere, jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))
        _, _, _, returns, lengths = jax.lax.while_loop(unfinished, advance, zero)
        found = {"evaluation/return": m.mean(returns), "evaluation/length": m.mean(lengths)}
        if spec.success_return is not None:
            found["evaluation/success"] = m.mean(returns >= spec.success_return)
        return found

    return Runner(init, step, evaluate, spec, lanes * rollout)


def seen_by_agent(spec, bonus):
    """The spec the agent is built for: augmented observations, and one stream per reward."""
    if bonus.info.augments:
        spec = spec._replace(observation=spaces.Dict({"obs": spec.observation, "features": bonus.info.features}))
    return spec._replace(streams=("extrinsic", "intrinsic") if bonus.info.intrinsic else ("extrinsic",))
