"""Pictures of a MiniGrid world: uint8 [height, width, 3], ``TILE`` pixels a cell; what the agent sees is lit."""

from __future__ import annotations

import numpy as np

from envs.minigrid import views
from envs.minigrid.core import BALL, BOX, DOOR, FLOOR, GOAL, KEY, LAVA, LOCKED, MOVES, OPEN, WALL, State

TILE, FINE = 16, 4  # pixels a cell; points a pixel is the mean of, along each side
COLOURS = np.float32([[235, 64, 52], [76, 187, 23], [66, 135, 245], [150, 84, 212], [245, 205, 48], [130, 130, 130]])
LINE, LIT = np.float32([58, 58, 58]), 60


def picture(state: State, view_size: int, see_through: bool) -> np.ndarray:
    grid, (row, column) = np.asarray(state.grid), np.asarray(state.position)
    seen = lit(state, view_size, see_through)
    image = np.zeros((grid.shape[0] * TILE, grid.shape[1] * TILE, 3), np.uint8)
    drawn = {}
    for r, c in np.ndindex(*grid.shape):
        here = int(state.direction) if (r, c) == (row, column) else None
        look = int(grid[r, c]), here, bool(seen[r, c])
        if look not in drawn:
            drawn[look] = tile(*look)
        image[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE] = drawn[look]
    return image


def lit(state: State, view_size: int, see_through: bool) -> np.ndarray:
    """bool[H, W]: the cells that the agent sees."""
    shown = np.asarray(views.partial(state, view_size, see_through))[..., 0] > 0
    grid, position, forward = np.asarray(state.grid), np.asarray(state.position), MOVES[int(state.direction)]
    right = np.array([forward[1], -forward[0]])
    seen = np.zeros(grid.shape, bool)
    for across, down in np.argwhere(shown):
        r, c = position + (across - view_size // 2) * right + (view_size - 1 - down) * forward
        if 0 <= r < grid.shape[0] and 0 <= c < grid.shape[1]:
            seen[r, c] = True
    return seen


def tile(code: int, agent: int | None, light: bool) -> np.ndarray:
    """uint8[TILE, TILE, 3] of one cell."""
    kind, colour, state, inside = code & 15, COLOURS[min((code >> 4) & 7, 5)], (code >> 7) & 3, (code >> 9) & 7
    points = (np.arange(TILE * FINE) + 0.5) / (TILE * FINE)
    x, y = np.meshgrid(points, points)
    image = np.zeros((*x.shape, 3), np.float32)

    def paint(where, what):
        image[where] = what

    def box(left, top, right, bottom):
        return (x >= left) & (x < right) & (y >= top) & (y < bottom)

    def disc(cx, cy, radius):
        return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2

    paint((x < 1 / TILE) | (y < 1 / TILE), LINE)
    if kind in (WALL, GOAL):
        paint(x >= 0, colour)
    elif kind == FLOOR:
        paint(x >= 1 / TILE, colour / 2)
    elif kind == LAVA:
        paint(x >= 0, (255, 128, 0))
        for height in (0.3, 0.5, 0.7):
            paint(np.abs(y - height - 0.06 * np.sin(4 * np.pi * x)) < 0.035, 0)
    elif kind == DOOR:
        paint(box(0, 0, 1, 1), colour)
        if state == OPEN:
            paint(box(0.0, 0.0, 0.85, 1), 0)
        else:
            paint(box(0.1, 0.1, 0.9, 0.9), 0.4 * colour if state == LOCKED else 0)
            paint(box(0.6, 0.45, 0.8, 0.55) if state == LOCKED else disc(0.72, 0.5, 0.09), colour)
    elif kind == KEY:
        paint(disc(0.5, 0.3, 0.2), colour)
        paint(disc(0.5, 0.3, 0.09), 0)
        paint(box(0.44, 0.45, 0.56, 0.9) | box(0.56, 0.62, 0.72, 0.7) | box(0.56, 0.8, 0.72, 0.88), colour)
    elif kind == BALL:
        paint(disc(0.5, 0.5, 0.32), colour)
    elif kind == BOX:
        paint(box(0.1, 0.1, 0.9, 0.9), colour)
        paint(box(0.2, 0.2, 0.8, 0.8), 0)
        paint(box(0.2, 0.46, 0.8, 0.54), colour)
        if inside:
            paint(disc(0.5, 0.7, 0.08), COLOURS[inside - 1])
    if agent is not None:
        down, right = MOVES[agent]
        ahead = (x - 0.5) * right + (y - 0.5) * down
        aside = np.abs((x - 0.5) * down - (y - 0.5) * right)
        paint((ahead > -0.36) & (aside < 0.5 * (0.38 - ahead)), (255, 60, 60))
    image = image.reshape(TILE, FINE, TILE, FINE, 3).mean(axis=(1, 3))
    return (np.minimum(image + LIT, 255) if light else image).astype(np.uint8)
