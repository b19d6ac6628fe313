"""Off-policy training on JAX worlds: steps go into a replay buffer, and batches drawn from it are scored, learnt from, and shown to the bonus.

One iteration is ``rollout`` steps of ``lanes`` worlds and then ``updates`` batches: an update-to-data ratio of updates / (rollout x lanes). The first
``random_steps`` steps are uniformly random; learning begins once ``learning_starts`` steps were made. A bonus that is scored at "batch" is worth in
a batch what it is worth now; one that is scored at "step" keeps what it was worth when it happened. n-step sums are taken after scoring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from agents.base import Rollout
from agents.replay import ReplayState, replay
from envs.base import Environment, HostEnvironment, Lanes, PyTree
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, Choice, Integer, Refusal, options
from runners.base import Runner
from runners.host_off_policy import host_off_policy
from runners.interaction import interaction
from runners.iteration import Record, iteration
from runners.replaying import replaying
from runners.rewards import RANGES, world_rewards
from runners.source import jax_source, refuse_overlap


class OffPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    source: Lanes
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record
    replay: ReplayState


@options(
    lanes=Integer(1, 2**20),
    rollout=Integer(1, 2**20),
    updates=Integer(1, 2**20),
    batch_size=Integer(1, 2**20),
    capacity=Integer(1, 2**31 - 1),
    learning_starts=Integer(0),
    random_steps=Integer(0),
    n_step=Integer(1, 1000),
    frames=Integer(1, 64),
    prioritized=FLAG,
    priority_exponent=NON_NEGATIVE,
    importance_exponent=FRACTION,
    **RANGES,
    evaluation_mode=Choice(("greedy", "explore")),
    overlap=FLAG,
    buffer=Choice(("device", "host")),
)
def off_policy(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_intrinsic: Callable,
    *,
    lanes: int = 8,
    rollout: int = 1,
    updates: int = 1,
    batch_size: int = 256,
    capacity: int = 100_000,
    learning_starts: int = 1000,
    random_steps: int = 1000,
    n_step: int = 1,
    frames: int = 1,
    prioritized: bool = False,
    priority_exponent: Any = 0.5,
    importance_exponent: Any = 0.5,
    discount: Any = 0.99,
    extrinsic_weight: Any = 1.0,
    reward_shift: Any = 0.0,
    shift_mode: str = "reward",
    evaluation_mode: str = "greedy",
    overlap: bool = False,
    buffer: str = "device",
    axis: str | None = None,
) -> Runner:
    """Runner for ``make_agent(spec)`` and ``make_intrinsic(spec)``.

    Args:
      lanes: worlds stepped side by side, per member.
      rollout: steps per lane between updates.
      updates: batches learnt from after them.
      batch_size: samples of a batch.
      capacity: rows of the buffer, for steps and ends of episodes.
      learning_starts: environment steps before the first update.
      random_steps: environment steps with uniformly random actions.
      n_step: steps of which rewards are summed before the bootstrap.
      frames: frames that are stacked in the last axis of the observations; each is stored once.
      prioritized: draw in proportion to the agent's priorities (arXiv 1511.05952).
      priority_exponent, importance_exponent: alpha and beta of prioritised draws.
      discount, extrinsic_weight, reward_shift, shift_mode: of the world's own rewards (``runners/rewards.py``); those of the bonus come with
        ``make_intrinsic``.
      evaluation_mode: how the agent acts when it is evaluated.
      overlap: host worlds only: learn while the steps of the iteration are made, from the buffer as it was before them.
      buffer: "host" keeps it in the host's memory, for worlds on the host with overlap: for buffers that an accelerator does not hold.

    Raises Refusal for a buffer on the host elsewhere.
    """
    pieces = iteration(
        env.spec._replace(lanes=lanes, axis=axis),
        make_agent,
        make_intrinsic,
        rewards=world_rewards(discount, extrinsic_weight, reward_shift, shift_mode),
        tally=env.tally if isinstance(env, Environment) else None,
        learns_from="replay",
    )
    agent, bonus, spec = pieces.agent, pieces.bonus, pieces.spec
    rows = replay(spec, capacity=capacity, n_step=n_step, frames=frames, prioritized=prioritized, alpha=priority_exponent)
    per_iteration = lanes * rollout
    lessons = replaying(
        pieces,
        rows,
        per_iteration=per_iteration,
        updates=updates,
        batch_size=batch_size,
        learning_starts=learning_starts,
        random_steps=random_steps,
        prioritized=prioritized,
        importance_exponent=importance_exponent,
    )
    if isinstance(env, HostEnvironment):
        way = {"evaluation_mode": evaluation_mode, "overlap": overlap, "on_host": buffer == "host"}
        return host_off_policy(env, pieces, rows, lessons, lanes=lanes, rollout=rollout, **way)
    refuse_overlap(env, overlap)
    if buffer == "host":
        raise Refusal(f"runner.buffer=host is for worlds on the host; {env.spec.name!r} and the learner are one program; leave it at device")
    source = jax_source(env, lanes, axis)
    acts = interaction(source, pieces, evaluation_mode)

    def init(key):
        source_key, agent_key, bonus_key, warm_key, member_key = jax.random.split(key, 5)
        agent_state = agent.init(agent_key)
        memory = agent.start(agent_state, lanes)
        source_state, bonus_state = acts.warm_up(warm_key, agent_state, source.init(source_key), bonus.init(bonus_key))
        carry = (source_state, memory, bonus_state)
        _, (transition, extras) = jax.eval_shape(acts.interact(agent_state, "explore"), carry, key)
        empty = rows.init(pieces.seen(bonus_state, source_state.obs), (lessons.kept(transition), extras))
        return OffPolicyState(member_key, source_state, memory, agent_state, bonus_state, pieces.fresh_record(), empty)

    def collect(state, key, random):
        """``rollout`` steps of all lanes, into the buffer."""

        def one(carry, key):
            carry, stored = carry
            carry, (transition, extras) = acts.interact(state.agent, "explore", random)(carry, key)
            stored = rows.add(stored, lessons.kept(transition), extras, pieces.seen(carry[2], carry[0].obs))
            return (carry, stored), (transition, extras)

        carry = ((state.source, state.memory, state.bonus), state.replay)
        ((source_state, memory, bonus_state), stored), (steps, extras) = jax.lax.scan(one, carry, jax.random.split(key, rollout))
        state = state._replace(source=source_state, memory=memory, bonus=bonus_state, replay=stored)
        return state, Rollout(steps, extras, (), (), source_state.obs, source_state.first)

    def step(state, clock):
        rollout_key, learn_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        state, batch = collect(state, rollout_key, lessons.random(clock))
        return lessons.finish(state, batch, learn_key, clock)

    def parts():
        """Programs that each do a part of ``step``, for ``profile=true``: name -> (state, clock) -> anything."""

        def rolled(state, clock):
            return collect(state, jax.random.fold_in(state.key, clock.iteration), False)

        return {"rollout and storing": rolled, "drawing, learning, and the rest": step}

    return Runner(init, step, acts.evaluate, spec, per_iteration, env, acts.start, acts.watch, parts, agent, bonus.info.augments)
