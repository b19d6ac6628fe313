"""Running scores of worlds that need the episodes in time order; so far bsuite's rule for DeepSea.

bsuite (arXiv 1908.03568, v0.3.6: ``experiments/deep_sea*/analysis.py``, ``utils/wrappers.py``) logs after episode 1, 2, 3, ...,
10, 12, 14, 17, 20, 25, 30, 40, ... and calls a run solved at the first logged episode where fewer than 90 % of all episodes so
far were bad; in the stochastic world fewer than 80 %, and not before episode 100. A size counts in the score when it was
solved before episode 2^N + 100, that is, sooner than by dithering.

Departure: bsuite steps one world, and here N lanes step side by side. Episodes are counted as they end, step by step, and
within a step by lane, so the count is exact; what an agent learns between two episodes depends on the lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Tally, Transition

_RATIOS = (10, 12, 14, 17, 20, 25, 30, 40, 50, 60, 70, 80, 90)
LOGGED_EPISODES = np.array(list(range(1, 10)) + [r * 10**e for e in range(8) for r in _RATIOS if r * 10**e <= 10**8], np.int32)


class DeepSeaTally(NamedTuple):
    episodes: jax.Array  # i32[]; ended so far
    bad: jax.Array  # i32[]; of them bad
    solved_episode: jax.Array  # i32[]; -1: not solved yet


def bsuite_deep_sea_tally(stochastic: bool = False) -> Tally:
    """Tally of DeepSea; reports ``solved`` (0 or 1), ``solved_episode`` (-1: not yet), ``bad_fraction`` and ``episodes``.

    Needs info["bad_episode"]: has this episode been bad so far.
    """
    tenths, first_episode = (8, 100) if stochastic else (9, 1)
    never = np.iinfo(np.int32).max

    def init():
        return DeepSeaTally(jnp.int32(0), jnp.int32(0), jnp.int32(-1))

    def update(state: DeepSeaTally, transitions: Transition) -> DeepSeaTally:
        done = transitions.done.reshape(-1)  # [T, N] -> [T * N], step by step and within a step by lane
        episodes = state.episodes + jnp.cumsum(done, dtype=jnp.int32)
        bad = state.bad + jnp.cumsum(done & transitions.info["bad_episode"].reshape(-1), dtype=jnp.int32)

        logged = jnp.asarray(LOGGED_EPISODES)
        ended_at = jnp.minimum(jnp.searchsorted(episodes, logged), done.size - 1)  # where the logged episodes ended
        here = (logged > state.episodes) & (logged <= episodes[-1]) & (logged >= first_episode)
        good_enough = here & (10 * bad[ended_at] < tenths * logged)  # whole numbers: exact up to 10^8 episodes
        first = jnp.min(jnp.where(good_enough, logged, never))
        solved_now = (state.solved_episode < 0) & (first < never)
        return DeepSeaTally(episodes[-1], bad[-1], jnp.where(solved_now, first, state.solved_episode))

    def report(state: DeepSeaTally) -> dict[str, jax.Array]:
        return {
            "solved": (state.solved_episode >= 0).astype(jnp.float32),
            "solved_episode": state.solved_episode,
            "bad_fraction": state.bad.astype(jnp.float32) / jnp.maximum(state.episodes, 1).astype(jnp.float32),
            "episodes": state.episodes,
        }

    return Tally(init, update, report)


def bsuite_deep_sea_score(solved_episodes: Mapping[int, int | None], num_episodes: int = 10_000) -> float:
    """bsuite's score: the share of sizes N solved before episode 2^N + 100, in the first ``num_episodes`` (bsuite's length).

    ``solved_episodes``: size -> episode at which it was solved; None or a negative number means not solved. bsuite's own sizes
    are 10, 12, ..., 50, with ``mapping_seed`` 42.
    """
    if not solved_episodes:
        raise ValueError("bsuite_deep_sea_score needs at least one size, as {10: 40, 12: None}")
    limits = {size: min(num_episodes, 2**size + 100 - 1) for size in solved_episodes}
    return float(np.mean([episode is not None and 0 < episode <= limits[size] for size, episode in solved_episodes.items()]))
