"""When a run may end before its last step: ``stop_when``, a metric and a bound that all members must reach."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from envs.builder import Refusal, closest

EVALUATED = ("evaluation/return", "evaluation/length", "evaluation/success")
FORM = re.compile(r"\s*([\w.]+(?:/[\w.]+)+)\s*(>=|<=)\s*([^\s<>=]+)\s*")


class Goal(NamedTuple):
    """A range for settings: a metric and what it must reach, as ``world/solved>=1``; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and parsed(value) is not None

    def describe(self) -> str:
        return "a metric and a bound, quoted, as stop_when=\"'evaluation/return>=90'\" or stop_when=\"'loss/value<=0.1'\""


def parsed(text: str) -> tuple[str, str, float] | None:
    """(metric, ">=" or "<=", bound); None where the text says none."""
    found = FORM.fullmatch(text)
    try:
        bound = float(found[3]) if found else math.nan
    except ValueError:
        return None
    return (found[1], found[2], bound) if found and not math.isnan(bound) else None


def reached(goal: str | None) -> Callable[[list[dict[str, Any]]], bool]:
    """(rows of metrics, one per member) -> whether all of them have reached ``goal``; never where there is no goal."""
    if goal is None:
        return lambda rows: False
    metric, relation, bound = parsed(goal)

    def all_have(rows: list[dict[str, Any]]) -> bool:
        values = [row.get(metric) for row in rows]
        return all(v is not None and (v >= bound if relation == ">=" else v <= bound) for v in values)

    return all_have


def refuse_unknown(goal: str, metrics: Iterable[str]) -> None:
    """Refuse a goal that names none of the metrics of the run."""
    metric, known = parsed(goal)[0], sorted(metrics)
    if metric not in known:
        raise Refusal(f"stop_when={goal!r}: this run has no metric {metric}{closest(metric, known)}")
