"""Taxi: fetch a passenger from one of four depots and bring it to another (Dietterich 2000, "Hierarchical Reinforcement Learning with the MAXQ Value
Function Decomposition"), by the rules of Gymnasium's Taxi-v3, shown as a picture as in the experiments of the coin flip network (arXiv 2306.03186, its code).

    state = ((row * 5 + column) * 5 + passenger) * 4 + destination      passenger: depot 0 to 3 (R, G, Y, B), or 4, in the taxi

- Actions: 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 drop off. Drop off works at depots only.
- ``reward="sparse"``: 1 for the delivery, which ends the episode. ``"dense"``, Taxi-v3's: -1 a step, -10 where picking up or dropping off is impossible,
  +20 for the delivery.
- ``start="depots"``: taxi and passenger at two different depots, the destination another one than the passenger's (36 starts, all alike), as
  published. ``"random"``: Taxi-v3's 300 starts, the taxi anywhere. ``"fixed"``: taxi in the middle, passenger at R, destination B.

Departures from the published world: it has one action for picking up and dropping off, and passengers may be left anywhere. The picture is rebuilt
from measures of its code (white on black, only the destination drawn, a dashed frame while the passenger rides), so shapes differ in detail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Choice, Integer, options

SIDE, NUM_STATES, NUM_ACTIONS, RIDING = 5, 500, 6, 4
DEPOTS = ((0, 0), (0, 4), (4, 0), (4, 3))  # R, G, Y, B
WALLS = ((0, 1), (1, 1), (3, 0), (4, 0), (3, 2), (4, 2))  # cells with a wall on their east side
NAMES = ("R", "G", "Y", "B", "taxi")
COLOURS = ((200, 60, 60), (60, 160, 80), (210, 180, 50), (60, 100, 200))
ONE, ZERO = np.float32(1), np.float32(0)


class TaxiState(NamedTuple):
    state: jax.Array  # i32[], 0 to 499
    steps: jax.Array  # i32[]


def encode(row: int, column: int, passenger: int, destination: int) -> int:
    """The state's number, as Taxi-v3 numbers it."""
    return ((row * SIDE + column) * 5 + passenger) * 4 + destination


def decode(state):
    """(row, column, passenger, destination) of states of any shape."""
    return state // 100, state // 20 % 5, state // 4 % 5, state % 4


def transitions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(successor i32[500, 6], dense reward f32[500, 6], delivered bool[500, 6])."""
    successor = np.zeros((NUM_STATES, NUM_ACTIONS), np.int32)
    reward, delivered = np.full(successor.shape, -1, np.float32), np.zeros(successor.shape, bool)
    for state in range(NUM_STATES):
        row, column, passenger, destination = decode(state)
        east = column + 1 if column < SIDE - 1 and (row, column) not in WALLS else column
        west = column - 1 if column > 0 and (row, column - 1) not in WALLS else column
        moves = ((min(row + 1, SIDE - 1), column), (max(row - 1, 0), column), (row, east), (row, west))
        successor[state, :4] = [encode(*cell, passenger, destination) for cell in moves]

        depot = DEPOTS.index((row, column)) if (row, column) in DEPOTS else None
        picks = passenger == depot
        drops = passenger == RIDING and depot is not None
        delivered[state, 5] = drops and depot == destination
        successor[state, 4] = encode(row, column, RIDING if picks else passenger, destination)
        successor[state, 5] = encode(row, column, depot if drops else passenger, destination)
        reward[state, 4:] = -1 if picks else -10, (20 if delivered[state, 5] else -1) if drops else -10
    return successor, reward, delivered


def starts(kind: str) -> np.ndarray:
    """Equally likely first states of ``start=kind``, i32[n]."""
    if kind == "fixed":
        return np.int32([encode(2, 2, 0, 3)])
    pairs = [(passenger, destination) for passenger in range(4) for destination in range(4) if passenger != destination]
    if kind == "depots":
        return np.int32([encode(*cell, p, d) for p, d in pairs for cell in DEPOTS if cell != DEPOTS[p]])
    return np.int32([encode(row, column, p, d) for p, d in pairs for row in range(SIDE) for column in range(SIDE)])


@options(
    observation=Choice(("image", "one_hot", "index", "codes")),
    pixels=Integer(36, 168),
    reward=Choice(("sparse", "dense")),
    start=Choice(("depots", "random", "fixed")),
    max_steps=Integer(1),
)
def taxi(*, observation: str = "image", pixels: int = 84, reward: str = "sparse", start: str = "depots", max_steps: int = 50) -> Environment:
    """The taxi.

    Args:
      observation: "image" uint8[pixels, pixels, 1]; "one_hot" f32[500]; "index" i32[], which networks see as one-hot;
        "codes" i32[4], (row, column, passenger, destination).
      pixels: side of the picture; 84 as published.
      reward: "sparse" or "dense".
      start: "depots", "random" or "fixed".
      max_steps: limit, by truncation; 50 as published. Taxi-v3 has 200.

    info: ``state_id`` as Taxi-v3's observation, ``position`` i32[2] (row, column) of the taxi, ``success`` bool, delivered in this step.
    """
    successor, dense, delivered = transitions()
    firsts, sparse = starts(start), reward == "sparse"
    paid = delivered.astype(np.float32) if sparse else dense
    observe, space = _seen(observation, pixels)

    def reset(key):
        state = jnp.asarray(firsts)[jax.random.randint(key, (), 0, len(firsts))]
        return TaxiState(state, jnp.int32(0)), observe(state)

    def step(state, key, action):
        del key
        at = state.state * NUM_ACTIONS + jnp.asarray(action, jnp.int32)
        new = TaxiState(jnp.asarray(successor.reshape(-1))[at], state.steps + 1)
        there = jnp.asarray(delivered.reshape(-1))[at]
        row, column, _, _ = decode(new.state)
        info = {"state_id": new.state, "position": jnp.stack([row, column]), "success": there}
        return new, TimeStep(observe(new.state), jnp.asarray(paid.reshape(-1))[at], there, (new.steps >= max_steps) & ~there, info)

    spec = Spec(
        observation=space,
        action=spaces.Discrete(NUM_ACTIONS),
        name="taxi",
        max_steps=max_steps,
        info={"state_id": spaces.Discrete(NUM_STATES), "position": spaces.Box(0, SIDE - 1, (2,), np.int32), "success": spaces.Discrete(2)},
        num_states=NUM_STATES,
        num_cells=SIDE * SIDE,
        grid=(SIDE, SIDE),
        success_return=0.5 if sparse else None,  # a dense return depends on the way as well
        deterministic=True,
    )
    return Environment(spec, reset, step, render)


def _seen(observation: str, pixels: int) -> tuple[Callable[[jax.Array], jax.Array], spaces.Space]:
    """(state's number -> obs, its space)."""
    if observation == "one_hot":
        return lambda state: jnp.where(jnp.arange(NUM_STATES, dtype=jnp.int32) == state, ONE, ZERO), spaces.Box(0.0, 1.0, (NUM_STATES,), np.float32)
    if observation == "index":
        return lambda state: state, spaces.Discrete(NUM_STATES)
    if observation == "codes":
        return lambda state: jnp.stack(decode(state)), spaces.Box(np.zeros(4, np.int32), np.int32([4, 4, 4, 3]), dtype=np.int32)
    pictures = np.stack([picture(state, pixels) for state in range(NUM_STATES)])[..., None]
    return lambda state: jnp.asarray(pictures)[state], spaces.Box(0, 255, pictures.shape[1:], np.uint8)


# --- pictures ----------------------------------------------------------------------------------------------------------


class Measures(NamedTuple):
    """Lengths in pixels; for 84 pixels those of the published world."""

    wall: int
    cell: int
    border: int  # left and above

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """The first pixel of a cell."""
        return tuple(self.border + self.wall + at * (self.cell + self.wall) for at in (row, column))


def measures(pixels: int) -> Measures:
    wall = max(1, pixels // 42)
    cell = (pixels - 6 * wall - 2 * max(1, pixels // 28)) // SIDE
    return Measures(wall, cell, (pixels - 6 * wall - SIDE * cell + 1) // 2)


def shapes(cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn into a cell, bool[cell, cell]: (depot, its corners; passenger, a disc; taxi, all the rest). They never overlap."""
    far = np.abs(np.arange(cell) - (cell - 1) / 2)
    disc = far[:, None] ** 2 + far[None, :] ** 2 <= (4.5 / 13 * cell) ** 2
    outer = far > (cell - 1) / 2 - max(1, 3 * cell // 13)
    corners = outer[:, None] & outer[None, :]
    return corners, disc, ~corners & ~disc


def layers(state: int, pixels: int) -> dict[str, np.ndarray]:
    """What a state's picture consists of, bool[pixels, pixels] each: frame, walls, depot, passenger, taxi."""
    row, column, passenger, destination = decode(state)
    m = measures(pixels)
    depot, disc, car = shapes(m.cell)
    found = {name: np.zeros((pixels, pixels), bool) for name in ("frame", "walls", "depot", "passenger", "taxi")}

    def put(name, shape, cell):
        y, x = m.corner(*cell)
        found[name][y : y + m.cell, x : x + m.cell] |= shape

    put("depot", depot, DEPOTS[destination])
    put("passenger", disc, (row, column) if passenger == RIDING else DEPOTS[passenger])
    put("taxi", car, (row, column))

    length = m.wall + SIDE * (m.cell + m.wall)
    end = m.border + length
    for start in (m.border, end - m.wall):  # around
        found["walls"][start : start + m.wall, m.border : end] = True
        found["walls"][m.border : end, start : start + m.wall] = True
    for y, x in (m.corner(*cell) for cell in WALLS):
        found["walls"][y - m.wall : y + m.cell + m.wall, x + m.cell : x + m.cell + m.wall] = True

    if passenger == RIDING:
        dash = np.arange(pixels) // max(2, pixels // 14) % 2
        found["frame"] = dash[:, None] == dash[None, :]
        found["frame"][m.border : end, m.border : end] = False
    return found


def picture(state: int, pixels: int) -> np.ndarray:
    """The observation: uint8[pixels, pixels], 255 where anything is drawn."""
    return np.where(np.any(list(layers(state, pixels).values()), axis=0), np.uint8(255), np.uint8(0))


def render(state: TaxiState, pixels: int = 168) -> np.ndarray:
    """The same in colour: the depot as R, G, Y or B, the passenger in the colour of its destination, the taxi dark."""
    number = int(state.state)
    colour = COLOURS[number % 4]
    image = np.full((pixels, pixels, 3), 235, np.uint8)
    painted = {"frame": colour, "walls": (50, 54, 64), "depot": colour, "passenger": colour, "taxi": (30, 30, 36)}
    for name, where in layers(number, pixels).items():
        image[where] = painted[name]
    return image
