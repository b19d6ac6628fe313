"""The search for what a downscaled picture should be shrunk to (dynamic cells; "First return, then explore", arXiv 2004.12919, Methods).

A representation is good when the N frames met lately fall into about T = N / 8 cells, evenly. With n cells of frequencies p::

    O = [H(p) / log n] / sqrt(|n / T - 1| + 1),    0 where n = 1

Width, height and depth are searched by climbing from the best so far: each proposal is geometric, its mean at least 8, 10.5 and 12, larger where the best is
larger; what was tried is not tried again; a proposal as good as the best takes its place. The paper does not say from where the first search
climbs; here from one pixel of two steps.

Frames are shrunk as ``exploration/host_cells.py`` does, up to rounding: sums over rows are kept, so that a new height costs two rows for each of its own,
and pictures of one width and height are kept for the depths.
"""

from __future__ import annotations

import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from exploration.cells import shares
from exploration.laws.play import expect

SHARE = 0.125  # of the frames: how many cells they should fall into
SPREAD = (20 / 160, 20 / 210, 1 / 12)  # largest probability of the geometric proposals
DEPTHS = (2, 255)
SMALLEST = (1, 1, 2)  # (width, height, depth)
TOGETHER = 250  # frames that are shrunk by one product
KEPT = 2**27  # bytes of shrunk frames that are remembered
GIVE_UP = 1000  # proposals in a row that were tried before


class Search(NamedTuple):
    """When representations are searched for, and how hard; the settings of ``cell=dynamic``."""

    first: int  # agent steps until the first search; everything is one cell before
    every: int  # agent steps between searches
    above: int  # search also when the archive has more cells
    iterations: int
    frames: int  # at most so many frames, all different, are remembered since the last search
    rate: float  # probability that a frame is
    resets: bool = True  # a cell whose record another one keeps goes on with its counters, see exploration/rebinning.py
    follows_score: bool = True  # the best cell is the one with the highest score


class Found(NamedTuple):
    sizes: tuple[int, int, int]  # width, height, depth
    objective: float
    before: float  # objective of what it climbed from


def objective(counts: Sequence[int]) -> float:
    """O of frames that fall into cells so often; see the module docstring."""
    counts = np.asarray(counts, np.float64)
    if len(counts) < 2:
        return 0.0
    p = counts / counts.sum()
    entropy = -np.sum(p * np.log(p)) / np.log(len(counts))
    return float(entropy / np.sqrt(abs(len(counts) / (SHARE * counts.sum()) - 1) + 1))


def search(frames: np.ndarray, rng: np.random.Generator, sizes: tuple[int, int, int], iterations: int) -> Found:
    """The best of ``iterations`` representations of ``frames`` u8[N, rows, columns], climbing from ``sizes``."""
    shrunk, (rows, columns) = Shrunk(frames), frames.shape[1:]
    limits = ((1, max(columns - 1, 1)), (1, max(rows - 1, 1)), DEPTHS)
    best = tuple(min(max(size, low), high) for size, (low, high) in zip(sizes, limits, strict=True))
    before = value = objective(shrunk.counts(*best))
    tried, rejected = {best}, 0
    while iterations and rejected < GIVE_UP:
        width, height, depth = best
        chances = (1 / (width + 1), 1 / (height + 1), 1 / depth)
        proposed = tuple(int(rng.geometric(min(chance, most))) for chance, most in zip(chances, SPREAD, strict=True))
        if proposed in tried or not all(low <= size <= high for size, (low, high) in zip(proposed, limits, strict=True)):
            rejected += 1
            continue
        tried.add(proposed)
        iterations, rejected = iterations - 1, 0
        found = objective(shrunk.counts(*proposed))
        if found >= value:
            best, value = proposed, found
    return Found(best, value, before)


class Shrunk:
    """Frames, ready to be shrunk to any size."""

    def __init__(self, frames: np.ndarray):
        self.number, self.rows, self.columns = frames.shape
        kind = np.uint16 if 255 * self.rows < 2**16 else np.uint32
        self._sums = []  # [rows + 1, frames, columns] for each block of frames
        for at in range(0, self.number, TOGETHER):
            block = np.moveaxis(frames[at : at + TOGETHER], 1, 0)
            sums = np.zeros((self.rows + 1, *block.shape[1:]), kind)
            np.cumsum(block, axis=0, dtype=kind, out=sums[1:])
            self._sums.append(sums)
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def pixels(self, width: int, height: int) -> np.ndarray:
        """u8[N, height x width]: the mean of the area that each pixel covers, rounded."""
        if (width, height) in self._kept:
            self._kept.move_to_end((width, height))
            return self._kept[width, height]
        edges = np.linspace(0, self.rows, height + 1)
        below = np.minimum(edges.astype(int), self.rows - 1)
        part = (edges - below).astype(np.float32)[:, None, None]
        right = np.ascontiguousarray(shares(self.columns, width).T) * np.float32(height / self.rows)
        found = np.empty((self.number, height, width), np.uint8)
        for n, sums in enumerate(self._sums):
            low = sums[below].astype(np.float32)
            until = low + (sums[below + 1] - low) * part
            small = np.rint(np.diff(until, axis=0).reshape(-1, self.columns) @ right).astype(np.uint8).reshape(height, -1, width)
            found[n * TOGETHER : (n + 1) * TOGETHER] = np.moveaxis(small, 0, 1)
        self._kept[width, height] = found = found.reshape(self.number, -1)
        while sum(part.nbytes for part in self._kept.values()) > KEPT and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return found

    def counts(self, width: int, height: int, depth: int) -> list[int]:
        """How many frames fall into each cell."""
        steps = (np.arange(256, dtype=np.float32) * np.float32(depth) / np.float32(255)).astype(np.uint8)
        cells = steps[self.pixels(width, height)]
        return list(Counter(map(bytes, cells)).values())


def packed(grey: np.ndarray) -> bytes:
    """A picture u8[rows, columns], compressed."""
    return np.uint16(grey.shape).tobytes() + zlib.compress(grey.tobytes(), 1)


def unpacked(picture: bytes) -> np.ndarray:
    return np.frombuffer(zlib.decompress(picture[4:]), np.uint8).reshape(np.frombuffer(picture[:4], np.uint16))


# --- known answers -----------------------------------------------------------------------------------------------------


def _objective_of_the_card() -> str:
    spread = {"125 equal": [8] * 125, "1000 single": [1] * 1000, "10 equal": [100] * 10, "one of 876 and 124 single": [876] + [1] * 124, "one": [1000]}
    return expect([objective(counts) for counts in spread.values()], [1, 0.35355, 0.72169, 0.20142, 0], rtol=2e-5)


KNOWN_ANSWERS = (
    ("1000 frames in 125 equal cells are worth 1, in 1000 .35355, in 10 equal ones .72169, with 876 in one of 125 .20142, in one 0", _objective_of_the_card),
)
