"""Soft actor-critic (Haarnoja et al., arXiv 1801.01290, 1812.05905) as a replay agent, with the switches of its descendants.

    y = r + discount (min_k Q'_k(s', a') - alpha log pi(a'|s') + a2 I(s', a')),    a' ~ pi(s')
    critics   sum_k w (Q_k(s, a) - y)^2
    actor     w (alpha log pi(a|s) - Q(s, a) - a2 I(s, a)),    a ~ pi(s), with gradients through the action
    alpha     log alpha (H(pi) - H_target) goes down,    a2  log a2 (I(s, pi) - I(s, pi')) goes down

- REDQ (arXiv 2101.05982): ``critics`` of which the least of ``subset`` makes the target; the actor follows the mean of all, once in ``policy_delay``
  updates. DroQ (arXiv 2110.02034): ``dropout`` and ``layer_norm`` in the critics.
- MaxInfoRL (arXiv 2412.12098): ``max_info`` puts the information gain I of a differentiable bonus (``Signal.regulariser``) beside the entropy. Its
  temperature a2 rises while the policy is less informative than its own moving average pi'. Its weight is the bonus's ``scale`` times a2.
- DrQ (arXiv 2004.13649): ``augment`` shifts the pictures of a batch at random, once for each of s and s'; ``latent`` has the critics share an encoder, which
  learns from their loss alone (``agents/critics.py``).
- CQL (arXiv 2006.04779): ``agents/conservative.py`` adds to the critics' losses; ``agents/cql.py`` hands it over.

Entropies are of actions in units of half the box, so H_target = -dim means the same in every world. ``reward_scale`` multiplies what ``mix`` made of the
streams. Departures: one Adam over all parameters with one rate; weighted losses are divided by the number of samples whose weight is above 0; no
target entropy for a2, as published.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.actors import Actor
from agents.augmentation import augmentation
from agents.base import Agent, Learnt
from agents.conservative import Conservative
from agents.critics import Critics, least_of_some
from agents.critics import critics as make_critics
from agents.descent import Part, descend, every, mean_of, part, towards
from agents.distributions import distribution
from agents.networks import ACTIVATIONS, ENCODERS, dummy
from agents.streams import MIXES, information_of, total
from envs.base import PyTree, Spec, box_bounds
from envs.builder import FLAG, FRACTION, POSITIVE, Choice, Integer, Optional, Real, Refusal, Sizes, options


class SACState(NamedTuple):
    actor: Part
    critic: Part  # [critics, ...]
    alpha: Part  # log of it
    target: PyTree  # slow critics
    gain: Part | tuple  # log a2; () without max_info
    slow_actor: PyTree  # (); with max_info the moving average of the actor
    updates: jax.Array  # i32[]
    price: Part | tuple = ()  # log price of CQL; () without


@options(
    hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    encoder=Choice(ENCODERS),
    latent=Optional(Integer(1)),
    augment=Integer(0, 255),
    critics=Integer(1, 1000),
    subset=Integer(1, 1000),
    dropout=FRACTION,
    layer_norm=FLAG,
    policy_delay=Integer(1),
    learning_rate=POSITIVE,
    target_rate=FRACTION,
    initial_temperature=POSITIVE,
    learn_temperature=FLAG,
    target_entropy=Optional(Real()),
    max_info=FLAG,
    initial_gain_temperature=POSITIVE,
    reward_scale=POSITIVE,
    mix=MIXES,
)
def sac(
    spec: Spec,
    make_conservative: Callable[[Critics], Conservative] | None = None,
    /,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    encoder: str = "auto",
    latent: int | None = None,
    augment: int = 0,
    critics: int = 2,
    subset: int = 2,
    dropout: float = 0.0,
    layer_norm: bool = False,
    policy_delay: int = 1,
    learning_rate: Any = 3e-4,
    target_rate: Any = 0.005,
    initial_temperature: Any = 1.0,
    learn_temperature: bool = True,
    target_entropy: float | None = None,
    max_info: bool = False,
    initial_gain_temperature: Any = 1.0,
    reward_scale: Any = 1.0,
    mix: str = "sum",
) -> Agent:
    """A stochastic policy over a bounded Box of actions, learnt from a replay.

    Args:
      hidden, activation, encoder: of actor and critics.
      latent: numbers of an encoding that the critics share; null gives each network an encoder of its own.
      augment: pixels by which pictures are shifted at most, along both axes.
      critics, subset: how many there are, and how many the target takes the least of. With more critics than that the actor follows their mean.
      dropout, layer_norm: in the critics.
      policy_delay: updates of the critics per update of actor and temperatures.
      learning_rate: of everything.
      target_rate: share of the way that slow networks go at each update.
      initial_temperature, learn_temperature: alpha at first; false keeps it.
      target_entropy: null is minus the number of actions.
      max_info: information gain beside the entropy.
      initial_gain_temperature: a2 at first.
      reward_scale: of what is learnt from.
      mix: how reward streams become one.

    Raises Refusal for actions that are not a Box, for more critics in a subset than there are, for max_info without a differentiable bonus, and for
    augment without pictures.
    """
    if not isinstance(spec.action, spaces.Box):
        raise Refusal(f"agent=sac moves along axes: it needs Box actions, and {spec.name!r} has {type(spec.action).__name__}; use agent=dqn")
    if subset > critics:
        raise Refusal(f"agent.subset={subset} is more than agent.critics={critics}")
    policy = distribution(spec.action)
    low, high = box_bounds(spec.action)
    size = math.prod(spec.action.shape)
    units = jnp.sum(jnp.log((high - low) / 2.0))  # log density in units of half the box
    wanted = -float(size) if target_entropy is None else target_entropy
    judges = make_critics(spec, critics, hidden, activation, encoder, dropout, layer_norm, latent)
    actor = Actor(judges.seen, tuple(hidden), activation, encoder, policy.size, latent)
    shift = augmentation(spec.observation, augment)
    wary = make_conservative(judges) if make_conservative else None
    actor_rate = wary.actor_rate if wary else learning_rate

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        acts, judged = part(actor.init(actor_key, dummy(judges.seen))), part(judges.init(critic_key))
        log = lambda x: part(jnp.log(jnp.asarray(x, jnp.float32)))  # noqa: E731
        gain = log(initial_gain_temperature) if max_info else ()
        return SACState(acts, judged, log(initial_temperature), judged.params, gain, acts.params if max_info else (), jnp.int32(0), wary.init() if wary else ())

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        parameters = actor.apply(state.actor.params, judges.see(state.critic.params, obs))
        return memory, policy.to_action(policy.sample(parameters, key) if mode == "explore" else policy.mode(parameters)), {}

    def drawn(params, seen, key):
        """(actions [B], their log densities f32[B])."""
        parameters = actor.apply(params, seen)
        raw = policy.sample(parameters, key)
        return policy.to_action(raw), policy.log_prob(parameters, raw) + units

    def learn(state, key, inputs):
        sample, signal = inputs
        stream = total(signal.streams[:1] if max_info else signal.streams, mix)  # the gain is in the losses: it is no reward as well
        information, weight = information_of(signal) if max_info else (None, 0.0)
        next_key, subset_key, drop_key, slow_drop_key, actor_key, slow_key = jax.random.split(key, 6)
        alpha = jnp.exp(state.alpha.params)
        second = weight * jnp.exp(state.gain.params) if max_info else 0.0
        mean = mean_of(sample.weights)
        sample = sample._replace(obs=shift(jax.random.fold_in(key, 2), sample.obs), next_obs=shift(jax.random.fold_in(key, 3), sample.next_obs))

        def drawn_now(obs, key):
            return drawn(state.actor.params, judges.see(state.critic.params, obs), key)

        action, log_prob = drawn_now(sample.next_obs, next_key)
        future = least_of_some(judges.values(state.target, sample.next_obs, action, slow_drop_key), subset_key, subset)
        if wary is None or wary.entropy_backup:
            future = future - alpha * log_prob
        if max_info:
            future = future + second * information(sample.next_obs, action)
        target = reward_scale * stream.reward + stream.discount * jnp.where(sample.terminated, 0.0, future)

        others = wary.others(drawn_now, sample, jax.random.fold_in(key, 1)) if wary else None

        def critic_loss(params):
            values = judges.values(params, sample.obs, sample.action, drop_key)
            loss = mean(jnp.sum(jnp.square(values - target), axis=0))
            excess = mean(jnp.mean(wary.gaps(params, sample, others, values) - wary.threshold, axis=0)) if wary else 0.0
            return loss + critics * wary.price(state.price) * excess if wary else loss, (values, loss, excess)

        (_, (values, loss, excess)), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic.params)
        if wary:
            state = state._replace(price=wary.adapt(state.price, excess))
        critic = descend(state.critic, grads, learning_rate)
        state = state._replace(critic=critic, target=towards(state.target, critic.params, target_rate), updates=state.updates + 1)

        seen = judges.see(critic.params, sample.obs)

        def actor_loss(params):
            action, log_prob = drawn(params, seen, actor_key)
            values = judges.values(critic.params, sample.obs, action)
            worth = jnp.mean(values, axis=0) if critics > subset else jnp.min(values, axis=0)
            found = information(sample.obs, action) if max_info else jnp.zeros_like(log_prob)
            return mean(alpha * log_prob - worth - second * found), (mean(-log_prob), mean(-log_prob - wanted), mean(found))

        def improve(state):
            (loss, (entropy, above, found)), grads = jax.value_and_grad(actor_loss, has_aux=True)(state.actor.params)
            metrics = {"loss/actor": loss, "policy/entropy": entropy}
            state = state._replace(actor=descend(state.actor, grads, actor_rate))
            if learn_temperature:
                state = state._replace(alpha=descend(state.alpha, above, actor_rate))
            if max_info:
                before = mean(information(sample.obs, drawn(state.slow_actor, seen, slow_key)[0]))
                metrics |= {"policy/information": found, "policy/information_before": before}
                slow = towards(state.slow_actor, state.actor.params, target_rate)
                state = state._replace(gain=descend(state.gain, found - before, learning_rate), slow_actor=slow)
            return state, metrics

        state, metrics = every(policy_delay, state.updates, spec.axis, improve, state)
        metrics |= {"loss/critic": loss, "policy/value": mean(jnp.mean(values, axis=0)), "policy/temperature": alpha}
        if wary:
            metrics |= {"policy/gap": excess + mean(jnp.full_like(values[0], wary.threshold)), "policy/price": wary.price(state.price)}
        if max_info:
            metrics["policy/information_temperature"] = jnp.asarray(second, jnp.float32)
        return state, Learnt(metrics, jnp.abs(jnp.mean(values, axis=0) - target))

    def encode(state, obs):
        if judges.encode:
            return judges.encode(state.critic.params, obs)
        return actor.apply(state.actor.params, obs, method="encode")

    return Agent(init=init, start=lambda state, lanes: (), act=act, learn=learn, encode=encode, learns_from="replay")
