"""Exact values of a finite MDP by dynamic programming: what an agent's return, regret and coverage are measured against.

Bellman's equations, with r(s, a) = sum_s' P(s, a, s') R(s, a, s') and V_H = 0 (Puterman, "Markov Decision Processes", chapters 4, 6, 8):

- ``optimal``: Q_h = r + P V_{h+1}, V_h = max_a Q_h. ``evaluate``: V_h = sum_a pi_h (r + P V_{h+1}).
- ``discounted``: V = max_a (r + discount P V), by policy iteration.
- ``gain``: the best reward per step in the long run, by relative value iteration.
- ``regret``: V*_0 - V^pi_0, both under the distribution of starts: expected regret per episode, without the noise of returns.

Numpy in float64: these are the numbers that others are checked against, and float32 loses the sixth digit in 5,000 steps. Only
``return_function`` is JAX in float32: for a policy that changes inside a compiled program.

A policy is i[S] or i[H, S] (the action), or f[S, A] or f[H, S, A] (its probabilities).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from envs.finite_mdp import FiniteMDP


def optimal(mdp: FiniteMDP, horizon: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(Q [H, S, A], V [H + 1, S]) of the best policy; ``horizon`` in steps, the MDP's own when it is None."""
    horizon = mdp.horizon if horizon is None else horizon
    rewards = mdp.mean_rewards
    action_values, values = np.zeros((horizon, *rewards.shape)), np.zeros((horizon + 1, mdp.num_states))
    for h in reversed(range(horizon)):
        action_values[h] = rewards + mdp.P @ values[h + 1]
        values[h] = action_values[h].max(-1)
    return action_values, values


def optimal_return(mdp: FiniteMDP, horizon: int | None = None) -> float:
    """V*_0 under the distribution of starts."""
    return float(mdp.p0 @ optimal(mdp, horizon)[1][0])


def evaluate(mdp: FiniteMDP, policy: np.ndarray, horizon: int | None = None) -> np.ndarray:
    """V [H + 1, S] of ``policy``."""
    horizon = mdp.horizon if horizon is None else horizon
    policy = np.asarray(policy)
    if np.issubdtype(policy.dtype, np.integer):
        policy = np.eye(mdp.num_actions)[policy]
    policy = np.broadcast_to(policy, (horizon, mdp.num_states, mdp.num_actions))
    rewards, values = mdp.mean_rewards, np.zeros((horizon + 1, mdp.num_states))
    for h in reversed(range(horizon)):
        values[h] = (policy[h] * (rewards + mdp.P @ values[h + 1])).sum(-1)
    return values


def policy_return(mdp: FiniteMDP, policy: np.ndarray, horizon: int | None = None) -> float:
    """V^pi_0 under the distribution of starts."""
    return float(mdp.p0 @ evaluate(mdp, policy, horizon)[0])


def regret(mdp: FiniteMDP, policy: np.ndarray, horizon: int | None = None) -> float:
    """Expected regret of one episode with ``policy``: V*_0 - V^pi_0."""
    return optimal_return(mdp, horizon) - policy_return(mdp, policy, horizon)


def return_function(mdp: FiniteMDP) -> Callable[[jax.Array], jax.Array]:
    """``policy -> V^pi_0``, f32[], a pure JAX function: regret while learning is ``optimal_return(mdp)`` minus this."""
    transitions, rewards, starts = (jnp.asarray(x, jnp.float32) for x in (mdp.P, mdp.mean_rewards, mdp.p0))
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)

    def expected(policy: jax.Array) -> jax.Array:
        if jnp.issubdtype(policy.dtype, jnp.integer):
            policy = jax.nn.one_hot(policy, mdp.num_actions, dtype=jnp.float32)

        def back(value, chosen):
            ahead = jnp.einsum("sat,t->sa", transitions, value, precision=jax.lax.Precision.HIGHEST)  # a GPU would round to ten bits
            return jnp.sum(chosen * (rewards + ahead), -1), None

        value, _ = jax.lax.scan(back, jnp.zeros(mdp.num_states), jnp.broadcast_to(policy, shape), reverse=True)
        return jnp.sum(starts * value)

    return expected


def discounted(mdp: FiniteMDP, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """(Q [S, A], V [S]) of the best policy without a horizon, 0 <= discount < 1. Policy iteration, so exact but for rounding."""
    if not 0 <= discount < 1:
        raise ValueError(f"discount={discount} must be in [0, 1); without a discount there is a horizon (optimal) or a gain (gain)")
    rewards, states = mdp.mean_rewards, np.arange(mdp.num_states)
    actions = rewards.argmax(-1)
    while True:
        values = np.linalg.solve(np.eye(mdp.num_states) - discount * mdp.P[states, actions], rewards[states, actions])
        action_values = rewards + discount * mdp.P @ values
        better = action_values.max(-1) > values + 1e-10 * max(1.0, np.abs(values).max())  # what is less is rounding
        if not better.any():
            return action_values, action_values.max(-1)
        actions = np.where(better, action_values.argmax(-1), actions)


def gain(mdp: FiniteMDP, tolerance: float = 1e-9, iterations: int = 1_000_000) -> float:
    """The best average reward per step, within ``tolerance`` times the largest reward.

    Relative value iteration, V <- (V + T V) / 2, where half a step at a time keeps periodic MDPs from going round. The gain lies
    between the smallest and the largest of T V - V. Raises ValueError where these do not meet: the gain then depends on the start.
    """
    rewards, values = mdp.mean_rewards, np.zeros(mdp.num_states)
    close = tolerance * max(np.abs(rewards).max(), np.finfo(float).tiny)
    for _ in range(iterations):
        change = (rewards + mdp.P @ values).max(-1) - values
        if change.max() - change.min() <= close:
            return float((change.max() + change.min()) / 2)
        values = values + change / 2
        values -= values[0]
    raise ValueError(f"no common gain after {iterations:,} iterations: between {change.min():.6g} and {change.max():.6g}, by the start")


def reachable(mdp: FiniteMDP, horizon: int | None = None) -> np.ndarray:
    """bool[S]: states that some policy may be in after at most ``horizon`` steps (the MDP's own when it is None), starts included."""
    horizon = mdp.horizon if horizon is None else horizon
    linked = (mdp.P > 0).any(1)
    reached = mdp.p0 > 0
    for _ in range(horizon):
        wider = reached | linked[reached].any(0)
        if (wider == reached).all():
            break
        reached = wider
    return reached
