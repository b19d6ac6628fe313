"""From runs to numbers with intervals, and from numbers to verdicts.

Numbers are interquartile means over seeds with 95 % bootstrap intervals (Agarwal et al., arXiv 2108.13264); with fewer than four seeds nothing is
trimmed. A number of the paper agrees where our interval holds it, or meets the interval that its own spread over seeds gives. A claimed order holds
where the bootstrap interval of the difference is above zero, fails where it is below, and is open else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runners import rundir
from runners.report import statistics

REPETITIONS, LEVEL = 10_000, 0.95


class Estimate(NamedTuple):
    """Of values over seeds; low and high are NaN with fewer than two."""

    middle: float
    low: float
    high: float
    count: int


def values(run: Path, measure: Mapping[str, Any]) -> dict[int, float]:
    """The measure of every seed of a run that has got so far. A seed without a value counts as 0 of a share, and, where less is better, with all the steps
    that it made without getting there; else it is left out."""
    rows = rundir.read_metrics(run)
    found: dict[int, float] = {}
    for seed in sorted({row["seed"] for row in rows}):
        told = [row for row in rows if row["seed"] == seed and measure["metric"] in row]
        if measure["at"] == "end":
            if not (run / "summary.json").exists():
                continue
            past = told
        else:
            past = [row for row in told if row["step"] <= measure["at"]]
            if not past or max(row["step"] for row in rows if row["seed"] == seed) < measure["at"]:
                continue
        known = [row[measure["metric"]] for row in past if row[measure["metric"]] is not None]
        if measure["as"] == "share":
            found[seed] = float(bool(known) and past[-1][measure["metric"]] is not None)
        elif known:
            found[seed] = float(np.mean(known[-measure["last"] :]))
        elif not measure["higher"] and past:
            found[seed] = float(past[-1]["step"])
    return found


def estimate(seeds: Sequence[float], share: bool = False) -> Estimate:
    """Interquartile mean (of shares: the mean) and its interval."""
    if not len(seeds):
        return Estimate(math.nan, math.nan, math.nan, 0)
    middle = np.mean if share else iqm
    sample = np.asarray(seeds, float)
    if len(sample) < 2:
        return Estimate(float(middle(sample[None])[0] if not share else sample[0]), math.nan, math.nan, len(sample))
    draws = resampled(sample, 0)
    found = draws.mean(axis=1) if share else iqm(draws)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(sample.mean() if share else iqm(sample[None])[0]), float(low), float(high), len(sample))


def difference(a: Sequence[float], b: Sequence[float], share: bool = False) -> Estimate:
    """Of a's number less b's, both drawn again on their own."""
    if not len(a) or not len(b):
        return Estimate(math.nan, math.nan, math.nan, 0)
    of = (lambda x: x.mean(axis=1)) if share else iqm
    a, b = np.asarray(a, float), np.asarray(b, float)
    middle = float(of(a[None])[0] - of(b[None])[0])
    if min(len(a), len(b)) < 2:
        return Estimate(middle, math.nan, math.nan, min(len(a), len(b)))
    low, high = np.quantile(of(resampled(a, 0)) - of(resampled(b, 1)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(middle, float(low), float(high), min(len(a), len(b)))


def iqm(scores: np.ndarray) -> np.ndarray:
    """f[R, N] -> f[R]: means of the middle halves."""
    return statistics.iqm(scores.T[:, None])


def resampled(sample: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(sample, (REPETITIONS, len(sample)))


def agrees(ours: Estimate, reference: Mapping[str, Any]) -> str:
    """The verdict on a number of the paper: "agrees", "lower", "higher", or "open" where there is no interval."""
    if math.isnan(ours.low):
        return "open: one seed" if ours.count else "not measured"
    half = 1.96 * reference["spread"] / math.sqrt(reference["seeds"]) if reference.get("spread") and reference.get("seeds") else 0.0
    low, high = reference["value"] - half, reference["value"] + half
    if ours.high < low:
        return "lower"
    return "higher" if ours.low > high else "agrees"


def holds(found: Estimate, higher: bool) -> str:
    """The verdict on a claimed order, from the difference of the better arm less the other."""
    if math.isnan(found.middle):
        return "not measured"
    if math.isnan(found.low):
        return "open: one seed"
    low, high = (found.low, found.high) if higher else (-found.high, -found.low)
    return "holds" if low > 0 else "fails" if high < 0 else "open"
