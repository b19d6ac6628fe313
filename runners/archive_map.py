"""``farlands demonstrate RUN which=map``: the archive of a game with rooms, as a picture of the rooms: where the cells are, and how they hang together."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path

from envs.base import HostWorld
from envs.builder import Refusal
from exploration.go_explore import NEVER, START, Cells
from exploration.knowledge import KNOWLEDGE, PYRAMID
from runners.base import HostExplorer

PYRAMIDS = {"montezuma_revenge": PYRAMID}
SIDE, BOTTOM, TOP = 160, 128, 256  # of a room, in the units of the console: its width, and its rows, counted from below


def places_of(cells: Cells, host: bytes, member: int, runner: HostExplorer) -> dict[int, tuple[int, int, int]]:
    """Cell -> (room, column, row), read from the memory of the emulators that the archive keeps."""
    known = KNOWLEDGE.get(runner.spec.name)
    if known is None:
        raise Refusal(f"which=map is for games whose rooms are known ({', '.join(KNOWLEDGE)}); and for JAX worlds that are maps; try which=curves")
    worlds = pickle.loads(host)[member][0]
    world: HostWorld = runner.env.single()
    found = {}
    for i in range(int(cells.size)):
        number = int(cells.kept.world[i])
        if i != START and number in worlds and cells.length[i] != NEVER:
            world.load(zlib.decompress(worlds[number]))
            found[i] = tuple(int(world.look("ram")[at]) for at in (known.room, known.x, known.y))
    return found


def corner(name: str, room: int) -> tuple[float, float]:
    """Where a room is drawn, in rooms from the left and from the top."""
    rows = PYRAMIDS.get(name)
    if rows is None:
        return room % 16, room // 16
    first = 0
    for row, width in enumerate(rows):
        if room < first + width:
            return (max(rows) - width) / 2 + room - first, row
        first += width
    return room - first, len(rows)


def predecessors(cells: Cells, among: Sequence[int]) -> list[tuple[int, int]]:
    """(cell, the cell that its trajectory came from), where that one still keeps the trajectory."""
    note, tree = cells.kept.note, cells.tree
    at: dict[int, list[tuple[int, int]]] = {}
    for i in among:
        at.setdefault(int(note.row[i]), []).append((int(note.steps[i]), i))
    found = []
    for row, ends in at.items():
        ends.sort()
        found += [(after[1], before[1]) for before, after in zip(ends[:-1], ends[1:], strict=True)]
        parent, steps = int(tree.parent_row[row]), int(tree.parent_steps[row])
        found += [(ends[0][1], i) for end, i in at.get(parent, []) if end == steps]
    return found


def draw(out: Path, cells: Cells, places: dict[int, tuple[int, int, int]], name: str, title: str) -> None:
    """Write the picture: a dot for each cell, lighter the higher its score, and lines to where it came from, inside a room."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection

    rooms = sorted({room for room, _, _ in places.values()})
    spots = {i: (corner(name, r)[0] + x / SIDE, corner(name, r)[1] + (TOP - max(y, BOTTOM)) / (TOP - BOTTOM)) for i, (r, x, y) in places.items()}
    figure, axes = pyplot.subplots(figsize=(12, 6), layout="constrained")
    for room in range(sum(PYRAMIDS[name])) if name in PYRAMIDS else rooms:
        left, top = corner(name, room)
        axes.add_patch(pyplot.Rectangle((left, top), 1, 1, fill=room in rooms, facecolor="#f2f2f2", edgecolor="#999999", linewidth=0.8, zorder=0))
        axes.text(left + 0.04, top + 0.12, str(room), fontsize=8, color="#333333" if room in rooms else "#bbbbbb")
    joined = [(spots[a], spots[b]) for a, b in predecessors(cells, list(places)) if places[a][0] == places[b][0]]
    axes.add_collection(LineCollection(joined, colors="#88888855", linewidths=0.5, zorder=1))
    order = sorted(places, key=lambda i: cells.score[i])
    dots = axes.scatter(*zip(*(spots[i] for i in order), strict=True), c=[cells.score[i] for i in order], s=5, cmap="viridis", zorder=2)
    figure.colorbar(dots, ax=axes, label="score of the cell", shrink=0.7)
    columns, depth = (max(PYRAMIDS[name]), len(PYRAMIDS[name])) if name in PYRAMIDS else (16, rooms[-1] // 16 + 1)
    axes.set(xlim=(-0.05, columns + 0.05), ylim=(depth + 0.05, -0.05), xticks=[], yticks=[], aspect=0.75, title=title)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def curves(out: Path, rows: Sequence[dict], member: int, title: str) -> int:
    """Score, cells and rooms over emulator frames (over agent steps, where there is no emulator); the number of points. Raises Refusal without any."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    mine = [row for row in rows if row.get("member") == member and "archive/score" in row]
    if not mine:
        raise Refusal("which=curves: this run has no archive, or no line of metrics yet")
    time, unit = ("frames/emulator", "emulator frames") if "frames/emulator" in mine[0] else ("steps/agent", "agent steps")
    shown = [name for name in ("archive/score", "archive/cells", "archive/rooms") if name in mine[0]]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4 * len(shown), 3), layout="constrained", squeeze=False)
    for panel, name in zip(axes[0], shown, strict=True):
        panel.step([row[time] for row in mine], [row[name] for row in mine], where="post", color="#0072B2")
        panel.set(xlabel=unit, ylabel={"archive/score": "best score"}.get(name, name.removeprefix("archive/")), ylim=(0, None), xlim=(0, None))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
    return len(mine)
