"""The world's own rewards as what is learnt from: weighted, and shifted by a constant (Sun et al., arXiv 2209.07288).

    reward               weight (r + b)
    terminal_corrected   the same, and weight (r + b / (1 - discount)) where the MDP ends

Where episodes never end by themselves, all values move by weight b / (1 - discount) and the best policy stays: learning with r + b from values Q0 is
learning with r from Q0 - b / (1 - discount), so b < 0 starts optimistic and b > 0 conservative. The value of a terminal state stays 0, though: there b < 0
makes ending worth more, and b > 0 staying alive. ``terminal_corrected`` moves it as well. Returns that are logged are never shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from agents.base import RewardStream
from envs.base import Environment, HostEnvironment, Transition
from envs.builder import FRACTION, Choice, Real, Refusal

SHIFT_MODES = ("reward", "terminal_corrected")
RANGES = {"discount": FRACTION, "extrinsic_weight": Real(), "reward_shift": Real(), "shift_mode": Choice(SHIFT_MODES)}  # of every runner


def world_rewards(discount: Any, weight: Any, shift: Any = 0.0, mode: str = "reward") -> Callable[[Transition], RewardStream]:
    """Transitions of any leading shape -> their stream. Raises Refusal for a correction that needs a discount below 1."""
    corrected = mode == "terminal_corrected"
    if corrected and isinstance(discount, (int, float)) and discount >= 1:
        raise Refusal("runner.shift_mode=terminal_corrected adds shift / (1 - discount): it needs runner.discount below 1")

    def stream(steps: Transition) -> RewardStream:
        reward = steps.reward
        if not is_zero(shift):
            reward = reward + shift
            if corrected:
                reward = reward + jnp.where(steps.terminated, shift * discount / (1.0 - discount), 0.0)
        return RewardStream(reward, discount, weight, True)

    return stream


def is_zero(shift: Any) -> bool:
    return isinstance(shift, (int, float)) and shift == 0


def shift_warning(env: Environment | HostEnvironment, runner: Mapping[str, Any]) -> str | None:
    """What the user should know of the shift in a ``runner=`` entry, in this world."""
    shift = runner.get("reward_shift", 0.0)
    if is_zero(shift) or runner.get("shift_mode") == "terminal_corrected" or not may_terminate(env):
        return None
    means = "pays for ending episodes early" if shift < 0 else "pays for not ending episodes"
    return f"runner.reward_shift={shift} {means}, and in this world they may end; runner.shift_mode=terminal_corrected takes that away"


def may_terminate(env: Environment | HostEnvironment) -> bool:
    """Whether ``terminated`` is computed from anything at all; of a host world it is not known, and True."""
    if isinstance(env, HostEnvironment):
        return True
    key = jax.random.PRNGKey(0)
    state, _ = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct(env.spec.action.shape, env.spec.action.dtype)
    jaxpr = jax.make_jaxpr(lambda state, action: env.step(state, key, action)[1].terminated)(state, action).jaxpr
    wanted = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    for eqn in reversed(jaxpr.eqns):
        if wanted & set(eqn.outvars):
            wanted |= {v for v in eqn.invars if isinstance(v, core.Var)}
    return bool(wanted & set(jaxpr.invars))
