"""TD3 (Fujimoto et al., arXiv 1802.09477) as a replay agent: a deterministic policy and the lesser of two critics.

    a' = clip(pi'(s') + clip(noise, -c, c)),    noise ~ N(0, target_noise),    y = r + discount min_k Q'_k(s', a')
    critics   sum_k w (Q_k(s, a) - y)^2
    actor     -w Q_1(s, pi(s)), once in ``policy_delay`` updates, and with it the slow networks

Random reward shifts (Sun et al., arXiv 2209.07288): a pair of critics for each constant in ``shifts``, each learning from rewards with its constant
added; pair i's values are those of the reward from a start that is i's constant / (1 - discount) lower, so some pairs are optimistic about what was never
tried and some are not. The actor follows the first critic of one pair, drawn again once in ``shift_period`` updates.

    y_i = r + shifts_i + discount min(Q'_i1(s', a'), Q'_i2(s', a')),    actor  -w Q_i1(s, pi(s))

Exploring adds N(0, exploration_noise) to the action. All noise is in units of half the box, and actions are clipped to it. Departures: one rate for
actor and critics; weighted losses are divided by the number of samples whose weight is above 0; the actor's last layer has gain 0.1. Pairs are drawn
by updates, where the published code waits for an episode's end as well; with n-step samples a shift is added once to each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.actors import Actor
from agents.base import Agent, Learnt
from agents.critics import critics as make_critics
from agents.descent import Part, descend, every, mean_of, part, towards
from agents.networks import ACTIVATIONS, ENCODERS, dummy
from agents.streams import MIXES, total
from envs.base import PyTree, Spec, box_bounds
from envs.builder import FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Numbers, Refusal, Sizes, options


class TD3State(NamedTuple):
    actor: Part
    critic: Part  # [pairs x 2, ...]
    slow_actor: PyTree
    target: PyTree  # slow critics
    updates: jax.Array  # i32[]
    pair: jax.Array  # i32[]; that the actor follows


@options(
    hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    encoder=Choice(ENCODERS),
    policy_delay=Integer(1),
    exploration_noise=NON_NEGATIVE,
    target_noise=NON_NEGATIVE,
    noise_clip=POSITIVE,
    shifts=Numbers(),
    shift_period=Integer(1),
    learning_rate=POSITIVE,
    target_rate=FRACTION,
    reward_scale=POSITIVE,
    mix=MIXES,
)
def td3(
    spec: Spec,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    encoder: str = "auto",
    policy_delay: int = 2,
    exploration_noise: Any = 0.1,
    target_noise: Any = 0.2,
    noise_clip: Any = 0.5,
    shifts: Sequence[float] = (0.0,),
    shift_period: int = 1000,
    learning_rate: Any = 3e-4,
    target_rate: Any = 0.005,
    reward_scale: Any = 1.0,
    mix: str = "sum",
) -> Agent:
    """A deterministic policy over a bounded Box of actions, learnt from a replay.

    Args:
      hidden, activation, encoder: of actor and critics.
      policy_delay: updates of the critics per update of actor and slow networks.
      exploration_noise, target_noise, noise_clip: deviations of what is added to actions and to the target's, and the limit of the latter; in
        units of half the box.
      shifts, shift_period: constants, one for each pair of critics, and updates until the actor follows another pair.
      learning_rate, target_rate: of everything; share of the way that slow networks go when they go.
      reward_scale: of what is learnt from.
      mix: how reward streams become one.

    Raises Refusal for actions that are not a Box.
    """
    if not isinstance(spec.action, spaces.Box):
        raise Refusal(f"agent=td3 moves along axes: it needs Box actions, and {spec.name!r} has {type(spec.action).__name__}; use agent=dqn")
    low, high = box_bounds(spec.action)
    actor = Actor(spec.observation, tuple(hidden), activation, encoder, math.prod(spec.action.shape))
    pairs, added = len(shifts), jnp.asarray(shifts, jnp.float32)[:, None]
    judges = make_critics(spec, 2 * pairs, hidden, activation, encoder)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        acts, judged = part(actor.init(actor_key, dummy(spec.observation))), part(judges.init(critic_key))
        return TD3State(acts, judged, acts.params, judged.params, jnp.int32(0), jax.random.randint(jax.random.fold_in(key, 2), (), 0, pairs))

    def units(params, obs):
        """pi(obs) in units of half the box, f32[B, axes]."""
        return jnp.tanh(actor.apply(params, obs))

    def in_box(x):
        x = jnp.clip(x, -1.0, 1.0)
        return low + (high - low) * (x.reshape(*x.shape[:-1], *spec.action.shape) + 1.0) / 2.0

    def noise(x, key, deviation):
        return deviation * jax.random.normal(key, x.shape)

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        x = units(state.actor.params, obs)
        return memory, in_box(x + noise(x, key, exploration_noise) if mode == "explore" else x), {}

    def learn(state, key, inputs):
        sample, signal = inputs
        stream, mean = total(signal.streams, mix), mean_of(sample.weights)
        x = units(state.slow_actor, sample.next_obs)
        action = in_box(x + jnp.clip(noise(x, key, target_noise), -noise_clip, noise_clip))
        future = jnp.min(in_pairs(judges.values(state.target, sample.next_obs, action)), axis=1)
        target = reward_scale * stream.reward + added + stream.discount * jnp.where(sample.terminated, 0.0, future)  # [pairs, B]

        def critic_loss(params):
            values = in_pairs(judges.values(params, sample.obs, sample.action))
            return mean(jnp.sum(jnp.square(values - target[:, None]), axis=(0, 1))), jnp.mean(values, axis=1)

        (loss, values), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic.params)
        state = state._replace(critic=descend(state.critic, grads, learning_rate), updates=state.updates + 1)
        if pairs > 1:
            drawn = jax.random.randint(jax.random.fold_in(key, 1), (), 0, pairs)
            state = state._replace(pair=jnp.where(state.updates % shift_period == 0, drawn, state.pair))

        def improve(state):
            first = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, 2 * state.pair, 1), state.critic.params)
            loss, grads = jax.value_and_grad(lambda params: -mean(judges.values(first, sample.obs, in_box(units(params, sample.obs)))[0]))(state.actor.params)
            acts = descend(state.actor, grads, learning_rate)
            slow = towards((state.slow_actor, state.target), (acts.params, state.critic.params), target_rate)
            return state._replace(actor=acts, slow_actor=slow[0], target=slow[1]), {"loss/actor": loss}

        state, metrics = every(policy_delay, state.updates, spec.axis, improve, state)
        metrics |= {"loss/critic": loss, "policy/value": mean(jnp.mean(values, axis=0))}
        if pairs > 1:
            metrics["policy/shift"] = added[state.pair, 0]
        return state, Learnt(metrics, jnp.mean(jnp.abs(values - target), axis=0))

    def in_pairs(values):
        """f32[pairs x 2, B] -> f32[pairs, 2, B]."""
        return values.reshape(pairs, 2, -1)

    def encode(state, obs):
        return actor.apply(state.actor.params, obs, method="encode")

    return Agent(init=init, start=lambda state, lanes: (), act=act, learn=learn, encode=encode, learns_from="replay")
