"""What a run knows beside the states of its members."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Remember:
    """What the loop knows beside the members' states; part of every checkpoint."""

    iteration: int = 0
    seconds: float = 0.0  # spent stepping, over all starts of the run
    frozen: dict[str, int] = field(default_factory=dict)  # member -> environment steps at which a number became NaN
    evaluations: list[list[dict[str, Any]]] = field(default_factory=list)  # per evaluation, per member
    last_rows: list[dict[str, Any]] = field(default_factory=list)  # newest line of metrics per member
    grown: dict[str, int] = field(default_factory=dict)  # how often room for what was doubled (runners/base.py: Runner.grow)
    program: dict[str, Any] = field(default_factory=dict)  # what computed it: batching, devices, versions
