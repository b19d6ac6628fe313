"""Cells whose representation is searched for again as an archive grows, on the host: what is remembered between searches, and when they are due.

``exploration/representation.py`` is the search, ``exploration/rebinning.py`` makes the archive again. All that is random comes from the member's key and the
iteration, so the number of workers, and where a run was stopped, change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from exploration.go_explore import Cells
from exploration.rebinning import Records, best_of_each, records_of
from exploration.representation import SMALLEST, Found, Search, search, unpacked
from runners.explorers import Rolled

ONE_CELL = (0, 0, 0)  # the representation before the first search


class Dynamic(NamedTuple):
    """What one member remembers."""

    representation: tuple[int, int, int]  # width, height, depth
    searched: int  # agent steps made until the last search
    searches: int
    recent: dict[bytes, None]  # different pictures met since then, packed, oldest first
    pictures: dict[int, bytes]  # of what cells keep and kept: number of the snapshot -> packed
    former: dict[int, tuple]  # what cells of former archives kept: number of the snapshot -> the fields of ``Records``; newest last


def beginning() -> Dynamic:
    return Dynamic(ONE_CELL, 0, 0, {}, {}, {})


def looks(settings: Search, key: np.ndarray, iteration: int, lanes: int, steps: int) -> list[tuple[int, ...]]:
    """The steps of each rollout whose pictures are remembered, if they are made."""
    chosen = random(key, iteration, 0).random((lanes, steps)) < settings.rate
    return [tuple(np.flatnonzero(row).tolist()) for row in chosen]


def random(key: np.ndarray, iteration: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([*np.asarray(key, np.uint32).ravel().tolist(), iteration, purpose])


def seen(settings: Search, known: Dynamic, rolled: list[Rolled]) -> None:
    """Remember the pictures that came back; the oldest make room."""
    for picture in [picture for part in rolled for picture in part.pictures]:
        known.recent.setdefault(picture)
        if len(known.recent) > settings.frames:
            del known.recent[next(iter(known.recent))]


def due(settings: Search, known: Dynamic, made: int, cells: int) -> bool:
    """Whether it is time to search, after ``made`` agent steps. Never with fewer than two pictures, nor twice within ``first`` steps."""
    since = made - known.searched
    return since >= settings.first and len(known.recent) > 1 and (not known.searches or since >= settings.every or cells > settings.above)


def searched(settings: Search, known: Dynamic, made: int, rng: np.random.Generator) -> tuple[Dynamic, Found]:
    frames = np.stack([unpacked(picture) for picture in known.recent])
    found = search(frames, rng, known.representation if known.searches else SMALLEST, settings.iterations)
    return known._replace(representation=found.sizes, searched=made, searches=known.searches + 1, recent={}), found


def sorted_anew(known: Dynamic, state: Cells, cell: Callable, resets: bool) -> tuple[Dynamic, Records, np.ndarray]:
    """(with the archive among the former ones, what the new archive keeps, under which fingerprints)."""
    present = records_of(state)
    numbers = present.world.tolist()
    former = {number: known.former[number] for number in known.former if number not in set(numbers)}
    older = [former[number] for number in reversed(former)]
    every = [*zip(*(field.tolist() for field in present[:-1]), strict=True), *older]
    records = Records(*(np.array([record[n] for record in every], field.dtype) for n, field in enumerate(present[:-1])), np.arange(len(every)) < len(numbers))
    keys = np.frombuffer(b"".join(fingerprint(known, cell, int(number)) for number in records.world), np.uint32).reshape(-1, 2)
    former |= {number: record for number, record in zip(numbers[::-1], every[: len(numbers)][::-1], strict=True)}
    return known._replace(former=former), *best_of_each(records, keys, resets)


def fingerprint(known: Dynamic, cell: Callable, number: int) -> bytes:
    grey = unpacked(known.pictures[number])
    return cell(lambda what: grey, *known.representation)


def told(known: Dynamic, seconds: float) -> dict[str, Any]:
    """The line of metrics."""
    width, height, depth = known.representation
    names = {"width": width, "height": height, "depth": depth, "searches": known.searches, "former": len(known.former)}
    return {f"archive/{name}": value for name, value in names.items()} | {"time/cell_search": round(seconds, 3)}
