"""Ranges of settings that only runs have."""

from __future__ import annotations

from typing import Any, NamedTuple

from envs.builder import Integer

MOST_MEMBERS, MOST_STEPS = 2**16, 10**15


class CountOrSteps(NamedTuple):
    """How many, or a list of environment steps; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        listed = isinstance(value, (list, tuple)) and all(Integer(1, MOST_STEPS).accepts(v) for v in value)
        return listed or Integer(0, 100_000).accepts(value)

    def describe(self) -> str:
        return "a whole number in [0, 100000], or a list of environment steps, as [10000,50000]"


class Seeds(NamedTuple):
    """How many, or a list of seeds; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        listed = isinstance(value, (list, tuple)) and 0 < len(value) <= MOST_MEMBERS
        return bool(listed and all(Integer(0, 2**32 - 1).accepts(v) for v in value)) or Integer(1, MOST_MEMBERS).accepts(value)

    def describe(self) -> str:
        return f"a count in [1, {MOST_MEMBERS}], or a list of whole numbers from 0 to 2^32 - 1, as [0,1,2]"


class Runs(NamedTuple):
    """A run's directory, or a list of them; static."""

    what: str = "a run, as runs/mine, or a list of runs"

    traceable = False

    def accepts(self, value: Any) -> bool:
        listed = value if isinstance(value, (list, tuple)) and value else [value]
        return all(isinstance(run, str) and run.strip() for run in listed)

    def describe(self) -> str:
        return self.what


class Words(NamedTuple):
    """Words of a command line; static."""

    traceable = False

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(word, str) and word.strip() for word in value)

    def describe(self) -> str:
        return "a list of words of a command line, as \"after=['experiment=go_explore/doorkey_explore']\""
