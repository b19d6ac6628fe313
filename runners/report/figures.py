"""Figures of curves: small panels on a shared axis of environment steps, one colour per group, the same in every figure.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; where there are more groups than colours, the
line changes its dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from runners.report.curves import Curve, Group, curve
from runners.report.statistics import REPETITIONS, estimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
STEPS = "environment steps per member"
AXES = {
    "episode/return": "return per episode",
    "episode/success": "success rate",
    "episode/best_return": "best return so far",
    "episode/length": "episode length (steps)",
    "evaluation/return": "return per episode",
    "evaluation/success": "success rate",
    "archive/score": "best score",
    "archive/cells": "cells",
    "archive/rooms": "rooms",
    "bonus/raw": "raw bonus per step",
    "bonus/normalised": "bonus per step, normalised",
    "bonus/weighted": "bonus per step, weighted",
    "bonus/share": "share of the bonus in the reward",
}
LINES = "line: interquartile mean over seeds; band: 95 % bootstrap interval"
DOTS = "dot: interquartile mean over seeds, with its 95 % bootstrap interval; small dots: single seeds"
PANEL = {1: (6.2, 3.4), 2: (4.6, 3.1), 3: (3.7, 2.7)}  # inches, by panels in a row
LOGARITHMIC = ("bonus/raw", "bonus/normalised", "bonus/weighted", "loss/")  # when positive, and over a wider range than this:
WIDEST_RATIO = 50.0


class Style(NamedTuple):
    colour: str
    dash: str


def styles(groups: Sequence[Group]) -> dict[str, Style]:
    """Label -> how its lines look. The same method looks the same in every world."""
    names = dict.fromkeys(group.label for group in groups)
    return {name: Style(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, name in enumerate(names)}


def curves(groups: Sequence[Group], metrics: Sequence[str], looks: Mapping[str, Style], thin: bool = False, repetitions: int = REPETITIONS) -> Figure | None:
    """A panel per metric with a line per group; None when no group has any of the metrics. ``thin`` adds a line per member."""
    found = {metric: [(group, made) for group in groups if (made := curve(group, metric)) is not None] for metric in metrics}
    found = {metric: drawn for metric, drawn in found.items() if drawn}
    if not found:
        return None
    figure, axes = panels(len(found))
    for axis, (metric, drawn) in zip(axes, found.items(), strict=True):
        single = all(len(made.steps) == 1 for _, made in drawn)
        for place, (group, made) in enumerate(drawn):
            if single:
                draw_point(axis, place, made, looks[group.label], repetitions)
            else:
                draw(axis, made, looks[group.label], thin, repetitions)
        finish(axis, metric, AXES.get(metric, metric), [made.values for _, made in drawn] if metric.startswith(LOGARITHMIC) else ())
        if single:
            axis.set_xticks([])
            axis.set_xlim(-1, len(drawn))
            axis.set_xlabel(f"after {' or '.join(sorted({f'{made.steps[0]:,}' for _, made in drawn}))} {STEPS}", fontsize=9)
    shown = [group for group in groups if any(group is g for drawn in found.values() for g, _ in drawn)]
    if all(len(group.members) == 1 for group in shown):
        reading = "the only seed of each"
    else:
        once = all(len(made.steps) == 1 for drawn in found.values() for _, made in drawn)
        reading = DOTS if once else LINES + ("; thin lines: single seeds" if thin else "")
    legend(figure, [(f"{g.label} ({seeds(len(g.members))})", looks[g.label]) for g in shown], reading)
    return figure


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes, at most three in a row."""
    columns = min(count, 2 if count in (2, 4) else 3)
    rows = -(-count // columns)
    width, height = PANEL[columns]
    figure = Figure(figsize=(width * columns, height * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in grid[count:]:
        axis.remove()
    return figure, list(grid[:count])


def draw(axis: Axes, made: Curve, look: Style, thin: bool, repetitions: int) -> None:
    """One group: a band, its middle, and when ``thin`` a line per member. A curve of few points gets marks."""
    marks = {"marker": "o", "markersize": 4} if len(made.steps) <= 12 else {}
    if thin and len(made.values) > 1:
        for values in made.values:
            axis.plot(made.steps, values, look.dash, color=look.colour, alpha=0.3, linewidth=0.7)
    middle, low, high, _ = estimate(made.values, repetitions)
    axis.fill_between(made.steps, low, high, color=look.colour, alpha=0.2, linewidth=0)
    axis.plot(made.steps, middle, look.dash, color=look.colour, linewidth=1.8, **marks)


def draw_point(axis: Axes, place: int, made: Curve, look: Style, repetitions: int) -> None:
    """One group that was measured once: its members as dots, and beside them its middle with the interval."""
    middle, low, high, _ = estimate(made.values, repetitions)
    axis.plot(np.full(len(made.values), place - 0.12), made.values[:, 0], "o", color=look.colour, alpha=0.35, markersize=4)
    if np.isnan(low[0]):
        axis.plot([place], middle, "o", color=look.colour, markersize=6)
    else:
        axis.errorbar([place], middle, [middle - low, high - middle], fmt="o", color=look.colour, capsize=4, markersize=6)


def finish(axis: Axes, title: str, ylabel: str, values: Sequence[np.ndarray] = ()) -> None:
    """Titles, units, and a logarithmic axis when all ``values`` are positive and span a wide range."""
    known = np.concatenate([v[~np.isnan(v)].ravel() for v in values]) if values else np.zeros(0)
    if known.size and known.min() > 0 and known.max() / known.min() > WIDEST_RATIO:
        axis.set_yscale("log")
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(STEPS, fontsize=9)
    axis.set_xlim(left=0)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, entries: Sequence[tuple[str, Style]], reading: str) -> None:
    """Below the panels: what the lines are, and how to read them."""
    handles = [Line2D([], [], color=look.colour, linestyle=look.dash, linewidth=2, label=text) for text, look in entries]
    longest = max(len(text) for text, _ in entries)
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 11 / (longest + 8))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False, title=reading, title_fontsize=8)


def seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def speed(groups: Sequence[Group], looks: Mapping[str, Style]) -> Figure | None:
    """Per run, all members together: time spent stepping, and steps per second in each segment. None without times."""
    runs: dict[int, Group] = {}
    for group in groups:
        runs.setdefault(id(group.run), group)
    timed = [(group, made) for group in runs.values() if (made := curve(group._replace(members=group.members[:1]), "time/seconds"))]
    if not timed:
        return None
    figure, (left, right) = panels(2)
    longest = max(np.nanmax(made.values) for _, made in timed)
    unit, size = ("hours", 3600) if longest > 7200 else ("minutes", 60) if longest > 120 else ("seconds", 1)
    entries = []
    for group, made in timed:
        look, count = looks[group.label], len(group.run.members)
        left.plot(made.steps, made.values[0] / size, look.dash, color=look.colour, linewidth=1.8)
        passed, steps = (np.diff(x, prepend=0) for x in (made.values[0], made.steps))
        rate = np.divide(steps * count, passed, out=np.full(len(steps), np.nan), where=passed > 0)
        right.plot(made.steps, rate, look.dash, color=look.colour, linewidth=1.2)
        entries.append((f"{group.run.name} ({count} member{'' if count == 1 else 's'})", look))
    finish(left, "time spent stepping", unit)
    finish(right, "speed, all members together", "environment steps per second")
    right.yaxis.set_major_formatter(EngFormatter(sep=""))
    right.set_ylim(bottom=0)
    legend(figure, entries, "one line per run; compiling, evaluating and saving are left out")
    return figure
