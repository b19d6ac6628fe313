"""Finite MDPs as worlds: a ``FiniteMDP`` is arrays, and ``world`` makes an ``Environment`` of it that draws its steps on the device.

Rewards are kept per (s, a, s'), which covers those that depend on (s, a) or on s alone, and those that are paid for where one ends
up (for staying in RiverSwim, for entering a cell of a grid). ``envs/oracle.py`` knows the exact values of the same arrays.

Most successors of a state have probability 0. ``outcomes`` keeps the others, so a step reads a few numbers, whatever S is; where
there is only one, nothing is drawn.

The horizon of an episodic MDP is part of it: after H steps the episode *terminates*, as there is nothing to come. What is best then
depends on the time left, which ``observation="time"`` shows. In a *continuing* MDP the H steps only limit the experiment, and they
truncate.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs import oracle
from envs.base import Environment, Spec, Tally, TimeStep, Transition
from envs.builder import Refusal

ZERO, ONE = np.float32(0), np.float32(1)  # plain 0.0 and 1.0 would make weakly typed results
NEVER = 2.0  # a threshold above every number in [0, 1)
OBSERVATIONS = ("one_hot", "index", "time")


class FiniteMDP(NamedTuple):
    """S states, A actions, H steps per episode. numpy, float64."""

    P: np.ndarray  # [S, A, S]; probability of the successor
    R: np.ndarray  # [S, A, S]; reward on the way to it
    p0: np.ndarray  # [S]; probability of starting there
    horizon: int  # H

    @property
    def num_states(self) -> int:
        return self.P.shape[0]

    @property
    def num_actions(self) -> int:
        return self.P.shape[1]

    @property
    def mean_rewards(self) -> np.ndarray:
        """r(s, a), [S, A]."""
        return (self.P * self.R).sum(-1)


class Outcomes(NamedTuple):
    """What may follow on (s, a): at most K successors."""

    successors: np.ndarray  # i32[S, A, K]
    thresholds: np.ndarray  # f32[S, A, K]; outcome k is drawn by a number in [thresholds[k - 1], thresholds[k]); the last is NEVER
    rewards: np.ndarray  # f32[S, A, K]


class FiniteMDPState(NamedTuple):
    state: jax.Array  # i32[], 0 to S - 1
    time: jax.Array  # i32[], steps taken, 0 to H


class RegretTally(NamedTuple):
    episodes: jax.Array  # i32[]; ended so far
    regret: jax.Array  # f32[]; of all of them


def checked(mdp: FiniteMDP) -> FiniteMDP:
    """``mdp`` itself, if it is one; else Refusal, saying what is wrong."""
    shape = np.shape(mdp.P)
    if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
        raise Refusal(f"P must be [S, A, S], of at least one state and one action; it is {shape}")
    for name, wanted in {"R": shape, "p0": shape[:1]}.items():
        if np.shape(getattr(mdp, name)) != wanted:
            raise Refusal(f"{name} must be {wanted}, to go with P of {shape}; it is {np.shape(getattr(mdp, name))}")
    for name, rows in {"P": mdp.P, "p0": mdp.p0}.items():
        sums = np.sum(rows, -1)
        if np.min(rows) < 0 or not np.allclose(sums, 1, rtol=0, atol=1e-9):
            worst = np.abs(sums - 1).argmax()
            raise Refusal(f"every row of {name} must be probabilities that sum to 1; row {worst} of {sums.size} sums to {sums.flat[worst]:.6g}")
    if not np.isfinite(mdp.R).all() or mdp.horizon < 1:
        raise Refusal(f"R must be finite, and the horizon 1 or more; it is {mdp.horizon}")
    return mdp


def outcomes(P: np.ndarray, R: np.ndarray) -> Outcomes:
    """The successors with a probability above 0, in order; K is the largest number of them. Rows with fewer repeat what is never drawn."""
    possible = P > 0
    number = possible.sum(-1, keepdims=True)
    order = np.argsort(~possible, axis=-1, kind="stable")[..., : number.max()]
    thresholds = np.cumsum(np.take_along_axis(P, order, -1), -1)
    thresholds = np.where(np.arange(order.shape[-1]) >= number - 1, NEVER, thresholds)
    rewards = np.take_along_axis(np.where(possible, R, 0), order, -1)
    return Outcomes(order.astype(np.int32), thresholds.astype(np.float32), rewards.astype(np.float32))


def world(
    mdp: FiniteMDP,
    *,
    name: str = "finite_mdp",
    observation: str = "one_hot",
    bernoulli: bool = False,
    continuing: bool = False,
    grid: tuple[int, int] | None = None,
    success_return: float | None = None,
) -> Environment:
    """``mdp`` as a world.

    ``observation``: "one_hot" f32[S]; "index" i32[]; "time" f32[S + 1], one-hot and the share of the horizon that remains.
    ``bernoulli``: rewards are 0 or 1, with the MDP's reward (which must lie in [0, 1]) as the probability of 1.
    ``continuing``: the horizon truncates instead of terminating.
    ``grid``: the states are the cells of such a map, row by row.
    info: ``state_id``, the state reached, and with a grid ``position`` i32[2] (row, column). ``tally``: regret of the returns.
    Raises Refusal where the arrays are not an MDP.
    """
    checked(mdp)
    num_states, num_actions, horizon = mdp.num_states, mdp.num_actions, int(mdp.horizon)
    if observation not in OBSERVATIONS:
        raise Refusal(f"env.observation={observation!r} is not legal: it must be one of {', '.join(OBSERVATIONS)}")
    if grid is not None and grid[0] * grid[1] != num_states:
        raise Refusal(f"a grid of {grid[0]} x {grid[1]} has {grid[0] * grid[1]} cells, and the MDP {num_states} states")
    possible = outcomes(mdp.P, mdp.R)
    starts = outcomes(mdp.p0[None, None], np.zeros((1, 1, num_states)))
    successors, thresholds, rewards = (table.reshape(num_states * num_actions, -1) for table in possible)
    if bernoulli and not (0 <= rewards.min() and rewards.max() <= 1):
        raise Refusal(f"env.bernoulli=true needs rewards in [0, 1]; those of {name} lie in [{rewards.min():g}, {rewards.max():g}]")

    def observe(state):
        if observation == "index":
            return state.state
        shown = jnp.where(jnp.arange(num_states, dtype=jnp.int32) == state.state, ONE, ZERO)
        if observation == "one_hot":
            return shown
        remaining = (horizon - state.time).astype(jnp.float32) / np.float32(horizon)
        return jnp.concatenate([shown, remaining[None]])

    def reset(key):
        first = _draw(starts.thresholds[0, 0], key)
        state = FiniteMDPState(jnp.asarray(starts.successors[0, 0])[first], jnp.int32(0))
        return state, observe(state)

    def step(state, key, action):
        row = state.state * num_actions + jnp.asarray(action, jnp.int32)
        drawn = _draw(jnp.asarray(thresholds)[row], key)
        reward = jnp.asarray(rewards)[row, drawn]
        if bernoulli:
            reward = jnp.where(jax.random.uniform(jax.random.fold_in(key, 1)) < reward, ONE, ZERO)
        new = FiniteMDPState(jnp.asarray(successors)[row, drawn], state.time + 1)
        info = {"state_id": new.state}
        if grid is not None:
            info["position"] = jnp.stack([new.state // grid[1], new.state % grid[1]])
        over, never = new.time >= horizon, jnp.bool_(False)
        terminated, truncated = (never, over) if continuing else (over, never)
        return new, TimeStep(observe(new), reward, terminated, truncated, info)

    one_hot = spaces.Box(0.0, 1.0, (num_states + (observation == "time"),), np.float32)
    described = {"state_id": spaces.Discrete(num_states)}
    if grid is not None:
        described["position"] = spaces.Box(np.zeros(2, np.int32), np.int32(grid) - 1, dtype=np.int32)
    spec = Spec(
        observation=spaces.Discrete(num_states) if observation == "index" else one_hot,
        action=spaces.Discrete(num_actions),
        name=name,
        max_steps=horizon,
        info=described,
        num_states=num_states,
        grid=grid,
        num_cells=None if grid is None else int(oracle.reachable(mdp).sum()),
        success_return=success_return,
        deterministic=thresholds.shape[1] == 1 and (not bernoulli or bool(np.isin(rewards, (0, 1)).all())),
    )
    return Environment(spec, reset, step, _renderer(mdp, grid or (1, num_states)), regret_tally(oracle.optimal_return(mdp)))


def _draw(thresholds: jax.Array | np.ndarray, key: jax.Array) -> jax.Array:
    """Which of K outcomes, i32[], by thresholds [K]."""
    if thresholds.shape[0] == 1:
        return jnp.int32(0)
    return jnp.sum(jax.random.uniform(key) >= thresholds, dtype=jnp.int32)


def regret_tally(optimal_return: float) -> Tally:
    """Tally of the regret of the returns: reports ``regret``, the sum of V* - return over all episodes, and ``regret_per_episode``.

    Its expectation is that of ``oracle.regret``; it has the noise of the returns, and may be below 0. Needs info["episode_return"].
    """

    def update(state: RegretTally, transitions: Transition) -> RegretTally:
        lost = jnp.where(transitions.done, np.float32(optimal_return) - transitions.info["episode_return"], ZERO)
        return RegretTally(state.episodes + jnp.sum(transitions.done, dtype=jnp.int32), state.regret + jnp.sum(lost))

    def report(state: RegretTally) -> dict[str, jax.Array]:
        return {"regret": state.regret, "regret_per_episode": state.regret / jnp.maximum(state.episodes, 1).astype(jnp.float32)}

    return Tally(lambda: RegretTally(jnp.int32(0), jnp.float32(0)), update, report)


# --- pictures ----------------------------------------------------------------------------------------------------------

FLOOR, START, GOLD, AGENT, LINE, BAR = (38, 42, 52), (44, 78, 128), (244, 196, 64), (255, 255, 255), (20, 22, 28), (96, 176, 120)


def _renderer(mdp: FiniteMDP, grid: tuple[int, int]):
    """state -> uint8 [height, width, 3]: a cell per state, blue where episodes start, golden where arriving is paid, a white disc for
    the agent, and below it a bar for the time that remains."""
    rows, columns = grid
    side = 24 if columns <= 32 and rows == 1 else 12
    paid = (mdp.P * mdp.R).max((0, 1)).clip(0)
    share = (paid / max(paid.max(), np.finfo(float).tiny)) ** 0.25  # so that 5 is seen beside 6000
    colours = np.where(mdp.p0[:, None] > 0, np.float64(START), np.float64(FLOOR))
    colours = colours + share[:, None] * (np.float64(GOLD) - colours)
    board = colours.astype(np.uint8).reshape(rows, columns, 3).repeat(side, 0).repeat(side, 1)
    board[::side], board[:, ::side] = LINE, LINE
    offset = np.arange(side) - side / 2
    disc = offset[:, None] ** 2 + offset[None] ** 2 < (0.33 * side) ** 2

    def render(state):
        image, at = board.copy(), divmod(int(state.state), columns)
        cell = image[at[0] * side : (at[0] + 1) * side, at[1] * side : (at[1] + 1) * side]
        cell[disc] = AGENT
        bar = np.full((6, image.shape[1], 3), LINE, np.uint8)
        bar[1:-1, : round(image.shape[1] * (1 - int(state.time) / mdp.horizon))] = BAR
        return np.concatenate([image, bar])

    return render
