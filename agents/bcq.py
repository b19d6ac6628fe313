"""BCQ (Fujimoto et al., arXiv 1812.02900): Q-learning that considers such actions only as the data might hold, as a replay agent.

    VAE       |a - D(s, z)|^2 / n + KL(q(z|s, a), N(0, 1)) / (2 m),    z ~ q(z|s, a) of m = 2 n numbers for n axes
    b(s) = D(s, clip(z, -0.5, 0.5)), z ~ N(0, 1);    a(s) = clip(b + phi tanh(xi(s, b)))
    y = r + discount max over ``target_candidates`` of a'(s'): lambda min_k Q'_k + (1 - lambda) max_k Q'_k
    critics   sum_k w (Q_k(s, a) - y)^2;    perturbation xi   -w Q_1(s, a(s));    slow networks at every update

Acting takes, of ``candidates`` such actions, the one of highest Q_1. Greedy acting draws them with the same z everywhere: a function of the
observation. Actions are in units of half the box. Departures: weights are orthogonal at first, and weighted losses are divided by the number of
samples whose weight is above 0. The numbers are those of arXiv 2209.07288, part C, and of the authors' program (sfujim/BCQ, ``continuous_BCQ``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.base import Agent, Learnt
from agents.critics import critics as make_critics
from agents.descent import Part, descend, mean_of, part, towards
from agents.networks import ACTIVATIONS, ENCODERS, MLP, dummy, make_encoder
from agents.streams import MIXES, total
from envs.base import PyTree, Spec, box_bounds
from envs.builder import FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Refusal, Sizes, options

LOG_STD_MIN, LOG_STD_MAX, CLIP = -4.0, 15.0, 0.5


class BCQState(NamedTuple):
    encoder: Part  # q(z|s, a), and what it makes of observations
    decoder: Part  # D
    perturbation: Part  # xi
    critic: Part  # [2, ...]
    slow_perturbation: PyTree
    target: PyTree  # slow critics


class Joint(nn.Module):
    """An observation and some numbers: (obs [B, ...], f32[B, n]) -> f32[B, size]."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    size: int

    def setup(self):
        self.encode_obs = make_encoder(self.space, self.encoder)
        self.layers = MLP(tuple(self.hidden), self.act, self.size, 1.0)

    def __call__(self, obs, numbers):
        return self.layers(jnp.concatenate([self.encode_obs(obs), numbers], axis=-1))

    def encode(self, obs):
        return self.encode_obs(obs)


@options(
    hidden=Sizes(),
    vae_hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    encoder=Choice(ENCODERS),
    candidates=Integer(1, 10_000),
    target_candidates=Integer(1, 10_000),
    phi=NON_NEGATIVE,
    lambda_=FRACTION,
    actor_learning_rate=POSITIVE,
    learning_rate=POSITIVE,
    target_rate=FRACTION,
    reward_scale=POSITIVE,
    mix=MIXES,
)
def bcq(
    spec: Spec,
    *,
    hidden: Sequence[int] = (400, 300),
    vae_hidden: Sequence[int] = (750, 750),
    activation: str = "relu",
    encoder: str = "auto",
    candidates: int = 100,
    target_candidates: int = 10,
    phi: Any = 0.05,
    lambda_: Any = 0.75,
    actor_learning_rate: Any = 1e-3,
    learning_rate: Any = 1e-3,
    target_rate: Any = 0.005,
    reward_scale: Any = 1.0,
    mix: str = "sum",
) -> Agent:
    """The best of some actions that the data might hold, over a bounded Box of actions, learnt from a replay.

    Args:
      hidden, vae_hidden, activation, encoder: of perturbation and critics; of the VAE's two halves; of all.
      candidates, target_candidates: actions that acting, and the target, take the best of.
      phi: how far an action may be perturbed, in units of half the box.
      lambda_: weight of the lesser critic in the target; the greater one has the rest.
      actor_learning_rate, learning_rate, target_rate: of the perturbation; of VAE and critics; share of the way that slow networks go at each update.
      reward_scale: of what is learnt from.
      mix: how reward streams become one.

    Raises Refusal for actions that are not a Box.
    """
    if not isinstance(spec.action, spaces.Box):
        raise Refusal(f"agent=bcq moves along axes: it needs Box actions, and {spec.name!r} has {type(spec.action).__name__}; use agent=dqn")
    low, high = box_bounds(spec.action)
    axes = math.prod(spec.action.shape)
    latent = 2 * axes
    posterior, decoder = (Joint(spec.observation, tuple(vae_hidden), activation, encoder, size) for size in (2 * latent, axes))
    shift = Joint(spec.observation, tuple(hidden), activation, encoder, axes)
    judges = make_critics(spec, 2, hidden, activation, encoder)

    def init(key):
        keys, obs = jax.random.split(key, 4), dummy(spec.observation)
        acted, z = jnp.zeros((1, axes)), jnp.zeros((1, latent))
        nets = ((posterior, acted), (decoder, z), (shift, acted))
        halves = [part(net.init(k, obs, numbers)) for (net, numbers), k in zip(nets, keys[:3], strict=True)]
        critic = part(judges.init(keys[3]))
        return BCQState(*halves, critic, halves[2].params, critic.params)

    def in_box(x):
        """f32[..., axes] in [-1, 1] -> actions."""
        return low + (high - low) * (x.reshape(*x.shape[:-1], *spec.action.shape) + 1.0) / 2.0

    def in_units(action):
        return (2.0 * (action - low) / (high - low) - 1.0).reshape(action.shape[0], axes)

    def decoded(params, obs, z):
        return jnp.tanh(decoder.apply(params, obs, z))

    def perturbed(params, obs, x):
        return jnp.clip(x + phi * jnp.tanh(shift.apply(params, obs, x)), -1.0, 1.0)

    def likely(state, obs, z, slow=False):
        """Actions [C, B, ...] for latents f32[C, B, m]."""
        params = state.slow_perturbation if slow else state.perturbation.params
        return jax.vmap(lambda z: in_box(perturbed(params, obs, decoded(state.decoder.params, obs, jnp.clip(z, -CLIP, CLIP)))))(z)

    def values_of(params, obs, actions):
        """f32[K, C, B]."""
        return jax.vmap(lambda action: judges.values(params, obs, action), out_axes=1)(actions)

    def act(state, key, inputs):
        memory, obs, first, mode = inputs
        lanes = first.shape[0]
        if mode == "explore":
            z = jax.random.normal(key, (candidates, lanes, latent))
        else:
            z = jnp.broadcast_to(jax.random.normal(jax.random.PRNGKey(0), (candidates, 1, latent)), (candidates, lanes, latent))
        actions = likely(state, obs, z)
        worth = values_of(jax.tree.map(lambda x: x[:1], state.critic.params), obs, actions)[0]
        return memory, actions[jnp.argmax(worth, axis=0), jnp.arange(lanes)], {}

    def learn(state, key, inputs):
        sample, signal = inputs
        stream, mean = total(signal.streams, mix), mean_of(sample.weights)
        number = sample.terminated.shape[0]
        z_key, next_key, actor_key = jax.random.split(key, 3)
        acted = in_units(sample.action)

        def vae_loss(params):
            ours, theirs = params
            centre, log_std = jnp.split(posterior.apply(ours, sample.obs, acted), 2, axis=-1)
            log_std = jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
            z = centre + jnp.exp(log_std) * jax.random.normal(z_key, centre.shape)
            error = jnp.mean(jnp.square(decoded(theirs, sample.obs, z) - acted), axis=-1)
            divergence = 0.5 * jnp.mean(jnp.square(centre) + jnp.exp(2.0 * log_std) - 1.0 - 2.0 * log_std, axis=-1)
            return mean(error + 0.5 * divergence), (mean(error), mean(divergence))

        (_, (error, divergence)), grads = jax.value_and_grad(vae_loss, has_aux=True)((state.encoder.params, state.decoder.params))
        state = state._replace(encoder=descend(state.encoder, grads[0], learning_rate), decoder=descend(state.decoder, grads[1], learning_rate))

        z = jax.random.normal(next_key, (target_candidates, number, latent))
        ahead = values_of(state.target, sample.next_obs, likely(state, sample.next_obs, z, slow=True))
        future = jnp.max(lambda_ * jnp.min(ahead, axis=0) + (1.0 - lambda_) * jnp.max(ahead, axis=0), axis=0)
        target = reward_scale * stream.reward + stream.discount * jnp.where(sample.terminated, 0.0, future)

        def critic_loss(params):
            values = judges.values(params, sample.obs, sample.action)
            return mean(jnp.sum(jnp.square(values - target), axis=0)), values

        (loss, values), grads = jax.value_and_grad(critic_loss, has_aux=True)(state.critic.params)
        state = state._replace(critic=descend(state.critic, grads, learning_rate))
        one = jax.tree.map(lambda x: x[:1], state.critic.params)
        x = decoded(state.decoder.params, sample.obs, jnp.clip(jax.random.normal(actor_key, (number, latent)), -CLIP, CLIP))

        def actor_loss(params):
            return -mean(judges.values(one, sample.obs, in_box(perturbed(params, sample.obs, x)))[0])

        actor, grads = jax.value_and_grad(actor_loss)(state.perturbation.params)
        moved = descend(state.perturbation, grads, actor_learning_rate)
        slow = towards((state.slow_perturbation, state.target), (moved.params, state.critic.params), target_rate)
        state = state._replace(perturbation=moved, slow_perturbation=slow[0], target=slow[1])
        metrics = {"loss/critic": loss, "loss/actor": actor, "loss/reconstruction": error, "loss/divergence": divergence}
        metrics["policy/value"] = mean(jnp.mean(values, axis=0))
        return state, Learnt(metrics, jnp.abs(jnp.mean(values, axis=0) - target))

    def encode(state, obs):
        return decoder.apply(state.decoder.params, obs, method="encode")

    return Agent(init=init, start=lambda state, lanes: (), act=act, learn=learn, encode=encode, learns_from="replay")
