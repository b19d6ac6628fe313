"""The finite MDPs of the exploration literature, each by its variant: worlds of one name differ between papers, and so do their values.

- ``riverswim_osband``: RiverSwim of TabulaRL (Osband, Russo and Van Roy, "(More) Efficient Reinforcement Learning via Posterior Sampling",
  arXiv 1306.0940; ``make_riverSwim`` in github.com/iosband/TabulaRL).
- ``riverswim_strehl_littman``, ``six_arms``: Strehl and Littman, "An analysis of model-based Interval Estimation for Markov Decision
  Processes" (2008), as in the files riverswim.mdp and sixarms.mdp of github.com/mcmachado/count_based_exploration_sr.
- ``chain``: rlberry's ``Chain``. ``double_chain``, ``grid_world``: those of Kaufmann et al., "Adaptive Reward-Free Exploration" (arXiv
  2006.06294; github.com/omardrwch/reward-free-ucrl), which arXiv 2303.08059 uses as well.
- ``line``: states in a row without a reward, on which SOFE (arXiv 2310.18144) shows what a bonus that changes does to an agent that does
  not see it change.

Every function gives a ``FiniteMDP``; ``MDPS`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from envs.finite_mdp import FiniteMDP


class Listed(NamedTuple):
    make: Callable[..., FiniteMDP]
    rows: int | None = 1  # of the map that the states are, row by row; None: they are none
    continuing: bool = False
    success_return: float | None = None


def one_hot(index: int | np.ndarray, size: int) -> np.ndarray:
    """f64[..., size]."""
    return np.eye(size)[index]


def riverswim_osband(*, states: int = 6, horizon: int = 20) -> FiniteMDP:
    """Action 0 swims left and always succeeds; action 1 swims right against the current. Right in the last state pays 1, wherever
    the current takes one; left in the first pays 0.005."""
    P, R = np.zeros((states, 2, states)), np.zeros((states, 2, states))
    first, last = 0, states - 1
    for s in range(states):
        P[s, 0, max(s - 1, 0)] = 1
    P[first, 1, :2] = 0.4, 0.6
    for s in range(1, last):
        P[s, 1, s - 1 : s + 2] = 0.05, 0.6, 0.35
    P[last, 1, -2:] = 0.4, 0.6
    R[first, 0], R[last, 1] = 0.005, 1
    return FiniteMDP(P, R, one_hot(first, states), horizon)


def riverswim_strehl_littman(*, horizon: int = 5000) -> FiniteMDP:
    """Action 0 swims right against the current, action 1 left. Right in state 5 pays 10000 where it *stays* there (probability 0.3), and
    nothing where the current wins; left in state 0 pays 5. Starts in state 1 or 2."""
    states = 6
    P, R = np.zeros((states, 2, states)), np.zeros((states, 2, states))
    for s in range(states):
        P[s, 1, max(s - 1, 0)] = 1
    P[0, 0, :2] = 0.7, 0.3
    for s in range(1, states - 1):
        P[s, 0, s - 1 : s + 2] = 0.1, 0.6, 0.3
    P[5, 0, 4:] = 0.7, 0.3
    R[5, 0, 5], R[0, 1, 0] = 10000, 5
    return FiniteMDP(P, R, one_hot([1, 2], states).mean(0), horizon)


def six_arms(*, horizon: int = 5000) -> FiniteMDP:
    """From the hub, state 0, action a reaches state a + 1 with a probability that falls from 1 to 0.01. There the action that pays stays
    (in state 1 all but action 4), and the others return to the hub."""
    states, actions = 7, 6
    P, R = np.zeros((states, actions, states)), np.zeros((states, actions, states))
    for a, reached in enumerate((1, 0.15, 0.1, 0.05, 0.03, 0.01)):
        P[0, a, a + 1] = reached
        P[0, a, 0] = 1 - reached
    P[1:, :, 0] = 1  # back to the hub ...
    stays = [(1, a, 50) for a in (0, 1, 2, 3, 5)] + [(s, s - 1, pay) for s, pay in zip(range(2, 7), (133, 300, 800, 1660, 6000), strict=True)]
    for s, a, pay in stays:  # ... but for these
        P[s, a] = one_hot(s, states)
        R[s, a, s] = pay
    return FiniteMDP(P, R, one_hot(0, states), horizon)


def chain(*, states: int = 5, horizon: int = 20, fail_probability: float = 0.1) -> FiniteMDP:
    """Left and right, each the other way with ``fail_probability``; being in the first state pays 0.05, in the last 1."""
    P, R = moves_in_a_row(states, fail_probability), np.zeros((states, 2, states))
    R[0], R[-1] = 0.05, 1
    return FiniteMDP(P, R, one_hot(0, states), horizon)


def double_chain(*, states: int = 31, horizon: int = 20, fail_probability: float = 0.1) -> FiniteMDP:
    """Left and right from the middle, each the other way with ``fail_probability``; *staying* in the last state pays 1."""
    P, R = moves_in_a_row(states, fail_probability), np.zeros((states, 2, states))
    R[-1, :, -1] = 1
    return FiniteMDP(P, R, one_hot((states - 1) // 2, states), horizon)


def line(*, states: int = 7, horizon: int = 12) -> FiniteMDP:
    """Left and right from the middle, without fail and without a reward."""
    P = moves_in_a_row(states, 0.0)
    return FiniteMDP(P, np.zeros_like(P), one_hot((states - 1) // 2, states), horizon)


def moves_in_a_row(states: int, fail_probability: float) -> np.ndarray:
    """P [S, 2, S] of left (0) and right (1), where the ends stop whoever walks on; with ``fail_probability`` one goes the other way."""
    at = np.arange(states)
    left, right = one_hot(np.maximum(at - 1, 0), states), one_hot(np.minimum(at + 1, states - 1), states)
    as_meant, flipped = np.stack([left, right], 1), np.stack([right, left], 1)
    return (1 - fail_probability) * as_meant + fail_probability * flipped


def grid_world(*, horizon: int = 20, fail_probability: float = 0.05) -> FiniteMDP:
    """21 x 21 cells, from (10, 10); arriving in (16, 16) pays 1. Actions: 0 left, 1 right, 2 up, 3 down. A move succeeds with probability
    1 - ``fail_probability``; else it goes to one of the other neighbours. Walking against the border stays, without fail."""
    size, start, goal = 21, (10, 10), (16, 16)
    states = size * size
    P, R = np.zeros((states, 4, states)), np.zeros((states, 4, states))
    for s in range(states):
        row, column = divmod(s, size)
        ahead = [(row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)]
        inside = {a: r * size + c for a, (r, c) in enumerate(ahead) if 0 <= r < size and 0 <= c < size}
        for a in range(4):
            if a not in inside:
                P[s, a, s] = 1
                continue
            for b, successor in inside.items():
                P[s, a, successor] = 1 - fail_probability if b == a else fail_probability / (len(inside) - 1)
    R[:, :, goal[0] * size + goal[1]] = 1
    return FiniteMDP(P, R, one_hot(start[0] * size + start[1], states), horizon)


MDPS: dict[str, Listed] = {
    "riverswim_osband": Listed(riverswim_osband),
    "riverswim_strehl_littman": Listed(riverswim_strehl_littman, continuing=True),
    "six_arms": Listed(six_arms, rows=None, continuing=True),
    "double_chain": Listed(double_chain, success_return=0.5),
    "grid_world": Listed(grid_world, rows=21, success_return=0.5),
    "chain": Listed(chain),
    "line": Listed(line),
}
