"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347), the clipped objective, with one value head per reward stream.

    L = -E[min(r A, clip(r, 1-c, 1+c) A)] + c_v sum_k 1/2 E[(V_k - R_k)^2] - c_e E[H],   A = sum_k weight_k A_k

With an intrinsic stream this is the two-headed PPO of RND (Burda et al., arXiv 1810.12894, section 2.3): two values, two
discounts, non-episodic intrinsic returns. ``mix="sum"`` adds the rewards first and keeps one head; ``"sum_then_clip"`` also
clips the sum to [-1, 1], as CFN was published (arXiv 2306.03186).

Steps that a ``Signal`` gives the weight 0 are left out of all means, those of advantages too; with an ``Imitation``, its loss is added (first value head).

Departures: truncated episodes bootstrap from their true last observation (most implementations treat them as terminal);
shuffling draws one random order per epoch by sorting random bits (32 less those that number the samples: ties, which are rare,
keep their order).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from agents.actor_critic import actor_critic
from agents.base import Agent, Imitation, Learnt, Rollout, Signal
from agents.normalizers import Moments, RewardScale, moments_init, moments_normalize, moments_update, reward_scale_init, reward_scale_update, std_of
from agents.returns import stream_advantages
from envs.base import PyTree, Spec, any_member
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Optional, Real, Refusal, Sizes, options

SCHEDULES = {"constant": lambda progress: 1.0, "linear": lambda progress: 1.0 - progress}
MIXES = ("heads", "sum", "sum_then_clip")


class PPOState(NamedTuple):
    params: PyTree
    optimizer: PyTree
    obs_moments: Moments | None  # of observations, when normalize_obs
    reward_scale: RewardScale | None  # per lane, when normalize_rewards


@options(
    hidden=Sizes(),
    activation=Choice(("tanh", "relu", "leaky_relu", "silu", "elu")),
    encoder=Choice(("auto", "mlp", "cnn", "grid")),
    recurrent=Integer(0, 2**16),
    learning_rate=POSITIVE,
    learning_rate_schedule=Choice(tuple(SCHEDULES)),
    epochs=Integer(1),
    minibatches=Integer(1),
    gae_lambda=FRACTION,
    clip=POSITIVE,
    value_clip=Optional(POSITIVE),
    value_coef=NON_NEGATIVE,
    entropy_coef=Real(),
    entropy_schedule=Choice(tuple(SCHEDULES)),
    max_grad_norm=POSITIVE,
    adam_eps=POSITIVE,
    normalize_advantages=FLAG,
    normalize_obs=FLAG,
    normalize_rewards=FLAG,
    mix=Choice(MIXES),
)
def ppo(
    spec: Spec,
    *,
    hidden=(64, 64),
    activation="tanh",
    encoder="auto",
    recurrent=0,
    learning_rate=2.5e-4,
    learning_rate_schedule="linear",
    epochs=4,
    minibatches=4,
    gae_lambda=0.95,
    clip=0.2,
    value_clip=None,
    value_coef=0.5,
    entropy_coef=0.01,
    entropy_schedule="constant",
    max_grad_norm=0.5,
    adam_eps=1e-5,
    normalize_advantages=True,
    normalize_obs=False,
    normalize_rewards=False,
    mix="heads",
) -> Agent:
    """PPO for Discrete and Box actions; ``recurrent`` is the width of a GRU (0: feed-forward)."""
    heads = len(spec.streams) if mix == "heads" else 1
    network = actor_critic(spec, heads=heads, hidden=hidden, activation=activation, encoder=encoder, recurrent=recurrent)
    policy = network.distribution
    optimizer = optax.flatten(optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.scale_by_adam(eps=adam_eps)))

    def init(key):
        params = network.init(key)
        return PPOState(
            params=params,
            optimizer=optimizer.init(params),
            obs_moments=moments_init(spec.observation) if normalize_obs else None,
            reward_scale=reward_scale_init(spec.lanes) if normalize_rewards else None,
        )

    def prepared(state, obs):
        return moments_normalize(state.obs_moments, obs, limit=10.0) if normalize_obs else obs

    def start(state, lanes):
        return network.start(lanes)

    def act(state, key, inputs):
        memory, obs, first, mode = inputs
        memory, parameters, value = network.apply(state.params, memory, prepared(state, obs), first)
        extras = {} if isinstance(mode, str) else {"temperature": mode}
        parameters = policy.tempered(parameters, mode) if extras else parameters
        raw = policy.mode(parameters) if isinstance(mode, str) and mode == "greedy" else policy.sample(parameters, key)
        extras |= {"raw": raw, "log_prob": policy.log_prob(parameters, raw), "value": value}
        if recurrent:
            extras["memory"] = memory  # after the step: what a truncated episode bootstraps with
        return memory, policy.to_action(raw), extras

    def advantages(state, rollout: Rollout, signal: Signal):
        """(advantages [T, N], value targets [T, N, heads])."""
        steps = rollout.transitions
        value = rollout.extras["value"]
        _, _, last = network.apply(state.params, rollout.last_memory, prepared(state, rollout.last_obs), rollout.last_first)
        following = jnp.concatenate([value[1:], last[None]])

        def successors():
            memory = rollout.extras["memory"] if recurrent else ()
            return network.apply(state.params, memory, prepared(state, steps.next_obs), jnp.zeros_like(steps.first))[2]

        # computed only when an episode was cut somewhere: termination does not need it
        cut = any_member(steps.truncated & ~steps.terminated, spec.axis)
        successor = jax.lax.cond(cut, successors, lambda: jnp.zeros_like(value))

        streams = mixed(signal.streams)
        parts = [
            stream_advantages(s, value[..., k], following[..., k], successor[..., k], steps.terminated, steps.done, gae_lambda) for k, s in enumerate(streams)
        ]
        total = sum(jnp.asarray(s.weight, jnp.float32) * a for s, a in zip(streams, parts, strict=True)) if mix == "heads" else parts[0]
        return total, jnp.stack(parts, axis=-1) + value

    def mixed(streams):
        if mix == "heads":
            return streams
        reward = sum(s.weight * s.reward for s in streams)
        return (streams[0]._replace(reward=jnp.clip(reward, -1.0, 1.0) if mix == "sum_then_clip" else reward),)

    def loss(params, batch, entropy_weight, imitation: Imitation | None):
        """batch: obs, first, raw, log_prob, value, advantage, target, perhaps temperature, weight, imitated and returns, each [B, ...], or [T, B, ...] when
        recurrent. ``imitation``: its coefficients."""
        memory, batch = batch
        parameters, value = network.unroll(params, memory, batch["obs"], batch["first"])
        parameters = policy.tempered(parameters, batch["temperature"]) if "temperature" in batch else parameters
        mean = weighted_mean(batch["weight"]) if "weight" in batch else jnp.mean
        advantage = batch["advantage"]
        if normalize_advantages:
            centred = advantage - mean(advantage)
            advantage = centred / (jnp.sqrt(mean(jnp.square(centred))) + 1e-8)
        log_ratio = policy.log_prob(parameters, batch["raw"]) - batch["log_prob"]
        if "weight" in batch:
            log_ratio = jnp.where(batch["weight"] > 0, log_ratio, 0.0)  # of an action that another chose it may be anything
        ratio = jnp.exp(log_ratio)
        policy_loss = -mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage))
        error = jnp.square(value - batch["target"])
        if value_clip is not None:
            near = batch["value"] + jnp.clip(value - batch["value"], -value_clip, value_clip)
            error = jnp.maximum(error, jnp.square(near - batch["target"]))
        value_loss = 0.5 * mean(jnp.sum(error, axis=-1))
        entropy = mean(policy.entropy(parameters, batch["raw"]))
        total = policy_loss + value_coef * value_loss - entropy_weight * entropy
        aux = {
            "loss/total": total,
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            "policy/kl": mean(ratio - 1.0 - log_ratio),
            "policy/clip_fraction": mean((jnp.abs(ratio - 1.0) > clip).astype(jnp.float32)),
        }
        if imitation is not None:
            better = jnp.maximum(batch["returns"] - batch["value"][..., 0], 0.0)
            short = jnp.square(jnp.maximum(batch["returns"] - value[..., 0], 0.0))
            imitated = weighted_mean(batch["imitated"])
            lost = imitated(-policy.log_prob(parameters, batch["raw"]) * better) + 0.5 * imitation.value_coef * imitated(short)
            total = total + imitation.coef * lost
            aux |= {"loss/total": total, "loss/imitation": lost}
        return total, aux

    def learn(state, key, inputs):
        rollout, signal = inputs
        steps = rollout.transitions
        if normalize_rewards:
            scale = reward_scale_update(state.reward_scale, signal.streams[0].reward, steps.done, signal.streams[0].discount)
            first, *others = signal.streams
            signal = signal._replace(streams=(first._replace(reward=first.reward / std_of(scale.moments)), *others))
            if signal.imitation is not None:
                signal = signal._replace(imitation=signal.imitation._replace(returns=signal.imitation.returns / std_of(scale.moments)))
            state = state._replace(reward_scale=scale)
        advantage, target = advantages(state, rollout, signal)
        data = {"obs": prepared(state, steps.obs), "first": steps.first, "advantage": advantage, "target": target}
        data |= {name: rollout.extras[name] for name in ("raw", "log_prob", "value", "temperature") if name in rollout.extras}
        if signal.weights is not None:
            data["weight"] = signal.weights
        if (imitation := signal.imitation) is not None:
            data |= {"imitated": imitation.weight, "returns": imitation.returns}
            done_by_it = imitation.weight.reshape(*imitation.weight.shape, *[1] * (data["raw"].ndim - 2)) > 0
            data["raw"] = jnp.where(done_by_it, policy.from_action(steps.action), data["raw"])
        batches = minibatcher(data, rollout.memory, minibatches, recurrent)
        learning = learning_rate * SCHEDULES[learning_rate_schedule](signal.progress)
        entropy_weight = entropy_coef * SCHEDULES[entropy_schedule](signal.progress)

        def update(carry, batch):
            params, opt = carry
            (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, entropy_weight, imitation)
            updates, opt = optimizer.update(grads, opt, params)
            params = jax.tree.map(lambda p, u: p - (learning * u).astype(p.dtype), params, updates)
            return (params, opt), aux

        def epoch(carry, key):
            return jax.lax.scan(lambda c, index: update(c, batches.take(index)), carry, batches.order(key))

        (params, opt), aux = jax.lax.scan(epoch, (state.params, state.optimizer), jax.random.split(key, epochs))
        if normalize_obs:
            state = state._replace(obs_moments=moments_update(state.obs_moments, steps.obs))
        metrics = jax.tree.map(jnp.mean, aux) | {"policy/learning_rate": jnp.asarray(learning, jnp.float32)}
        return state._replace(params=params, optimizer=opt), Learnt(metrics)

    def encode(state, obs):
        return network.encode(state.params, prepared(state, obs))

    return Agent(init=init, start=start, act=act, learn=learn, encode=encode)


def weighted_mean(weights):
    """x [B, ...] -> its mean with weights [B, ...]; 0 where all of them are."""
    return lambda x: jnp.sum(weights * x) / jnp.maximum(jnp.sum(weights), 1e-8)


class Minibatches(NamedTuple):
    order: object  # key -> indices [minibatches, size]
    take: object  # indices [size] -> (memory, batch)


def minibatcher(data, memory, count, recurrent) -> Minibatches:
    """Shuffled minibatches: of single steps when feed-forward, of whole lanes (sequences) when recurrent."""
    length, lanes = data["first"].shape
    total = lanes if recurrent else length * lanes
    if total % count:
        legal = [d for d in range(1, total + 1) if total % d == 0]
        near = sorted(sorted(legal, key=lambda d: abs(d - count))[:3])
        what = f"runner.lanes={lanes}" if recurrent else f"runner.rollout x runner.lanes = {length} x {lanes}"
        raise Refusal(f"agent.minibatches={count} does not divide {what}; nearest that do: {', '.join(map(str, near))}")

    def order(key):
        # random bits with the index in the lowest places: sorting one plain array is 4 times faster than an argsort on a CPU
        places = max(total - 1, 1).bit_length()
        mixed = jax.lax.sort(jax.random.bits(key, (total,)) << places | jnp.arange(total, dtype=jnp.uint32), is_stable=False)
        return (mixed & (2**places - 1)).astype(jnp.int32).reshape(count, total // count)

    if recurrent:

        def take(index):
            return jax.tree.map(lambda m: m[index], memory), jax.tree.map(lambda x: x[:, index], data)
    else:
        flat = jax.tree.map(lambda x: x.reshape(total, *x.shape[2:]), data)

        def take(index):
            return (), jax.tree.map(lambda x: x[index], flat)

    return Minibatches(order, take)
