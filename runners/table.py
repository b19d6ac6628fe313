"""Results as people read them: the line of the progress bar, the closing table, and the numbers of ``summary.json``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = (
    # heading, metric, format
    ("solved", "world/solved", "yes/no"),
    ("first success at step", "episode/first_success_step", "{:,.0f}"),
    ("return", "episode/return", "{:.3f}"),
    ("success", "episode/success", "{:.0%}"),
    ("best return", "episode/best_return", "{:.3f}"),
    ("cells", "archive/cells", "{:,.0f}"),
    ("rooms", "archive/rooms", "{:,.0f}"),
    ("best score", "archive/score", "{:,.3f}"),
    ("eval return", "evaluation/return", "{:.3f}"),
    ("eval success", "evaluation/success", "{:.0%}"),
)


def headline(rows: Sequence[dict[str, Any]]) -> str:
    """'return 0.35 | 3/8 succeeded' from the newest line of each member; of archives also their best scores and cells."""
    returns = [row["episode/return"] for row in rows if row.get("episode/return") is not None]
    parts = [f"return {statistics.fmean(returns):.3f}"] if returns else []
    scores = [row["archive/score"] for row in rows if row.get("archive/score") is not None]  # none before an episode ended, with exploration.best=end
    cells = [row["archive/cells"] for row in rows if row.get("archive/cells") is not None]
    if cells:
        parts.append(f"{f'best score {statistics.fmean(scores):,.2f}, ' if scores else ''}{statistics.fmean(cells):,.0f} cells")
    if rows and "episode/first_success_step" in rows[0]:
        parts.append(f"{sum(row['episode/first_success_step'] is not None for row in rows)}/{len(rows)} succeeded")
    return " | ".join(parts)


def results(path: Path, name: str, members: Sequence[Any], remember: Any, steps: int) -> dict[str, Any]:
    """The summary of a finished run: per member its last metrics and evaluation, over members the main results."""
    rows = {row["member"]: row for row in remember.last_rows}
    evaluation = remember.evaluations[-1] if remember.evaluations else [{}] * len(members)
    found = []
    for i, member in enumerate(members):
        entry = {"seed": member.seed, "hyper": member.hyper, "frozen_at_step": remember.frozen.get(str(i))}
        found.append(entry | {"metrics": rows.get(i, {}) | {k: v for k, v in evaluation[i].items() if k != "step"}})
    main = {}
    for _, metric, _ in COLUMNS:
        values = [e["metrics"].get(metric) for e in found if metric in e["metrics"]]
        known = [v for v in values if v is not None]
        if metric in ("world/solved", "episode/first_success_step") and values:
            main[f"{metric}/members"] = sum(1 for v in known if v)
        if known and metric != "world/solved":
            main[f"{metric}/median"] = statistics.median(known)
    main["frozen"] = len(remember.frozen)
    return {
        "run_dir": str(path),
        "name": name,
        "steps": steps,
        "seconds": round(remember.seconds, 3),
        "steps_per_second": round(steps * len(members) / max(remember.seconds, 1e-9), 1),
        "results": main,
        "members": found,
    }


def show(title: str, summary: dict[str, Any]) -> None:
    """The closing table, on standard output: one line per member."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    columns = [c for c in COLUMNS if any(c[1] in member["metrics"] for member in summary["members"])]
    table = Table(title=f"{title}\n{summary['name']}: {summary['steps']:,} steps per member, {summary['steps_per_second']:,.0f} steps/s".strip())
    table.add_column("member", overflow="fold")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for member in summary["members"]:
        label = " ".join([f"seed {member['seed']}", *(f"{k}={v:g}" for k, v in member["hyper"].items())])
        if member["frozen_at_step"] is not None:
            label += f" (frozen at {member['frozen_at_step']:,})"
        table.add_row(label, *(cell(member["metrics"].get(metric), form) for _, metric, form in columns))
    console.print(table)


def cell(value: Any, form: str) -> str:
    if form == "yes/no":
        return "yes" if value else "no"
    return "-" if value is None else form.format(value)
