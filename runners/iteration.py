"""What an on-policy iteration is made of, wherever the world lives: pure functions of one member.

Per step, in this order: ``features(obs)``, ``act``, world step, ``observe``, ``features(next_obs)``, ``reset(done)``. After the rollout: ``score``
-> ``calibrate`` -> ``value`` of the bonus, ``learn`` of the agent, ``update`` of the bonus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.base import Agent, Imitation, Learnt, Regulariser, RewardStream, Rollout, Signal
from agents.networks import dummy
from envs.base import Key, PyTree, Spec, Tally, Transition
from envs.builder import Refusal
from exploration.base import Bonus
from exploration.hash_table import hash_observation
from exploration.intrinsic import Intrinsic
from runners import metrics as m
from runners.base import Clock

EVALUATION_LIMIT = 1000  # steps of an evaluation episode in a world without a limit of its own
MAX_CELLS = 2**16  # larger maps are not recorded
MAX_STATES = 2**18  # visits of more states than this, or of fingerprints, share that many places


WAYS = {"rollout": "the newest rollout", "replay": "a replay buffer"}


class Record(NamedTuple):
    """What has happened in the member's episodes so far."""

    episodes: jax.Array  # i32[]
    best_return: jax.Array  # f32[]
    first_success: jax.Array  # u32[]; environment steps until an episode first succeeded, 0 before
    tally: PyTree  # the world's own score
    visits: jax.Array | None  # u32[rows, columns]; where steps ended, in worlds that are maps
    state_visits: jax.Array | None  # u32[places]; in worlds that tell states apart, for runs with a bonus


class Assessed(NamedTuple):
    """A rollout and the rewards that it is learnt from."""

    rollout: Rollout
    streams: tuple[RewardStream, ...]
    steps: Transition  # as the bonus is given them
    weights: jax.Array | None = None  # f32[T, N]; of the steps in the agent's losses
    imitation: Imitation | None = None


class Iteration(NamedTuple):
    """The pieces. ``spec`` is what the agent sees; the keys are split by whoever calls."""

    spec: Spec
    agent: Agent
    bonus: Bonus
    seen: Callable  # (bonus state, obs) -> what the agent sees
    world: Callable  # (transitions as the agent saw them) -> as the world gave them
    shown: Callable  # (agent state, transition of the world) -> as the bonus is given it
    observed: Callable  # (agent state, bonus state, key, transition [N], what the agent saw) -> (bonus state, transition as the agent saw it)
    fresh_record: Callable[[], Record]
    assess: Callable  # (agent state, bonus state, rollout) -> (bonus state, Assessed, metrics)
    rescore: Callable  # (agent state, bonus state, transitions as the agent saw them) -> (streams, transitions as the bonus is given them); no statistics
    regulariser: Callable  # (agent state, bonus state) -> Regulariser, or None where the bonus is not differentiable
    learn: Callable  # (agent state, key, (Assessed, progress)) -> (agent state, Learnt)
    updated: Callable  # (record, Assessed, clock) -> (record, metrics)


def iteration(
    spec: Spec,
    make_agent: Callable[[Spec], Agent],
    make_intrinsic: Callable[[Spec], Intrinsic],
    *,
    rewards: Callable[[Transition], RewardStream],
    tally: Tally | None = None,
    learns_from: str = "rollout",
) -> Iteration:
    """The pieces for a world's ``spec`` with lanes and axis. ``rewards``: the world's own stream, of ``runners/rewards.py``. ``learns_from``: what the
    agent will be given, "rollout" or "replay"."""
    intrinsic = make_intrinsic(spec._replace(latent=lambda: latent_space(spec, make_agent)))
    if not isinstance(intrinsic, Intrinsic):
        raise Refusal("this runner pays a bonus, and this exploration makes an archive of states to return to; use runner=go_explore")
    bonus = intrinsic.bonus
    agent_spec = seen_by_agent(spec, bonus)
    agent = make_agent(agent_spec)
    if agent.learns_from not in (learns_from, "anything"):
        others = {"rollout": "runner=on_policy", "replay": "runner=off_policy"}
        raise Refusal(f"this agent learns from {WAYS[agent.learns_from]}, and this runner gives it {WAYS[learns_from]}; use {others[agent.learns_from]}")
    mapped = spec.grid is not None and spec.grid[0] * spec.grid[1] <= MAX_CELLS
    counted = bonus.info.intrinsic and "state_id" in spec.info
    numbered = counted and spec.num_states is not None and spec.num_states <= MAX_STATES

    def seen(bonus_state, obs):
        return {"obs": obs, "features": bonus.features(bonus_state, obs)} if bonus.info.augments else obs

    def world_part(transitions: Transition) -> Transition:
        if not bonus.info.augments:
            return transitions
        return transitions._replace(obs=transitions.obs["obs"], next_obs=transitions.next_obs["obs"])

    def shown(agent_state, transition: Transition) -> Transition:
        if intrinsic.input == "observation":
            return transition
        before, after = (agent.encode(agent_state, obs) for obs in (transition.obs, transition.next_obs))
        return transition._replace(obs=before, next_obs=after)

    def observed(agent_state, bonus_state, key: Key, transition: Transition, obs):
        bonus_state, annotations = bonus.observe(bonus_state, key, shown(agent_state, transition))
        transition = transition._replace(obs=obs, next_obs=seen(bonus_state, transition.next_obs), annotations=annotations)
        return bonus.reset(bonus_state, transition.done), transition

    def streams_of(steps: Transition, reward) -> tuple[RewardStream, ...]:
        streams = (rewards(steps),)
        return (*streams, RewardStream(reward, intrinsic.discount, intrinsic.scale, intrinsic.episodic)) if bonus.info.intrinsic else streams

    def assess(agent_state, bonus_state, rollout: Rollout):
        steps = shown(agent_state, world_part(rollout.transitions))
        raw = bonus.score(bonus_state, steps)
        bonus_state = bonus.calibrate(bonus_state, raw)
        reward = bonus.value(bonus_state, raw)
        metrics = reward_metrics(steps, raw, reward) if bonus.info.intrinsic else {}
        return bonus_state, Assessed(rollout, streams_of(steps, reward), steps), metrics

    def rescore(agent_state, bonus_state, transitions: Transition):
        steps = shown(agent_state, world_part(transitions))
        return streams_of(steps, bonus.value(bonus_state, bonus.score(bonus_state, steps))), steps

    def regulariser(agent_state, bonus_state) -> Regulariser | None:
        if not bonus.info.differentiable or not set(bonus.info.needs) <= {"obs", "action"}:
            return None

        def value(obs, action):
            obs = obs["obs"] if bonus.info.augments else obs
            obs = obs if intrinsic.input == "observation" else agent.encode(agent_state, obs)
            return bonus.value(bonus_state, bonus.score(bonus_state, Transition(obs, action, *[None] * 5, {})))

        return Regulariser(value, intrinsic.scale)

    def learn(agent_state, key: Key, inputs: tuple[Assessed, jax.Array]) -> tuple[PyTree, Learnt]:
        assessed, progress = inputs
        return agent.learn(agent_state, key, (assessed.rollout, Signal(assessed.streams, progress, assessed.weights, assessed.imitation)))

    def reward_metrics(steps, raw, reward):
        weighted = intrinsic.scale * reward
        size, world = jnp.mean(jnp.abs(weighted)), jnp.mean(jnp.abs(rewards(steps).weight * steps.reward))
        leaves = jax.tree.leaves(raw)
        names = ["bonus/raw"] if len(leaves) == 1 else [f"bonus/raw_{i}" for i in range(len(leaves))]
        return dict(zip(names, map(jnp.mean, leaves), strict=True)) | {
            "bonus/normalised": jnp.mean(reward),
            "bonus/weighted": jnp.mean(weighted),
            "bonus/share": size / (size + world + 1e-8),
        }

    def fresh_record() -> Record:
        visits = jnp.zeros(spec.grid, jnp.uint32) if mapped else None
        states = jnp.zeros(spec.num_states if numbered else MAX_STATES, jnp.uint32) if counted else None
        return Record(jnp.int32(0), jnp.float32(jnp.finfo(jnp.float32).min), jnp.uint32(0), tally.init() if tally else (), visits, states)

    def updated(record: Record, assessed: Assessed, clock: Clock) -> tuple[Record, dict[str, Any]]:
        steps = assessed.steps
        returns, lengths, done = steps.info["episode_return"], steps.info["episode_length"], steps.done
        best = jnp.maximum(record.best_return, jnp.max(jnp.where(done, returns, jnp.finfo(jnp.float32).min)))
        first = record.first_success
        found = {"episode/return": m.mean(returns, done), "episode/length": m.mean(lengths, done)}
        if spec.success_return is not None:
            success = done & (returns >= spec.success_return)
            found["episode/success"] = m.mean(returns >= spec.success_return, done)
            at = (clock.iteration * done.shape[0] + jnp.argmax(jnp.any(success, axis=1)) + 1).astype(jnp.uint32) * done.shape[1]
            first = jnp.where((first == 0) & jnp.any(success), at, first)
            found["episode/first_success_step"] = m.Last(first, first > 0)
        visits = record.visits
        if mapped:
            row, column = jnp.moveaxis(steps.info["position"], -1, 0)
            visits = visits.at[row.reshape(-1), column.reshape(-1)].add(jnp.uint32(1), mode="drop")
        state_visits = record.state_visits
        if counted:
            reached = steps.info["state_id"] if numbered else place_of(steps.info["state_id"], done.ndim)
            state_visits = state_visits.at[reached.reshape(-1)].add(jnp.uint32(1), mode="drop")
            rare = jax.lax.rsqrt(state_visits[reached].astype(jnp.float32))
            found["bonus/count_correlation"] = correlation(assessed.streams[-1].reward, rare)
        scores = tally.update(record.tally, steps) if tally else ()
        new = Record(record.episodes + jnp.sum(done, dtype=jnp.int32), best, first, scores, visits, state_visits)
        found |= {"episode/count": m.Last(new.episodes), "episode/best_return": m.Last(best, new.episodes > 0)}
        if mapped:
            cells = jnp.sum(visits > 0, dtype=jnp.int32)
            found["episode/cells"] = m.Last(cells)
            if spec.num_cells:
                found["episode/coverage"] = m.Last(cells / spec.num_cells)
        if tally:
            found |= {f"world/{name}": m.Last(value) for name, value in tally.report(scores).items()}
        return new, found

    return Iteration(agent_spec, agent, bonus, seen, world_part, shown, observed, fresh_record, assess, rescore, regulariser, learn, updated)


def place_of(states: jax.Array, lead_ndim: int) -> jax.Array:
    """Where visits of these states are counted, i32[lead...]: two of n states share a place with probability 2^-18."""
    return (hash_observation(states, lead_ndim)[..., 0] & jnp.uint32(MAX_STATES - 1)).astype(jnp.int32)


def correlation(x: jax.Array, y: jax.Array) -> m.Mean:
    """Pearson's, over all elements; left out of the mean where one of them does not vary."""
    x, y = x - jnp.mean(x), y - jnp.mean(y)
    scale = jnp.sqrt(jnp.sum(x * x)) * jnp.sqrt(jnp.sum(y * y))
    varies = scale > 1e-8 * x.size
    return m.Mean(jnp.where(varies, jnp.sum(x * y) / jnp.where(varies, scale, 1.0), 0.0), varies.astype(jnp.float32))


def latent_space(spec: Spec, make_agent: Callable[[Spec], Agent]) -> spaces.Box:
    """Of the agent's encoding of the world's observations. Raises Refusal for agents that have none."""
    agent = make_agent(spec._replace(streams=("extrinsic", "intrinsic")))
    if agent.encode is None:
        raise Refusal("exploration.input=latent shares the agent's encoder, and this agent has none; use exploration.input=observation")
    latent = jax.eval_shape(lambda key: agent.encode(agent.init(key), dummy(spec.observation)), jax.random.PRNGKey(0))
    return spaces.Box(-np.inf, np.inf, latent.shape[1:], np.float32)


def seen_by_agent(spec: Spec, bonus: Bonus) -> Spec:
    """The spec the agent is built for: augmented observations, and one stream per reward."""
    if bonus.info.augments:
        spec = spec._replace(observation=spaces.Dict({"obs": spec.observation, "features": bonus.info.features}))
    return spec._replace(streams=("extrinsic", "intrinsic") if bonus.info.intrinsic else ("extrinsic",))


def evaluation_metrics(returns: jax.Array, lengths: jax.Array, spec: Spec) -> dict[str, Any]:
    """Of one episode per lane, [N]."""
    found = {"evaluation/return": m.mean(returns), "evaluation/length": m.mean(lengths)}
    if spec.success_return is not None:
        found["evaluation/success"] = m.mean(returns >= spec.success_return)
    return found
