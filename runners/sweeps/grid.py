"""What a sweep runs: every combination of the values of its axes, or points drawn from them.

An axis is a word with several values, in Hydra's notation: ``a,b``, ``choice(a,b)``, ``range(1,4)``, ``glob(*)``, and for searches ``interval(a,b)`` and
``tag(log,interval(a,b))``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.builder import Refusal
from runners.compose import Setting, groups, unreadable

MOST = 100_000  # combinations of a grid


class Axis(NamedTuple):
    """A word with several values: texts as on the command line, or, for an interval, its ends."""

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def interval(self) -> bool:
        return not self.values


def read(words: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """(words with one value, axes), in their order. Raises Refusal."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep
    from hydra.errors import HydraException

    single, axes = [], []
    for word in words:
        setting = Setting(word)
        setting.check_form()
        if setting.key == "run_dir" and not setting.deletes:
            raise Refusal(f"{setting.shown}: every run of a sweep has a directory of its own; leave it out")
        try:
            parsed = OverridesParser.create().parse_override(word)
            if not parsed.is_sweep_override():
                single.append(word)
                continue
            inner = parsed.value()
            if isinstance(inner, IntervalSweep):
                axes.append(interval(setting, inner))
                continue
            values = tuple(globbed(setting, inner)) if isinstance(inner, Glob) else tuple(parsed.sweep_string_iterator())
        except (HydraException, ValueError, RecursionError) as error:
            raise Refusal(f"{setting.shown!r} cannot be read: {unreadable(setting.raw, error)}") from None
        if not values:
            raise Refusal(f"{setting.shown} has no values; give some, as {setting.key}=1,2")
        if len(set(values)) != len(values):
            raise Refusal(f"{setting.shown} names a value twice: the same run would be counted as two")
        axes.append(Axis(word.partition("=")[0], values))
    keys = [axis.key for axis in axes]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise Refusal(f"{twice} is given several values twice; give them in one word")
    return single, axes


def interval(setting: Setting, given: Any) -> Axis:
    low, high, log = float(given.start), float(given.end), "log" in given.tags
    if not low < high or log and low <= 0 or not math.isfinite(high - low):
        raise Refusal(f"{setting.shown}: an interval goes from a lower end to a higher one{', and above 0 on a log scale' if log else ''}")
    return Axis(setting.key, low=low, high=high, log=log)


def globbed(setting: Setting, pattern: Any) -> list[str]:
    if setting.key not in groups():
        raise Refusal(f"{setting.shown}: only options can be chosen by a pattern, as exploration=glob(r*)")
    return pattern.filter(groups()[setting.key])


def combinations(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every combination of a grid, the last axis varying fastest. Raises Refusal."""
    endless = next((axis for axis in axes if axis.interval), None)
    if endless:
        raise Refusal(f"{endless.key} is an interval, which a grid does not have; search it with sweep.search=random sweep.trials=20")
    number = math.prod(len(axis.values) for axis in axes)
    if number > MOST:
        raise Refusal(f"the grid has {number:,} combinations; at most {MOST:,} are run: give fewer values, or sweep.search=random")
    return [dict(zip((axis.key for axis in axes), values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def drawn(axes: Sequence[Axis], number: int, seed: int) -> list[dict[str, str]]:
    """``number`` different points at random, or every combination where there are no more than that."""
    if not any(axis.interval for axis in axes) and math.prod(len(axis.values) for axis in axes) <= number:
        return combinations(axes)
    rng, found = np.random.default_rng(seed), {}
    while len(found) < number:
        point = {axis.key: one(axis, rng) for axis in axes}
        found[tuple(point.values())] = point
    return list(found.values())


def one(axis: Axis, rng: np.random.Generator) -> str:
    if not axis.interval:
        return axis.values[int(rng.integers(len(axis.values)))]
    if axis.log:
        return rounded(math.exp(rng.uniform(math.log(axis.low), math.log(axis.high))))
    return rounded(rng.uniform(axis.low, axis.high))


def rounded(value: float) -> str:
    """As it is written on a command line: five digits tell settings apart, and are read by people."""
    return f"{value:.5g}"
