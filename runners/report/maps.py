"""Heat maps of where the members of a run have been, in worlds that are a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from runners.report.curves import Group
from runners.report.figures import seeds

SINGLE = 4  # maps of single seeds beside the mean
TILE = 2.5  # inches


def visits(groups: Sequence[Group]) -> Figure | None:
    """A row per group: the mean over its seeds, and the first seeds. One scale of colours for all; None where nobody counted."""
    counted = [group for group in groups if group.run.visits is not None and max(group.members) < len(group.run.visits)]
    if not counted:
        return None
    tiles = [tiles_of(group) for group in counted]
    columns = max(map(len, tiles))
    largest = max(float(tile.max()) for row in tiles for _, tile in row)
    norm = LogNorm(vmin=min(1.0, *(tile[tile > 0].min(initial=1.0) for row in tiles for _, tile in row)), vmax=max(largest, 2.0))
    figure = Figure(figsize=(max(TILE * columns + 1.0, 6.2), (TILE + 0.6) * len(tiles)), layout="constrained")
    rows = figure.subfigures(len(tiles), 1, squeeze=False)[:, 0]
    for part, group, row in zip(rows, counted, tiles, strict=True):
        part.suptitle(f"{group.label} ({seeds(len(group.members))})", fontsize=9, x=0.02, ha="left")
        axes = part.subplots(1, columns, squeeze=False)[0]
        for axis, (title, tile) in zip(axes, row, strict=False):
            image = axis.imshow(np.where(tile > 0, tile, np.nan), norm=norm, cmap="viridis", interpolation="nearest")
            axis.set_facecolor("#d9d9d9")
            axis.set_title(title, fontsize=8)
            axis.tick_params(labelsize=7)
            axis.set_xlabel("column", fontsize=7)
        axes[0].set_ylabel("row", fontsize=7)
        for axis in axes[len(row) :]:
            axis.set_axis_off()
        bar = part.colorbar(image, ax=list(axes), shrink=0.8)
        bar.set_label("visits (grey: none)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def tiles_of(group: Group) -> list[tuple[str, np.ndarray]]:
    """(title, visits f64[rows, columns]) of the mean and of the first members, with the number of cells that were seen."""
    maps = group.run.visits[list(group.members)].astype(float)
    seen = (maps > 0).sum(axis=(1, 2))
    who = [group.run.members[member].get("seed", member) for member in group.members]
    single = [(f"seed {seed}: {count} cells", tile) for seed, count, tile in zip(who, seen, maps, strict=True)]
    return single if len(single) == 1 else [(f"mean of {len(maps)} seeds: {np.median(seen):g} cells (median)", maps.mean(axis=0)), *single[:SINGLE]]
