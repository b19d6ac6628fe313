"""DeepSea: a diver in an N x N grid sinks one row per step and moves left or right; only N rights in a row find the treasure.

Osband et al., "Deep Exploration via Randomized Value Functions" (arXiv 1703.07608) and Osband et al., "Behaviour Suite for
Reinforcement Learning" (arXiv 1908.03568). The rules are those of ``bsuite/environments/deep_sea.py`` (v0.3.6, effafc0):

- obs is one-hot over the grid, and all zero after the last row. An episode has exactly N steps and ends by termination.
- Which action means "right" differs per cell: ``numpy.random.RandomState(mapping_seed).binomial(1, 0.5, [N, N])``, a constant.
- Right costs ``move_cost / N``, also where it fails. Right in the last column pays +1, also where it fails; from the start
  that column is reached in the last row only.
- Stochastic: right moves the diver with probability 1 - 1/N, and N(0, 1) is added to the reward at both ends of the last row.
- An episode is bad once the diver has moved left on the diagonal, that is, while the treasure could still be reached.

A random policy finds the treasure with probability 2^-N; an exploring one can in a number of episodes polynomial in N.

Departure: randomness comes from JAX keys, so the stochastic variant follows bsuite's in distribution, not draw by draw.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import FLAG, NON_NEGATIVE, Choice, Integer, options
from envs.tally import bsuite_deep_sea_tally

CELL_PIXELS = 8
ZERO, ONE = np.float32(0), np.float32(1)  # plain 0.0 and 1.0 would make weakly typed results


class DeepSeaState(NamedTuple):
    row: jax.Array  # i32[], 0 to N; N after the last step
    column: jax.Array  # i32[], 0 to N - 1
    bad_episode: jax.Array  # bool[]


def action_mapping(size: int, mapping_seed: int = 42, randomize_actions: bool = True) -> np.ndarray:
    """The action that means "right" in each cell, i32[N, N]."""
    if not randomize_actions:
        return np.ones((size, size), np.int32)
    return np.random.RandomState(mapping_seed).binomial(1, 0.5, [size, size]).astype(np.int32)


def optimal_return(size: int, stochastic: bool = False, move_cost: float = 0.01) -> float:
    """Expected return of always moving right: bsuite's optimal return (0.99; for N = 10, stochastic, 0.3774).

    In the stochastic world one can do a little better, by moving left for free once right has failed: the cost paid is then
    ``move_cost * (1 - (1 - 1/N)^N)``. bsuite ignores this, and so does this function.
    """
    return (1 - 1 / size if stochastic else 1.0) ** (size - 1) - move_cost


@options(
    size=Integer(2, 4096),
    stochastic=FLAG,
    mapping_seed=Integer(0, 2**32 - 1),
    randomize_actions=FLAG,
    move_cost=NON_NEGATIVE,
    observation=Choice(("board", "index")),
)
def deep_sea(
    *,
    size: int = 20,
    stochastic: bool = False,
    mapping_seed: int = 42,
    randomize_actions: bool = True,
    move_cost: float = 0.01,
    observation: str = "board",
) -> Environment:
    """DeepSea of ``size`` rows. ``state_id`` in info is row * N + column of the cell reached, and N * N for the end.

    observation: "board", f32[N, N] with a 1 where the agent is, as in bsuite; "index", the state_id, which says the same in one number.
    """
    num_cells = size * size
    mapping = action_mapping(size, mapping_seed, randomize_actions).reshape(-1)

    def state_id(state):
        return jnp.minimum(state.row * size + state.column, num_cells)

    def observe(state):
        if observation == "index":
            return state_id(state)
        return jnp.where(jnp.arange(num_cells, dtype=jnp.int32) == state_id(state), ONE, ZERO).reshape(size, size)

    def reset(key):
        state = DeepSeaState(jnp.int32(0), jnp.int32(0), jnp.bool_(False))
        return state, observe(state)

    def step(state, key, action):
        right = action == jnp.asarray(mapping)[state.row * size + state.column]
        last_column = state.column == size - 1
        reward = jnp.where(right, jnp.where(last_column, ONE, ZERO) - move_cost / size, ZERO)
        moves = right
        if stochastic:
            move_key, noise_key = jax.random.split(key)
            moves = right & (jax.random.uniform(move_key) > 1 / size)
            noisy = (state.row == size - 1) & (last_column | (state.column == 0))
            reward = reward + jnp.where(noisy, jax.random.normal(noise_key), ZERO)
        column = jnp.where(right, state.column + moves.astype(jnp.int32), state.column - 1)
        bad_episode = state.bad_episode | (~right & (state.row == state.column))
        new = DeepSeaState(state.row + 1, jnp.clip(column, 0, size - 1), bad_episode)
        info = {"state_id": state_id(new), "position": jnp.stack([new.row, new.column]), "bad_episode": bad_episode}
        return new, TimeStep(observe(new), reward, new.row >= size, jnp.bool_(False), info)

    def render(state):
        image = np.full((size, size, 3), (24, 60, 120), np.uint8)
        image[-1, -1] = (240, 200, 60)
        if int(state.row) < size:
            image[int(state.row), int(state.column)] = (200, 60, 60) if bool(state.bad_episode) else (255, 255, 255)
        return image.repeat(CELL_PIXELS, 0).repeat(CELL_PIXELS, 1)

    spec = Spec(
        observation=spaces.Discrete(num_cells + 1) if observation == "index" else spaces.Box(0.0, 1.0, (size, size), np.float32),
        action=spaces.Discrete(2),
        name=f"deep_sea{'_stochastic' if stochastic else ''}-{size}",
        max_steps=size,
        info={"state_id": spaces.Discrete(num_cells + 1), "position": spaces.Box(0, size, (2,), np.int32), "bad_episode": spaces.Discrete(2)},
        num_states=num_cells + 1,
        grid=(size, size),  # row N, the end, lies outside
        success_return=None if stochastic else 0.5,  # with N(0, 1) noise one return says little; the tally says more
        deterministic=not stochastic,
    )
    return Environment(spec, reset, step, render, bsuite_deep_sea_tally(stochastic))
