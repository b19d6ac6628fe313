"""TD3 (Fujimoto et al., arXiv 1802.09477) as a replay agent: a deterministic policy and the lesser of two critics.

    a' = clip(pi'(s') + clip(noise, -c, c)),    noise ~ N(0, target_noise),    y = r + discount min_k Q'_k(s', a')
    critics   sum_k w (Q_k(s, a) - y)^2
    actor     -w Q_1(s, pi(s)), once in ``policy_delay`` updates, and with it the slow networks

Random reward shifts (Sun et al., arXiv 2209.07288): a pair of critics for each constant in ``shifts``, each learning from rewards with its constant
added; pair i's values are those of the reward from a start that is i's constant / (1 - discount) lower, so some pairs are optimistic about what was never
tried and some are not. The actor follows the first critic of one pair, drawn again once in ``shift_period`` updates.

    y_i = r + shifts_i + discount min(Q'_i1(s', a'), Q'_i2(s', a')),    actor  -w Q_i1(s, pi(s))

DrQ-v2 (Yarats et al., arXiv 2107.09645): ``augment`` and ``latent`` as in ``agents/sac.py``; exploration_noise falls linearly to ``final_noise`` within
``noise_updates``; with ``noisy_policy`` the policy is taken to be noisy itself: there is no slow policy, targets and the actor's loss are at actions
with the noise of the moment, within c, and the actor follows the lesser of its two critics.

    x' = pi(s') + clip(noise, -c, c),    actor  -w min_k Q_k(s, pi(s) + clip(noise, -c, c)),    noise ~ N(0, exploration_noise)

MaxInfoRL on DrQ-v2 (Sukhija et al., arXiv 2412.12098), ``max_info``: a second pair of critics learns from the bonus alone, and the actor follows both,

    y_e = ig + discount_e min_k Q_e,k'(s', a'),    actor  -w (Q(s, pi(s)) + a2 min_k Q_e,k(s, pi(s)))
    a2: log a2 (ig(s, pi) - ig(s, pi')) goes down; pi' is the actor's moving average

Where the task's critics share an encoder, those of the bonus see its encoding without gradient. ig, its discount, and whether it counts beyond the end
of an episode, are those of the bonus's stream.

Exploring adds N(0, exploration_noise) to the action. All noise is in units of half the box, and actions are clipped to it. Departures: one rate for
actor and critics; weighted losses are divided by the number of samples whose weight is above 0; the actor's last layer has gain 0.1. Pairs are drawn
by updates, where the published code waits for an episode's end as well; with n-step samples a shift is added once to each, and the bonus's
critics learn from n steps too, where MaxInfoRL's learn from one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.actors import Actor
from agents.augmentation import augmentation
from agents.base import Agent, Learnt
from agents.critics import critics as make_critics
from agents.descent import Part, descend, every, mean_of, part, towards
from agents.networks import ACTIVATIONS, ENCODERS, dummy
from agents.streams import MIXES, information_of, total
from envs.base import PyTree, Spec, box_bounds
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Numbers, Optional, Refusal, Sizes, options


class Seeker(NamedTuple):
    """What MaxInfoRL adds."""

    critic: Part  # [2, ...], of the bonus
    target: PyTree  # slow critics
    gain: Part  # log a2


class TD3State(NamedTuple):
    actor: Part
    critic: Part  # [pairs x 2, ...]
    slow_actor: PyTree  # () with noisy_policy, unless max_info needs it
    target: PyTree  # slow critics
    updates: jax.Array  # i32[]
    pair: jax.Array  # i32[]; that the actor follows
    seeker: Seeker | tuple = ()  # with max_info


@options(
    hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    encoder=Choice(ENCODERS),
    latent=Optional(Integer(1)),
    augment=Integer(0, 255),
    policy_delay=Integer(1),
    exploration_noise=NON_NEGATIVE,
    final_noise=Optional(NON_NEGATIVE),
    noise_updates=Integer(1),
    noisy_policy=FLAG,
    target_noise=NON_NEGATIVE,
    noise_clip=POSITIVE,
    shifts=Numbers(),
    shift_period=Integer(1),
    max_info=FLAG,
    initial_gain_temperature=POSITIVE,
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
    latent: int | None = None,
    augment: int = 0,
    policy_delay: int = 2,
    exploration_noise: Any = 0.1,
    final_noise: Any | None = None,
    noise_updates: int = 50_000,
    noisy_policy: bool = False,
    target_noise: Any = 0.2,
    noise_clip: Any = 0.5,
    shifts: Sequence[float] = (0.0,),
    shift_period: int = 1000,
    max_info: bool = False,
    initial_gain_temperature: Any = 1.0,
    learning_rate: Any = 3e-4,
    target_rate: Any = 0.005,
    reward_scale: Any = 1.0,
    mix: str = "sum",
) -> Agent:
    """A deterministic policy over a bounded Box of actions, learnt from a replay.

    Args:
      hidden, activation, encoder: of actor and critics.
      latent: numbers of an encoding that the critics share; null gives each network an encoder of its own.
      augment: pixels by which pictures are shifted at most, along both axes.
      policy_delay: updates of the critics per update of actor and slow networks.
      exploration_noise, target_noise, noise_clip: deviations of what is added to actions and to the target's, and the limit of the latter; in
        units of half the box.
      final_noise, noise_updates: exploration_noise at last, and the number of updates until then; null leaves it as it is.
      noisy_policy: exploration_noise also in targets and in the actor's loss, in place of target_noise; the actor then follows two critics.
      shifts, shift_period: constants, one for each pair of critics, and updates until the actor follows another pair.
      max_info, initial_gain_temperature: a pair of critics of the bonus beside those of the task, and a2 at first.
      learning_rate, target_rate: of everything; share of the way that slow networks go when they go.
      reward_scale: of what is learnt from.
      mix: how reward streams become one.

    Raises Refusal for actions that are not a Box, for augment without pictures, and for max_info without a differentiable bonus.
    """
    if not isinstance(spec.action, spaces.Box):
        raise Refusal(f"agent=td3 moves along axes: it needs Box actions, and {spec.name!r} has {type(spec.action).__name__}; use agent=dqn")
    low, high = box_bounds(spec.action)
    pairs, added = len(shifts), jnp.asarray(shifts, jnp.float32)[:, None]
    judges = make_critics(spec, 2 * pairs, hidden, activation, encoder, latent=latent)
    actor = Actor(judges.seen, tuple(hidden), activation, encoder, math.prod(spec.action.shape), latent)
    shift = augmentation(spec.observation, augment)
    encoded = spec if judges.encode is None else spec._replace(observation=spaces.Box(-1.0, 1.0, (latent,), np.float32))
    seekers = make_critics(encoded, 2, hidden, activation, encoder if judges.encode is None else "mlp")

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        acts, judged = part(actor.init(actor_key, dummy(judges.seen))), part(judges.init(critic_key))
        slow = () if noisy_policy and not max_info else acts.params
        sought = part(seekers.init(jax.random.fold_in(key, 3))) if max_info else ()
        seeker = Seeker(sought, sought.params, part(jnp.log(jnp.asarray(initial_gain_temperature, jnp.float32)))) if max_info else ()
        return TD3State(acts, judged, slow, judged.params, jnp.int32(0), jax.random.randint(jax.random.fold_in(key, 2), (), 0, pairs), seeker)

    def units(params, seen):
        """pi in units of half the box, f32[B, axes]."""
        return jnp.tanh(actor.apply(params, seen))

    def in_box(x):
        return scaled(jnp.clip(x, -1.0, 1.0))

    def scaled(x):
        return low + (high - low) * (x.reshape(*x.shape[:-1], *spec.action.shape) + 1.0) / 2.0

    def noise(x, key, deviation):
        return deviation * jax.random.normal(key, x.shape)

    def deviation(state):
        """Of exploration, now."""
        if final_noise is None:
            return exploration_noise
        return exploration_noise + (final_noise - exploration_noise) * jnp.minimum(state.updates / noise_updates, 1.0)

    def limited(x, key, deviation):
        return x + jnp.clip(noise(x, key, deviation), -noise_clip, noise_clip)

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        x = units(state.actor.params, judges.see(state.critic.params, obs))
        return memory, in_box(x + noise(x, key, deviation(state)) if mode == "explore" else x), {}

    def learn(state, key, inputs):
        sample, signal = inputs
        stream, mean = total(signal.streams[:1] if max_info else signal.streams, mix), mean_of(sample.weights)
        information, weight = information_of(signal) if max_info else (None, 0.0)
        sample = sample._replace(obs=shift(jax.random.fold_in(key, 2), sample.obs), next_obs=shift(jax.random.fold_in(key, 3), sample.next_obs))
        wide = deviation(state) if noisy_policy else target_noise
        x = units(state.actor.params if noisy_policy else state.slow_actor, judges.see(state.critic.params, sample.next_obs))
        action = in_box(limited(x, key, wide))
        future = jnp.min(in_pairs(judges.values(state.target, sample.next_obs, action)), axis=1)
        target = reward_scale * stream.reward + added + stream.discount * jnp.where(sample.terminated, 0.0, future)  # [pairs, B]

        def critic_loss(params):
            values = in_pairs(judges.values(params, sample.obs, sample.action))
            return mean(jnp.sum(jnp.square(values - target[:, None]), axis=(0, 1))), jnp.mean(values, axis=1)

        (loss, values), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic.params)
        state = state._replace(critic=descend(state.critic, grads, learning_rate), updates=state.updates + 1)
        sought_loss = jnp.float32(0.0)
        if max_info:
            state, sought_loss = seek(state, sample, signal.streams[1], action, mean)
        if pairs > 1:
            drawn = jax.random.randint(jax.random.fold_in(key, 1), (), 0, pairs)
            state = state._replace(pair=jnp.where(state.updates % shift_period == 0, drawn, state.pair))

        def improve(state):
            followed = judges.some(state.critic.params, 2 * state.pair, 2 if noisy_policy else 1)
            seen = judges.see(state.critic.params, sample.obs)

            def actor_loss(params):
                x = units(params, seen)
                if noisy_policy:
                    x = limited(x, jax.random.fold_in(key, 4), wide)
                    action = scaled(x + jax.lax.stop_gradient(jnp.clip(x, -1.0, 1.0) - x))  # gradients as if there were no box, as published
                else:
                    action = in_box(x)
                worth = jnp.min(judges.values(followed, sample.obs, action), axis=0)
                if max_info:
                    worth = worth + second * jnp.min(seekers.values(state.seeker.critic.params, views(state, sample.obs), action), axis=0)
                return -mean(worth)

            second = weight * jnp.exp(state.seeker.gain.params) if max_info else 0.0
            loss, grads = jax.value_and_grad(actor_loss)(state.actor.params)
            acts, metrics = descend(state.actor, grads, learning_rate), {"loss/actor": loss}
            seeker = state.seeker
            if max_info:
                found, before = (mean(information(sample.obs, in_box(units(params, seen)))) for params in (state.actor.params, state.slow_actor))
                metrics |= {"policy/information": found, "policy/information_before": before}
                metrics["policy/information_temperature"] = jnp.asarray(second, jnp.float32)
                slow = towards(seeker.target, seeker.critic.params, target_rate)
                seeker = seeker._replace(gain=descend(seeker.gain, found - before, learning_rate), target=slow)
            followers = (() if noisy_policy and not max_info else acts.params, state.critic.params)
            slow = towards((state.slow_actor, state.target), followers, target_rate)
            return state._replace(actor=acts, slow_actor=slow[0], target=slow[1], seeker=seeker), metrics

        state, metrics = every(policy_delay, state.updates, spec.axis, improve, state)
        metrics |= {"loss/critic": loss, "policy/value": mean(jnp.mean(values, axis=0))}
        if final_noise is not None:
            metrics["policy/noise"] = jnp.asarray(wide if noisy_policy else deviation(state), jnp.float32)
        if max_info:
            metrics["loss/information_critic"] = sought_loss
        if pairs > 1:
            metrics["policy/shift"] = added[state.pair, 0]
        return state, Learnt(metrics, jnp.mean(jnp.abs(values - target), axis=0))

    def views(state, obs):
        """What the critics of the bonus see; no gradient goes back."""
        return obs if judges.encode is None else jax.lax.stop_gradient(judges.encode(state.critic.params, obs))

    def seek(state, sample, stream, next_action, mean):
        """(state, loss) after one update of the critics of the bonus."""
        critic, target, _ = state.seeker
        future = jnp.min(seekers.values(target, views(state, sample.next_obs), next_action), axis=0)
        ended = sample.terminated & jnp.asarray(stream.episodic)
        wanted = stream.reward + stream.discount * jnp.where(ended, 0.0, future)
        seen = views(state, sample.obs)

        def loss_of(params):
            return mean(jnp.sum(jnp.square(seekers.values(params, seen, sample.action) - wanted), axis=0))

        loss, grads = jax.value_and_grad(loss_of)(critic.params)
        return state._replace(seeker=state.seeker._replace(critic=descend(critic, grads, learning_rate))), loss

    def in_pairs(values):
        """f32[pairs x 2, B] -> f32[pairs, 2, B]."""
        return values.reshape(pairs, 2, -1)

    def encode(state, obs):
        if judges.encode:
            return judges.encode(state.critic.params, obs)
        return actor.apply(state.actor.params, obs, method="encode")

    return Agent(init=init, start=lambda state, lanes: (), act=act, learn=learn, encode=encode, learns_from="replay")
