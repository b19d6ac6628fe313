"""``farlands demonstrate RUN which=map`` for JAX worlds that are maps: the archive over the picture of the world in which its best trajectory begins.

Where a cell is, is found by replaying its trajectory. A dot is a square of the map: larger, the more cells are there (a state may be more than a place);
lighter, the higher the best of their scores. Lines join cells with those that their trajectories came from. Of worlds with several levels one is
drawn: where the best trajectory begins, or, where none beats the start, where most cells are.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from envs.builder import Refusal
from exploration.go_explore import END, NEVER, START, Cells
from exploration.trajectories import walked
from runners.archive_map import predecessors
from runners.base import Runner

TOGETHER = 256  # trajectories replayed by one call


def shown(runner: Runner, cells: Cells) -> list[int]:
    """The cells of the level that is drawn: their trajectories begin in the same state."""
    there = [i for i in range(int(cells.size)) if i not in (START, END) and cells.length[i] != NEVER]
    if not there:
        raise Refusal("which=map: this archive has no cell yet")
    origins, kind = np.unique(cells.kept.note.origin[there], axis=0, return_inverse=True)
    kind, number = kind.reshape(-1), len(origins)
    padded = np.resize(origins, (-(-number // TOGETHER) * TOGETHER, 2)).reshape(-1, TOGETHER, 2)
    resets = jax.jit(jax.vmap(lambda origin: runner.env.reset(origin)[0]))
    parts = [jax.tree.map(np.asarray, resets(jnp.asarray(part))) for part in padded]
    states = [b"".join(leaf[n].tobytes() for leaf in jax.tree.leaves(part)) for part in parts for n in range(TOGETHER)][:number]
    level = {i: states[origin] for i, origin in zip(there, kind, strict=True)}
    best = int(cells.best)
    drawn = level[best] if best in level and cells.score[best] > cells.score[START] else Counter(level.values()).most_common(1)[0][0]
    return [i for i in there if level[i] == drawn]


def check(runner: Runner) -> None:
    """Raises Refusal for worlds that are no maps."""
    if runner.spec.grid is None or "position" not in runner.spec.info:
        raise Refusal(f"which=map is for games whose rooms are known and for worlds that are maps, and {runner.spec.name!r} is neither; try which=curves")


def positions(runner: Runner, cells: Cells, among: list[int]) -> dict[int, tuple[int, int]]:
    """Cell -> (row, column)."""
    env, tree, note = runner.env, cells.tree, cells.kept.note
    longest = max((int(cells.length[i]) for i in among), default=1)

    @jax.jit
    @jax.vmap
    def ends(origin, actions, length):
        def step(carry, inputs):
            (world, place), (time, action) = carry, inputs
            new, seen = env.step(world, jax.random.PRNGKey(0), action)
            return jax.tree.map(lambda a, b: jnp.where(time < length, a, b), (new, seen.info["position"]), (world, place)), None

        start = (env.reset(origin)[0], jnp.zeros(2, jnp.int32))
        return jax.lax.scan(step, start, (jnp.arange(longest), actions))[0][1]

    found = {}
    for at in range(0, len(among), TOGETHER):
        some = among[at : at + TOGETHER]
        ways = np.zeros((TOGETHER, longest, *tree.actions.shape[2:]), np.float32 if np.issubdtype(tree.actions.dtype, np.floating) else np.int32)
        for place, i in zip(ways, some, strict=False):
            way = walked(tree.actions, tree.parent_row, tree.parent_steps, int(note.row[i]), int(note.steps[i]))
            place[: len(way)] = way
        padded = np.resize(np.asarray(some), TOGETHER)
        rows = np.asarray(ends(jnp.asarray(note.origin[padded]), jnp.asarray(ways), jnp.asarray(cells.length[padded])))
        found |= {i: (int(row), int(column)) for i, (row, column) in zip(some, rows, strict=False)}
    return found


def draw(out: Path, runner: Runner, cells: Cells, title: str) -> int:
    """Write the picture; the number of cells in it. Raises Refusal for worlds that are no maps, and for empty archives."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection

    check(runner)
    among = shown(runner, cells)
    places = positions(runner, cells, among)
    rows, columns = runner.spec.grid
    figure, axes = pyplot.subplots(figsize=(7.5, 6.5), layout="constrained")
    if runner.env.render:
        world, _ = runner.env.reset(jnp.asarray(cells.kept.note.origin[among[0]]))
        axes.imshow(np.asarray(runner.env.render(world)), extent=(0, columns, rows, 0), alpha=0.5)
    joined = {(places[a], places[b]) for a, b in predecessors(cells, among) if places[a] != places[b]}
    axes.add_collection(LineCollection([[(x + 0.5, y + 0.5) for y, x in pair] for pair in sorted(joined)], colors="#D55E0066", linewidths=1.0, zorder=1))
    squares: dict[tuple[int, int], list[float]] = {}
    for i, place in places.items():
        squares.setdefault(place, []).append(float(cells.score[i]))
    order = sorted(squares, key=lambda place: max(squares[place]))
    size = (240 / max(rows, columns)) ** 2 / 4  # points squared, of a square with most cells
    most = max(map(len, squares.values()))
    dots = axes.scatter(
        [column + 0.5 for _, column in order],
        [row + 0.5 for row, _ in order],
        c=[max(squares[place]) for place in order],
        s=[size * (0.25 + 0.75 * len(squares[place]) / most) for place in order],
        cmap="viridis",
        zorder=2,
    )
    scores = {float(cells.score[i]) for i in among}
    if len(scores) > 1:
        figure.colorbar(dots, ax=axes, label="best score of the cells there", shrink=0.7)
    below = max(rows, 1 + max(row for row, _ in places.values()))
    axes.set(xlim=(0, columns), ylim=(below, 0), xticks=[], yticks=[], aspect="equal", title=title)
    told = f"{len(places):,} cells on {len(squares):,} squares, at most {most} on one"
    axes.set_xlabel(told if len(scores) > 1 else f"{told}; the score of all is {min(scores):g}", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
    return len(places)
