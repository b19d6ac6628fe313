"""A planar arm that is evaluated in one step: the repertoire task of the quality-diversity libraries (Cully et al. 2015; QDax, pyribs).

``joints`` links of length 1 / joints start at the origin. The action holds the joints' angles as numbers in [0, 1], 0.5 for straight; each is an angle in
[-pi, pi] relative to the link before, and the descriptor is where the arm ends, in [0, 1]^2 (the origin at the middle). The reward is minus the standard
deviation of the numbers: of all ways to a place, the smoothest is best.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Integer, options
from envs.pictures import segment

PIXELS = 64


class ArmState(NamedTuple):
    angles: jax.Array  # f32[joints]; in [0, 1], of the last action


@options(joints=Integer(1, 10_000))
def planar_arm(*, joints: int = 12) -> Environment:
    """The arm. obs f32[1], always 0; action f32[joints] in [0, 1]; an episode is one step. info: ``descriptor`` f32[2], the end in [0, 1]^2."""

    def places(angles):
        turned = jnp.cumsum(2.0 * jnp.pi * angles - jnp.pi)
        return jnp.cumsum(jnp.stack([jnp.cos(turned), jnp.sin(turned)], axis=-1) / joints, axis=0)

    def end(angles):
        turned = jnp.cumsum(2.0 * jnp.pi * angles - jnp.pi)
        return 0.5 * (jnp.stack([jnp.sum(jnp.cos(turned)), jnp.sum(jnp.sin(turned))]) / joints + 1.0)

    def reset(key):
        del key
        return ArmState(jnp.full(joints, 0.5, jnp.float32)), jnp.zeros(1, jnp.float32)

    def step(state, key, action):
        del key
        angles = jnp.clip(action, 0.0, 1.0)
        return ArmState(angles), TimeStep(jnp.zeros(1, jnp.float32), -jnp.std(angles), jnp.bool_(True), jnp.bool_(False), {"descriptor": end(angles)})

    def render(state):
        image = jnp.full((PIXELS, PIXELS, 3), 255, jnp.uint8)
        at = jnp.concatenate([jnp.zeros((1, 2)), places(state.angles)])
        return jax.lax.fori_loop(0, joints, lambda i, drawn: segment(drawn, at[i], at[i + 1], 2.0, (40, 60, 200)), image)

    spec = Spec(
        observation=spaces.Box(0.0, 0.0, (1,), np.float32),
        action=spaces.Box(0.0, 1.0, (joints,), np.float32),
        name=f"planar_arm-{joints}",
        max_steps=1,
        info={"descriptor": spaces.Box(0.0, 1.0, (2,), np.float32)},
        deterministic=True,
    )
    return Environment(spec, reset, step, render)
