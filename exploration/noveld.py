"""NovelD (Zhang et al. 2021; before that BeBold, arXiv 2012.08621): the gain in novelty of a step, paid on the first visit in the episode.

    b = max(e(s') - alpha e(s), 0) 1[N_ep(s') = 1],      e(s) = ||predictor(s) - target(s)||_2

e is the root of RND's squared error, summed over features (``exploration/rnd.py``): networks, statistics and learning are RND's. It is high beyond
the border of what is known and low within, so what pays is crossing that border; N_ep (``exploration/episodic_counts.py``) keeps an
agent from crossing it to and fro.

Departures. Observations are normalised as RND does it, after ``warmup`` random steps per lane. Dense layers but for pixels. The key of the
counts is a setting; on MiniGrid ``key=state`` counts the full grid, which is privileged. The observation that an episode starts
from is not counted: coming back to it is its first visit. Rewards are normalised by the stream unless told otherwise; the authors
scale them by 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Spec
from envs.builder import FRACTION, POSITIVE, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.episodic_counts import KEY, EpisodicCounts, clear, episodic_table, fingerprint_function, table_metrics, visit, worth
from exploration.laws.play import arrivals, expect, line, play
from exploration.rnd import RNDState, rnd


class NovelDState(NamedTuple):
    counts: EpisodicCounts
    rnd: RNDState


def gain(before: jax.Array, after: jax.Array, first_visit: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """Novelties e(s), e(s') and 1[N_ep(s') = 1], f32[...] each -> f32[...]."""
    return jnp.maximum(after - alpha * before, 0.0) * first_visit


@options(
    alpha=FRACTION,
    key=KEY,
    capacity=Integer(1),
    hidden=Sizes(),
    embedding=Integer(1),
    learning_rate=POSITIVE,
    update_proportion=FRACTION,
    minibatches=Integer(1),
    epochs=Integer(1),
    obs_clip=POSITIVE,
    warmup=Integer(0),
)
def noveld(
    spec: Spec,
    *,
    alpha: float = 0.5,
    key: str = "auto",
    capacity: int = 1024,
    hidden: Sequence[int] = (128, 128),
    embedding: int = 128,
    learning_rate: float = 1e-4,
    update_proportion: float = 1.0,
    minibatches: int = 4,
    epochs: int = 1,
    obs_clip: float = 5.0,
    warmup: int = 512,
) -> Bonus:
    """Gain in novelty, on first visits.

    Args:
      alpha: share of the novelty of s that is taken off.
      key: what a state is to the counts, as for ``counts``.
      capacity: places of each lane's table, a power of two; an episode should visit fewer than 70 % as many states.
      hidden, embedding, learning_rate, update_proportion, minibatches, epochs, obs_clip, warmup: of ``rnd``.
    """
    distillation = rnd(
        spec,
        hidden=hidden,
        embedding=embedding,
        learning_rate=learning_rate,
        update_proportion=update_proportion,
        minibatches=minibatches,
        epochs=epochs,
        obs_clip=obs_clip,
        warmup=warmup,
    )
    fingerprint, needs = fingerprint_function(spec, key, "noveld")

    def init(key):
        return NovelDState(episodic_table(spec.lanes, capacity), distillation.init(key))

    def observe(state, key, transition):
        table, visits = visit(state.counts, fingerprint(transition))
        learnt, _ = distillation.observe(state.rnd, key, transition)
        return NovelDState(table, learnt), {"first_visit": worth("first_visit", visits)}

    def novelty(state, transition, obs):
        return jnp.sqrt(embedding * distillation.score(state.rnd, transition._replace(next_obs=obs)))

    def score(state, transition):
        before, after = (novelty(state, transition, obs) for obs in (transition.obs, transition.next_obs))
        return jax.lax.stop_gradient(gain(before, after, transition.annotations["first_visit"], alpha))

    def update(state, key, inputs):
        learnt, metrics = distillation.update(state.rnd, key, inputs)
        first_visits = jnp.mean(inputs[0].annotations["first_visit"])
        return state._replace(rnd=learnt), {**metrics, "first_visits": first_visits, **table_metrics(state.counts)}

    return bonus(
        init=init,
        observe=observe,
        score=score,
        update=update,
        reset=lambda state, mask: state._replace(counts=clear(state.counts, mask, spec.axis)),
        info=BonusInfo(
            needs=("obs", "next_obs"),
            learns_from=tuple(need for need in needs if need != "next_obs"),
            stores=("first_visit",),
            episodic=True,
            scored="batch",
            warmup=warmup,
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------


def _gains() -> str:
    before, after, visits = jnp.ones(4), jnp.asarray([1.0, 0.4, 3.0, 3.0]), jnp.asarray([1, 1, 1, 2])
    return expect(gain(before, after, worth("first_visit", visits), 0.5), [0.5, 0.0, 2.5, 0.0], rtol=1e-6)


def _first_visits_only() -> str:
    made = noveld(line(), hidden=(), embedding=4, capacity=8, warmup=0)
    steps = arrivals([[3], [3], [2], [3]])  # obs and next_obs are the same here, so e(s') - e(s)/2 is e/2
    state, paid = play(made, steps)
    _, again = play(made, steps, made.reset(state, jnp.asarray([True])))
    if not ((paid[[0, 2]] > 0).all() and (again[[0, 2]] > 0).all()):
        raise AssertionError(f"first visits pay {paid[[0, 2]].ravel().tolist()}, in the next episode {again[[0, 2]].ravel().tolist()}")
    expect(again[[1, 3]], np.zeros((2, 1)))
    return expect(paid[[1, 3], 0], [0.0, 0.0])


KNOWN_ANSWERS = (
    ("(e(s), e(s'), N_ep) of (1, 1, 1), (1, .4, 1), (1, 3, 1), (1, 3, 2) with alpha .5: .5, 0, 2.5, 0", _gains),
    ("states 3, 3, 2, 3: the second and the last step pay nothing, in every episode anew", _first_visits_only),
)
