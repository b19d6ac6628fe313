"""Interquartile means and their stratified-bootstrap intervals, by rliable (Agarwal et al. 2021, arXiv 2108.13264).

The strata of that bootstrap are tasks. A curve here belongs to one run in one world, so there is one stratum, and what is drawn
again is its seeds. With fewer than four values nothing is trimmed: the interquartile mean is then the mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

REPETITIONS = 2000
LEVEL = 0.95


class Estimate(NamedTuple):
    """Over the members, at each point: f64[P] each. ``low`` and ``high`` are NaN where there is only one member."""

    middle: np.ndarray  # interquartile mean
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray  # i64[P], how many members have a value


def iqm(scores: np.ndarray) -> np.ndarray:
    """f[N, T, P] -> f[P]: the mean of the middle half. Equal to ``rliable.metrics.aggregate_iqm`` of every point, which would take
    minutes in a bootstrap: it looks at one point at a time."""
    ordered = np.sort(scores.reshape(-1, scores.shape[-1]), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(axis=0)


def estimate(values: np.ndarray, repetitions: int = REPETITIONS) -> Estimate:
    """``values`` f[N, P], NaN where a member has no value: it then does not count at that point."""
    from rliable.library import get_interval_estimates

    points = values.shape[1]
    middle, low, high = (np.full(points, np.nan) for _ in range(3))
    present = ~np.isnan(values)
    for mask in np.unique(present, axis=1).T:
        columns = (present == mask[:, None]).all(axis=0)
        scores = values[mask][:, None, columns]
        if len(scores) == 1:
            middle[columns] = scores[0, 0]
        elif len(scores) > 1:
            with seeded():
                found, interval = get_interval_estimates({"": scores}, iqm, reps=repetitions, confidence_interval_size=LEVEL)
            middle[columns], (low[columns], high[columns]) = found[""], interval[""]
    return Estimate(middle, low, high, present.sum(axis=0))


def quick(values: np.ndarray, repetitions: int) -> Estimate:
    """As ``estimate``, by a percentile bootstrap over seeds that takes milliseconds: for pages that move. f[N, P]."""
    points = values.shape[1]
    middle, low, high = (np.full(points, np.nan) for _ in range(3))
    present = ~np.isnan(values)
    for mask in np.unique(present, axis=1).T:
        columns = (present == mask[:, None]).all(axis=0)
        scores = values[mask][:, columns]
        number = len(scores)
        if not number:
            continue
        middle[columns] = iqm(scores[:, None])
        if number > 1:
            drawn = np.sort(scores[np.random.default_rng(0).integers(number, size=(repetitions, number))], axis=1)
            cut = number // 4
            low[columns], high[columns] = np.quantile(drawn[:, cut : number - cut].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Estimate(middle, low, high, present.sum(axis=0))


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """The same report from the same runs: rliable draws from numpy's global generator, whatever random state it is given."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
