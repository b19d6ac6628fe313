"""Methods side by side over all worlds of a report (Agarwal et al., arXiv 2108.13264): aggregates, performance profiles, probabilities of improvement.

A method is a label that is there in every world. Its scores are the last values of one metric, f64[seeds, worlds]; what is no share is scaled for each
world, so that 0 is the worst and 1 the best of all seeds of all methods shown. Bootstraps are stratified by world, so each world's seeds are drawn apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from runners.report.curves import Group, final
from runners.report.figures import Style, legend, seeds
from runners.report.statistics import LEVEL, seeded
from runners.report.tables import Table

METRICS = ("evaluation/return", "evaluation/success", "episode/success", "episode/return")
REPETITIONS = 1000
PAIRED = 300  # of probabilities of improvement, which rliable computes one draw at a time
TAUS = np.linspace(0.0, 1.0, 101)
NAMES = ("interquartile mean", "median", "mean", "optimality gap")
READING = "bars and bands: 95 % stratified bootstrap intervals"


class Scores(NamedTuple):
    metric: str
    worlds: list[str]
    values: dict[str, np.ndarray]  # method -> f64[seeds, worlds]
    ends: list[tuple[float, float]]  # per world: what counts as 0 and as 1


def scores(by_world: Mapping[str, Sequence[Group]]) -> Scores | None:
    """Of the first metric that at least two methods have in all worlds, with at least two seeds each; None without one."""
    for metric in METRICS:
        found = {world: {g.label: known(final(g, metric)) for g in groups} for world, groups in by_world.items()}
        shared = [label for label in next(iter(found.values())) if all(len(some.get(label, ())) >= 2 for some in found.values())]
        if len(shared) < 2:
            continue
        ends = []
        for some in found.values():
            whole = np.concatenate([some[label] for label in shared])
            ends.append((0.0, 1.0) if metric.endswith("success") else (float(whole.min()), float(whole.max())))
        fewest = {label: min(len(some[label]) for some in found.values()) for label in shared}
        columns = {label: [scaled(some[label][: fewest[label]], *end) for some, end in zip(found.values(), ends, strict=True)] for label in shared}
        return Scores(metric, list(found), {label: np.stack(several, axis=1) for label, several in columns.items()}, ends)
    return None


def known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def aggregates(found: Scores) -> dict[str, np.ndarray]:
    """Method -> f64[4, 3]: interquartile mean, median, mean and optimality gap, each with the ends of its interval."""
    from rliable import library, metrics

    def every(x):
        return np.array([metrics.aggregate_iqm(x), metrics.aggregate_median(x), metrics.aggregate_mean(x), metrics.aggregate_optimality_gap(x)])

    with seeded():
        middle, interval = library.get_interval_estimates(found.values, every, reps=REPETITIONS, confidence_interval_size=LEVEL)
    return {label: np.stack([middle[label], *interval[label]], axis=1) for label in found.values}


def profiles(found: Scores) -> dict[str, np.ndarray]:
    """Method -> f64[3, 101]: the share of runs above each score, and its interval."""
    from rliable import library

    with seeded():
        middle, interval = library.create_performance_profile(found.values, TAUS, reps=REPETITIONS, confidence_interval_size=LEVEL)
    return {label: np.stack([middle[label], *interval[label]]) for label in found.values}


def reference(found: Scores) -> str:
    """The method that the others are compared with: the one without a bonus, or else the one with the lowest mean."""
    plain = [label for label in found.values if label.split(" ")[0].endswith("-none")]
    return plain[0] if plain else min(found.values, key=lambda label: float(found.values[label].mean()))


def improvements(found: Scores) -> dict[str, np.ndarray]:
    """Method -> f64[3]: the probability that one of its runs is better than one of the reference's, in a world at random, and its interval."""
    from rliable import library, metrics

    base = found.values[reference(found)]
    pairs = {label: (values, base) for label, values in found.values.items() if values is not base}
    with seeded():
        middle, interval = library.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=PAIRED, confidence_interval_size=LEVEL)
    return {label: np.array([float(middle[label]), *np.ravel(interval[label])]) for label in pairs}


def figure(found: Scores, looks: Mapping[str, Style]) -> Figure:
    """Three panels: aggregates, profiles, improvements."""
    made = Figure(figsize=(13.0, 1.6 + max(3.2, 0.42 * len(found.values))), layout="constrained")
    left, middle, right = made.subplots(1, 3, width_ratios=(1.25, 1.0, 0.85))
    labels = list(found.values)
    whole = aggregates(found)
    for i, name in enumerate(NAMES):
        for place, label in enumerate(labels):
            value, low, high = whole[label][i]
            at = place + 0.17 * (i - 1.5)
            left.plot([low, high], [at, at], color=looks[label].colour, linewidth=3, alpha=0.35)
            left.plot([value], [at], "os^D"[i], color=looks[label].colour, markersize=5, label=name if place == 0 else None)
    left.set_yticks(range(len(labels)), labels, fontsize=8)
    left.invert_yaxis()
    left.legend(fontsize=7, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(NAMES), columnspacing=1.0, handletextpad=0.3)
    left.set_title("aggregates", fontsize=10, loc="left")
    left.set_xlabel(f"{found.metric}{'' if found.metric.endswith('success') else ', scaled'}", fontsize=9)
    for label, (share, low, high) in profiles(found).items():
        middle.fill_between(TAUS, low, high, color=looks[label].colour, alpha=0.2, linewidth=0)
        middle.plot(TAUS, share, looks[label].dash, color=looks[label].colour, linewidth=1.8)
    middle.set_title("performance profiles", fontsize=10, loc="left")
    middle.set_xlabel("score", fontsize=9)
    middle.set_ylabel("share of runs above", fontsize=9)
    better = improvements(found)
    for place, (label, (value, low, high)) in enumerate(better.items()):
        right.plot([low, high], [place, place], color=looks[label].colour, linewidth=6, alpha=0.35)
        right.plot([value], [place], "o", color=looks[label].colour)
    right.axvline(0.5, color="#888888", linewidth=0.8)
    right.set_yticks(range(len(better)), list(better), fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_title(f"probability of improvement over {reference(found)}", fontsize=10, loc="left")
    for axis in (left, middle, right):
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    legend(made, [(f"{label} ({seeds(len(found.values[label]))})", looks[label]) for label in labels], READING)
    return made


def table(found: Scores) -> Table:
    """The numbers of the figure."""
    better, whole = improvements(found), aggregates(found)
    body = []
    for label, values in found.values.items():
        cells = [told(*row) for row in whole[label]]
        body.append([label, str(len(values)), str(len(found.worlds)), *cells, told(*better[label]) if label in better else "-"])
    return Table(["method", "seeds", "worlds", *NAMES, f"better than {reference(found)}"], body)


def told(value: float, low: float, high: float) -> str:
    value, low, high = (round(float(x), 3) + 0.0 for x in (value, low, high))  # no -0.000
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
