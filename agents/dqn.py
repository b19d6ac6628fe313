"""The DQN family as one replay agent: every part is a switch, and all that are on work together.

    target  y = r + discount max_a Q'(s', a),    or with ``double``  r + discount Q'(s', argmax_a Q(s', a));    loss  w * error(Q(s, a), y)

with r summed over the steps of a sample, discount to the power of their number, and 0 where the MDP ended; a truncated episode bootstraps.

- DQN: Mnih et al. 2015, Nature 518. Double: van Hasselt et al., arXiv 1509.06461. Duelling: ``agents/q_networks.py``. Distributions:
  ``agents/return_heads.py``. Noisy layers: ``agents/noisy.py``. With n-step and prioritised samples of the runner: Rainbow, arXiv 1710.02298.
- Bootstrapped DQN (Osband et al., arXiv 1602.04621, with the random priors of arXiv 1806.03335): ``heads`` networks, one drawn for each lane and
  episode and followed greedily. A step is shown to a head with ``mask_probability``; which heads see it is drawn once, when it is made.
- Random actions: ``agents/epsilon_greedy.py``.

Departures: weighted losses are divided by the number of samples whose weight is above 0, so samples that are left out change nothing.
Epsilon and target copies count updates, since nothing but ``learn`` changes the agent. Greedy actions are those of the mean over heads,
without noise and epsilon. ``mix=sum_then_clip`` clips what is learnt from: the sum over n steps. All heads see the same batch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium import spaces

from agents.base import Agent, Learnt
from agents.epsilon_greedy import Held, epsilon_at, epsilon_greedy, extended
from agents.networks import ACTIVATIONS, ENCODERS
from agents.q_networks import q_stack
from agents.return_heads import categorical_head, mean_head
from agents.streams import MIXES, total
from envs.base import PyTree, Spec
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Real, Refusal, Sizes, options

OPTIMIZERS = {"adam": lambda eps: optax.scale_by_adam(eps=eps), "rmsprop": lambda eps: optax.scale_by_rms(decay=0.95, eps=eps, eps_in_sqrt=False)}


class DQNState(NamedTuple):
    params: PyTree  # [heads, ...], without that axis where there is one
    target: PyTree  # as ``params``
    prior: PyTree  # as ``params``, never trained; () without
    optimizer: PyTree
    updates: jax.Array  # i32[]


class DQNMemory(NamedTuple):
    head: jax.Array | tuple  # i32[N]; followed in this episode; () where there is one
    held: Held | tuple  # () but for z_greedy


@options(
    hidden=Sizes(),
    activation=Choice(tuple(ACTIVATIONS)),
    encoder=Choice(ENCODERS),
    double=FLAG,
    dueling=FLAG,
    distributional=Choice(("none", "c51")),
    atoms=Integer(2, 2**12),
    v_min=Real(),
    v_max=Real(),
    noisy=FLAG,
    noisy_sigma=NON_NEGATIVE,
    heads=Integer(1, 2**12),
    prior_scale=Optional(NON_NEGATIVE),
    mask_probability=FRACTION,
    initial_value=Optional(Real()),
    epsilon_start=FRACTION,
    epsilon_end=FRACTION,
    epsilon_updates=NON_NEGATIVE,
    z_greedy=FLAG,
    duration_exponent=Real(1.0, open_low=True),
    duration_cap=Integer(1, 2**16),
    learning_rate=POSITIVE,
    optimizer=Choice(tuple(OPTIMIZERS)),
    optimizer_eps=POSITIVE,
    max_grad_norm=Optional(POSITIVE),
    huber=FLAG,
    target_period=Optional(Integer(1)),
    target_rate=Optional(FRACTION),
    mix=MIXES,
)
def dqn(
    spec: Spec,
    *,
    hidden=(64, 64),
    activation="relu",
    encoder="auto",
    double=True,
    dueling=False,
    distributional="none",
    atoms=51,
    v_min=-10.0,
    v_max=10.0,
    noisy=False,
    noisy_sigma=0.5,
    heads=1,
    prior_scale=None,
    mask_probability=1.0,
    initial_value=None,
    epsilon_start=1.0,
    epsilon_end=0.05,
    epsilon_updates=1000.0,
    z_greedy=False,
    duration_exponent=2.0,
    duration_cap=1000,
    learning_rate=5e-4,
    optimizer="adam",
    optimizer_eps=1e-8,
    max_grad_norm=None,
    huber=False,
    target_period=None,
    target_rate=0.05,
    mix="sum",
) -> Agent:
    """DQN for Discrete actions.

    Args:
      hidden, activation, encoder: of the networks; ``hidden`` are dense layers, all noisy where ``noisy``.
      double: the online network chooses the action whose target value is the bootstrap.
      dueling: a value and advantages instead of action values.
      distributional, atoms, v_min, v_max: "c51" learns a distribution over ``atoms`` values from v_min to v_max.
      noisy, noisy_sigma: noise on the weights, and how much of it there is at first.
      heads: networks side by side, one followed per episode; 1: plain DQN.
      prior_scale: weight of random networks that are added and never trained; None: none.
      mask_probability: with which a head sees a step.
      initial_value: of all actions, before the network's own differences; None: 0.
      epsilon_start, epsilon_end, epsilon_updates: epsilon falls linearly over so many updates.
      z_greedy, duration_exponent, duration_cap: random actions are held for a number of steps whose distribution falls with this power.
      learning_rate, optimizer, optimizer_eps: Adam, or RMSProp with a decay of 0.95.
      max_grad_norm: limit on the norm of the gradient, of all heads together; None: none.
      huber: linear loss beyond an error of 1, else squares; not used by c51.
      target_period, target_rate: the target network is copied every so many updates, or moves by this share at each. One of them is None.
      mix: how reward streams become one.

    Raises Refusal for other actions, and for switches that exclude each other.
    """
    if not isinstance(spec.action, spaces.Discrete):
        raise Refusal(f"agent=dqn needs Discrete actions, and these are {type(spec.action).__name__}; use agent=sac")
    if (target_period is None) == (target_rate is None):
        raise Refusal(f"give one of agent.target_period={target_period} and agent.target_rate={target_rate}, and set the other to null".replace("None", "null"))
    categorical = distributional == "c51"
    if categorical and (prior_scale is not None or initial_value is not None):
        raise Refusal("agent.distributional=c51 learns probabilities, to which no values are added; set agent.prior_scale=null agent.initial_value=null")
    if categorical and all(isinstance(limit, (int, float)) for limit in (v_min, v_max)) and v_min >= v_max:
        raise Refusal(f"agent.v_min={v_min} must lie below agent.v_max={v_max}")
    actions, start = int(spec.action.n), int(spec.action.start)
    head = categorical_head(atoms, v_min, v_max) if categorical else mean_head(huber)
    shape = {"hidden": tuple(hidden), "act": activation, "encoder": encoder, "actions": actions, "width": head.width}
    switches = {"dueling": dueling, "noisy": noisy, "sigma": noisy_sigma}
    networks = q_stack(spec.observation, heads, prior_scale=prior_scale, offset=initial_value, **shape, **switches)
    clipping = () if max_grad_norm is None else (optax.clip_by_global_norm(max_grad_norm),)
    rule = optax.chain(*clipping, OPTIMIZERS[optimizer](optimizer_eps))

    def init(key):
        params_key, prior_key = jax.random.split(key)
        params = networks.init(params_key)
        prior = networks.init(prior_key) if prior_scale is not None else ()
        return DQNState(params, params, prior, rule.init(params), jnp.int32(0))

    def start_memory(state, lanes):
        zeros = jnp.zeros(lanes, jnp.int32)
        return DQNMemory(zeros if heads > 1 else (), Held(zeros, zeros) if z_greedy else ())

    def act(state, key, inputs):
        memory, obs, first, mode = inputs
        noise_key, head_key, random_key, mask_key = jax.random.split(key, 4)
        exploring, lanes = mode == "explore", first.shape[0]
        outputs = networks.each_lane(state.params, state.prior, obs, noise_key) if exploring else networks.outputs(state.params, state.prior, obs, None)
        values = head.mean(outputs)  # [heads, N, A]
        extras = {"mask": jax.random.bernoulli(mask_key, mask_probability, (lanes, heads))} if heads > 1 else {}
        if not exploring:
            return memory, best(jnp.mean(values, axis=0)) + start, extras
        if heads > 1:
            memory = memory._replace(head=jnp.where(first, jax.random.randint(head_key, (lanes,), 0, heads), memory.head))
        action = best(values[memory.head, jnp.arange(lanes)] if heads > 1 else values[0])
        epsilon = epsilon_at(state.updates, epsilon_start, epsilon_end, epsilon_updates)
        if not z_greedy:
            return memory, epsilon_greedy(random_key, action, epsilon, actions) + start, extras
        held, action = extended(memory.held, random_key, action, first, epsilon, actions, duration_exponent, duration_cap)
        return memory._replace(held=held), action + start, extras

    def best(values):
        return jnp.argmax(values, axis=-1).astype(jnp.int32)

    def targets(state, sample, stream, key):
        """[heads, B, width]."""
        target_key, online_key = jax.random.split(key)
        following = networks.outputs(state.target, state.prior, sample.next_obs, target_key)
        choosing = networks.outputs(state.params, state.prior, sample.next_obs, online_key) if double else following
        bootstrap = of_action(following, best(head.mean(choosing)))
        discount = jnp.where(sample.terminated, 0.0, stream.discount)
        return head.target(bootstrap, *(jnp.broadcast_to(x, bootstrap.shape[:-1]) for x in (stream.reward, discount)))

    def learn(state, key, inputs):
        sample, signal = inputs
        next_key, noise_key = jax.random.split(key)
        stream = total(signal.streams, mix)
        target = targets(state, sample, stream, next_key)
        taken = jnp.broadcast_to(sample.action.astype(jnp.int32) - start, target.shape[:-1])
        weights = sample.weights / jnp.maximum(jnp.sum(sample.weights > 0), 1).astype(jnp.float32)
        seen = sample.extras["mask"].T.astype(jnp.float32) if heads > 1 else jnp.ones((1, 1))

        def loss(params):
            outputs = of_action(networks.outputs(params, state.prior, sample.obs, noise_key), taken)
            errors, priorities = head.error(outputs, target)  # [heads, B]
            return jnp.sum(weights * seen * errors), (priorities, head.mean(outputs))

        (error, (priorities, values)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        steps, moved = rule.update(grads, state.optimizer)
        params = jax.tree.map(lambda p, u: p - learning_rate * u, state.params, steps)
        updates = state.updates + 1
        if target_rate is None:
            due = updates % target_period == 0
            followed = jax.tree.map(lambda new, old: jnp.where(due, new, old), params, state.target)
        else:
            followed = jax.tree.map(lambda new, old: old + target_rate * (new - old), params, state.target)
        metrics = {
            "loss/total": error / heads,
            "value/mean": jnp.mean(values),
            "policy/epsilon": jnp.asarray(epsilon_at(updates, epsilon_start, epsilon_end, epsilon_updates), jnp.float32),
        }
        return DQNState(params, followed, state.prior, moved, updates), Learnt(metrics, jnp.mean(priorities, axis=0))

    def encode(state, obs):
        return networks.latent(state.params, obs)

    return Agent(init, start_memory, act, learn, encode, learns_from="replay")


def of_action(outputs: jax.Array, action: jax.Array) -> jax.Array:
    """Outputs [..., actions, width] of actions [...] from 0: [..., width]."""
    chosen = action[..., None, None] == jnp.arange(outputs.shape[-2])[:, None]
    return jnp.sum(jnp.where(chosen, outputs, 0.0), axis=-2)  # a gather's gradient, a scatter, takes longer on a CPU
