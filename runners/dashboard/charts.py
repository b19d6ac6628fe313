"""Interactive figures: lines are interquartile means over seeds with their 95 % bootstrap intervals, as in reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas  # noqa: F401  plotly would import it in the first thread that draws, and two threads would meet there
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from runners.dashboard.runs import value_of
from runners.report.curves import MOST_POINTS, Curve, Group, curve, final
from runners.report.read import Run
from runners.report.statistics import quick

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("solid", "dash", "dot", "dashdot")
REPETITIONS = 500  # of the bootstrap
HEIGHT = 320  # pixels of a panel


def pooled(curves: Sequence[Curve]) -> Curve:
    """Several curves as one: at every step each member has the newest value that it had."""
    axis = np.unique(np.concatenate([c.steps for c in curves]))
    if len(axis) > MOST_POINTS:
        axis = axis[np.unique(np.linspace(0, len(axis) - 1, MOST_POINTS).round().astype(int))]
    rows = []
    for made in curves:
        at = np.searchsorted(made.steps, axis, side="right") - 1
        there = (at >= 0) & (axis <= made.steps[-1])
        rows.append(np.where(there, made.values[:, np.maximum(at, 0)], np.nan))
    return Curve(axis, np.concatenate(rows))


def arranged(groups: Sequence[Group], by: str | None) -> dict[str, list[Group]]:
    """Label -> groups that share a line: each its own, or those that have the same value of a setting in the same world."""
    many = len({group.world for group in groups}) > 1
    made: dict[str, list[Group]] = {}
    for group in groups:
        label = group.label if by is None else f"{by.rpartition('.')[2]}={value_of(group, by)}"
        made.setdefault(f"{label} ({group.world})" if many else label, []).append(group)
    return made


def looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    return {label: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, label in enumerate(labels)}


def lines(arranged_groups: Mapping[str, Sequence[Group]], metrics: Sequence[str], thin: bool, log: bool) -> go.Figure:
    """A panel per metric, a line per label; ``thin`` adds a line per seed."""
    columns = min(2, max(1, len(metrics)))
    rows = max(1, math.ceil(len(metrics) / columns))
    figure = make_subplots(rows, columns, subplot_titles=list(metrics), vertical_spacing=min(0.2, 0.5 / rows), horizontal_spacing=0.08)
    style = looks(list(arranged_groups))
    for number, metric in enumerate(metrics):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for label, groups in arranged_groups.items():
            curves = [made for group in groups if (made := curve(group, metric)) is not None]
            if curves:
                for trace in traces(pooled(curves), label, *style[label], thin, first=number == 0):
                    figure.add_trace(trace, **place)
        figure.update_xaxes(title_text="environment steps per member", **place)
    if log:
        figure.update_yaxes(type="log")
    figure.update_layout(height=HEIGHT * rows + 90, template="plotly_white", legend={"orientation": "h", "y": -0.25 / rows}, uirevision="kept")
    figure.update_layout(margin={"l": 55, "r": 15, "t": 40, "b": 40})
    return figure


def traces(made: Curve, label: str, colour: str, dash: str, thin: bool, first: bool) -> list[Any]:
    """The band, the seeds, and the line of a label."""
    found = quick(made.values, REPETITIONS)
    name = f"{label}, {len(made.values)} seed{'' if len(made.values) == 1 else 's'}"
    shared = {"legendgroup": label, "mode": "lines"}
    drawn = []
    known = ~np.isnan(found.low)
    if known.any():
        x = np.concatenate([made.steps[known], made.steps[known][::-1]])
        y = np.concatenate([found.high[known], found.low[known][::-1]])
        band = {"fill": "toself", "fillcolor": colour, "opacity": 0.18, "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        drawn.append(go.Scatter(x=x, y=y, **shared, **band))
    if thin:
        line = {"color": colour, "width": 0.7}
        drawn += [go.Scatter(x=made.steps, y=row, opacity=0.5, line=line, hoverinfo="skip", showlegend=False, **shared) for row in made.values]
    line = {"color": colour, "width": 2, "dash": dash}
    drawn.append(go.Scatter(x=made.steps, y=found.middle, name=name, line=line, showlegend=first, **shared))
    return drawn


def ends(arranged_groups: Mapping[str, Sequence[Group]], metric: str) -> list[dict[str, Any]]:
    """The last values of a metric: a row per label, with its interval and its seeds."""
    rows = []
    for label, groups in arranged_groups.items():
        values = np.concatenate([final(group, metric) for group in groups])
        known = values[~np.isnan(values)]
        row = {"line": label, "seeds": int(values.size), "with a value": int(known.size)}
        if known.size:
            found = quick(known[:, None], 2000)
            row |= {"interquartile mean": float(found.middle[0]), "low": float(found.low[0]), "high": float(found.high[0])}
            row |= {"smallest": float(known.min()), "largest": float(known.max())}
        rows.append(row)
    return rows


def visits(run: Run, label: str) -> go.Figure | None:
    """Where the members of a run were, as a heat map over all of them; None in worlds that are no maps."""
    if run.visits is None:
        return None
    total = run.visits.astype(float).sum(axis=0)
    colours = np.where(total > 0, np.log10(np.maximum(total, 1)), np.nan)
    figure = go.Figure(go.Heatmap(z=colours, customdata=total, colorscale="Viridis", colorbar={"title": "log10 visits"}))
    figure.update_traces(hovertemplate="row %{y}, column %{x}: %{customdata:,} visits<extra></extra>")
    seen = int((total > 0).sum())
    figure.update_yaxes(autorange="reversed", scaleanchor="x")
    title = {"text": f"{label}<br>{seen} cells, {len(run.visits)} members", "font": {"size": 12}}
    figure.update_layout(title=title, width=430, height=430, template="plotly_white", plot_bgcolor="#d9d9d9", margin={"t": 60, "b": 30})
    return figure
