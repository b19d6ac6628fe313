"""Fit: SAC (arXiv 1801.01290) with information gain inside its losses: MaxInfoRL (arXiv 2412.12098).

    critic target  r + gamma (min Q'(s', a') + a2 I(s', a') - a1 log pi(a'|s')),    actor  max min Q(s, a) + a2 I(s, a) - a1 log pi(a|s)

I(s, a) = mean_j log(1 + var_j / 1e-6), var over an ensemble that predicts (s' - s, r), standardised by its own running moments. It is
a ``Bonus`` with gradients, and reaches the agent as ``Signal.regularise``; gradients flow through the action. a2 rises while the policy
is less informative than its own moving average.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.base import Agent, RewardStream, Signal
from agents.distributions import distribution
from agents.networks import MLP, Torso, dummy
from agents.normalizers import Moments, moments_init, moments_normalize, moments_update
from envs.base import PyTree, Spec, Transition
from exploration.base import Bonus, BonusInfo, bonus
from runners import metrics as m
from runners.base import Runner
from runners.source import SourceState, jax_source
from tests.fit.parts import ADAM, Ring, descend, draw, push, ring, trained
from tests.fit.worlds import plane

LANES, SEEDS, ITERATIONS, LIMIT = 4, 3, 1500, 40
WEIGHT = 1.0
WORLD = plane(speed=0.1, limit=LIMIT, goal=0.8, action_cost=0.1)


class GainState(NamedTuple):
    params: PyTree  # [K, ...]
    optimizer: PyTree
    moments: Moments  # of the raw gain


def information_gain(spec: Spec, *, heads=5, learning_rate=1e-3) -> Bonus:
    net = MLP((64,), "silu", spec.observation.shape[0] + 1)

    def init(key):
        example = jnp.zeros((1, spec.observation.shape[0] + spec.action.shape[0]))
        params = jax.vmap(lambda k: net.init(k, example))(jax.random.split(key, heads))
        return GainState(params, ADAM.init(params), moments_init())

    def predictions(params, batch):
        return jax.vmap(net.apply, (0, None))(params, jnp.concatenate([batch.obs, batch.action], axis=-1))

    def score(state, batch):
        return jnp.mean(jnp.log1p(jnp.var(predictions(state.params, batch), axis=0) / 1e-6), axis=-1)

    def update(state, key, inputs):
        batch, _ = inputs
        wanted = jnp.concatenate([batch.next_obs - batch.obs, batch.reward[:, None]], axis=-1)
        loss, grads = jax.value_and_grad(lambda params: jnp.mean(jnp.square(predictions(params, batch) - wanted)))(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        return state._replace(params=params, optimizer=optimizer), {"model_loss": loss}

    info = BonusInfo(needs=("obs", "action", "next_obs", "reward"), differentiable=True, non_negative=True)
    return bonus(
        init=init, score=score, update=update, info=info,
        calibrate=lambda state, raw: state._replace(moments=moments_update(state.moments, raw)),
        value=lambda state, raw: moments_normalize(state.moments, raw, 10.0),
    )


def regulariser(bonus: Bonus, state):
    """What ``Signal.regularise`` wants, from what a bonus has."""
    return lambda obs, action: bonus.value(state, bonus.score(state, Transition(obs, action, *[None] * 5, {})))


class SACState(NamedTuple):
    params: PyTree  # {"actor", "critic" [2, ...], "log_a1", "log_a2"}
    target: PyTree  # the moving average of them
    optimizer: PyTree


def sac(spec: Spec, *, learning_rate=1e-3, rate=0.01, gain_weight=1.0) -> Agent:
    policy = distribution(spec.action)
    actor, critic = Torso(spec.observation, (64, 64), "relu", final=policy.size, final_gain=0.01), MLP((64, 64), "relu", 1)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        pair = jnp.zeros((1, spec.observation.shape[0] + spec.action.shape[0]))
        critics = jax.vmap(lambda k: critic.init(k, pair))(jax.random.split(critic_key))
        params = {"actor": actor.init(actor_key, dummy(spec.observation)), "critic": critics, "log_a1": jnp.float32(-1), "log_a2": jnp.float32(0)}
        return SACState(params, params, ADAM.init(params))

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        parameters = actor.apply(state.params["actor"], obs)
        return memory, policy.to_action(policy.sample(parameters, key) if mode == "explore" else policy.mode(parameters)), {}

    def drawn(params, obs, key):
        """An action of the policy and its log probability, differentiable."""
        parameters = actor.apply(params["actor"], obs)
        raw = policy.sample(parameters, key)
        return policy.to_action(raw), policy.log_prob(parameters, raw)

    def values(params, obs, action):
        return jax.vmap(critic.apply, (0, None))(params["critic"], jnp.concatenate([obs, action], axis=-1))[..., 0]

    def learn(state, key, inputs):
        batch, signal = inputs
        gain = signal.regularise or (lambda obs, action: jnp.zeros(obs.shape[0]))
        next_key, key, average_key = jax.random.split(key, 3)
        a1, a2 = jnp.exp(state.params["log_a1"]), gain_weight * jnp.maximum(1.0 - 1.5 * signal.progress, 0.0) * jnp.exp(state.params["log_a2"])
        next_action, next_log_prob = drawn(state.params, batch.next_obs, next_key)
        future = jnp.min(values(state.target, batch.next_obs, next_action), 0) + a2 * gain(batch.next_obs, next_action) - a1 * next_log_prob
        stream = signal.streams[0]
        wanted = stream.weight * stream.reward + stream.discount * jnp.where(batch.terminated, 0.0, future)
        average_gain = gain(batch.obs, drawn(state.target, batch.obs, average_key)[0])

        def loss(params):
            frozen = jax.lax.stop_gradient(params)
            action, log_prob = drawn(params, batch.obs, key)
            gained = gain(batch.obs, action)
            critic_loss = jnp.mean(jnp.sum(jnp.square(values(params, batch.obs, batch.action) - jax.lax.stop_gradient(wanted)), axis=0))
            actor_loss = jnp.mean(a1 * log_prob - jnp.min(values(frozen, batch.obs, action), axis=0) - a2 * gained)
            entropy_gap = jax.lax.stop_gradient(jnp.mean(-log_prob) + spec.action.shape[0])
            gain_gap = jax.lax.stop_gradient(jnp.mean(gained - average_gain))
            total = critic_loss + actor_loss + params["log_a1"] * entropy_gap + params["log_a2"] * gain_gap
            return total, {"critic_loss": critic_loss, "gain": jnp.mean(gained), "a1": a1, "a2": a2}

        grads, aux = jax.grad(loss, has_aux=True)(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        return SACState(params, optax.incremental_update(params, state.target, rate), optimizer), aux

    return Agent(init, lambda state, lanes: (), act, learn)


class State(NamedTuple):
    key: jax.Array
    source: SourceState
    agent: SACState
    bonus: GainState
    replay: Ring | None  # of Transition


def make_runner(hyper) -> Runner:
    source = jax_source(WORLD, LANES, "members")
    agent, explorer = sac(source.spec, gain_weight=hyper["weight"]), information_gain(source.spec)

    def interact(state, key, mode):
        act_key, step_key, reset_key = jax.random.split(key, 3)
        _, action, _ = agent.act(state.agent, act_key, ((), state.source.obs, state.source.first, mode))
        source_state, step = source.step(state.source, step_key, action)
        return state._replace(source=source.restart(source_state, reset_key, step.done)), step

    def init(key):
        keys = jax.random.split(key, 3)
        state = State(key, source.init(keys[0]), agent.init(keys[1]), explorer.init(keys[2]), None)
        _, step = jax.eval_shape(lambda: interact(state, key, "explore"))
        return state._replace(replay=ring(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), step), LANES * ITERATIONS))

    def step(state, clock):
        keys = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 4)
        state, new = interact(state, keys[0], "explore")
        replay = push(state.replay, new)
        batch = draw(replay, keys[1], 128)
        explored = explorer.calibrate(state.bonus, explorer.score(state.bonus, batch))
        signal = Signal((RewardStream(batch.reward, 0.97, WEIGHT, True),), clock.progress, regularise=regulariser(explorer, explored))
        learnt, aux = agent.learn(state.agent, keys[2], (batch, signal))
        explored, metrics = explorer.update(explored, keys[3], (batch, aux))
        return state._replace(agent=learnt, bonus=explored, replay=replay), m.typed({**aux, **metrics, "reward": new.reward})

    def evaluate(state, key):
        steps = jax.lax.scan(lambda s, k: interact(s, k, "greedy"), state._replace(source=source.init(key)), jax.random.split(key, LIMIT))[1]
        return {"return": m.mean(steps.info["episode_return"], steps.done)}

    return Runner(init, step, evaluate, source.spec, LANES)
