"""What the views share: which entries of a metrics row are measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Labels = Sequence[str]  # per member: "member=0 seed=0 exploration.scale=0.5"


IDENTITY = ("step", "member", "seed")


def measured(key: str) -> bool:
    """Whether an entry is a measurement: not what says whose row it is, and not a swept setting (part.option)."""
    return key not in IDENTITY and ("/" in key or "." not in key)


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The measured numbers of a row; null, where there was nothing to average, is left out."""
    return {key: value for key, value in row.items() if measured(key) and value is not None}
