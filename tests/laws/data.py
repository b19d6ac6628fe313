"""Made-up data and comparisons of the laws that the project ships, for the laws of worlds, agents and runners that only tests hold."""

from exploration.laws.data import Traced, assert_close, assert_equal, assert_finite, draw, kinds, member, quick, stacked, transitions

__all__ = ["Traced", "assert_close", "assert_equal", "assert_finite", "draw", "kinds", "member", "quick", "stacked", "transitions"]
