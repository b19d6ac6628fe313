"""RIDE (Raileanu and Rocktaeschel 2020, arXiv 2002.12292): how much a step changes the features, over the root of the visits in this episode.

    b = ||phi(s') - phi(s)||_2 / sqrt(N_ep(s')),      loss = inverse_coef L_inverse + forward_coef L_forward

phi is trained by an inverse and a forward model, so that it holds what actions change and what can be foretold; random noise that the agent
has no hand in should leave it where it is. N_ep counts this lane's arrivals in s' since its episode began, this one included
(``exploration/episodic_counts.py``): going to and fro between two states wears off within the episode.

Departures. The key of the counts is a setting; the authors' code counts the full grid, which is privileged: ``key=state`` on MiniGrid.
The observation that an episode starts from is not counted. Dense layers but for pixels, where the authors have three convolutions on
MiniGrid's codes; Adam for RMSProp. Rewards are normalised by the stream unless told otherwise; the authors scale them by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import PyTree, Spec
from envs.builder import NON_NEGATIVE, POSITIVE, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.dynamics import dynamics
from exploration.encoders import KINDS
from exploration.episodic_counts import KEY, EpisodicCounts, clear, episodic_table, fingerprint_function, table_metrics, visit, worth
from exploration.laws.data import require
from exploration.laws.play import arrivals, expect, line, play
from exploration.learning import ADAM, fit, flatten_lead
from exploration.normalizers import lead_ndim


class RIDEState(NamedTuple):
    counts: EpisodicCounts
    params: PyTree  # {"features": ..., "forward": ...}
    optimizer: PyTree  # Adam moments of params; () with encoder="random"


def impact(before: jax.Array, after: jax.Array) -> jax.Array:
    """Features f32[..., k] of s and s' -> their Euclidean distance f32[...]."""
    return jnp.sqrt(jnp.sum(jnp.square(after - before), axis=-1))


@options(
    encoder=KINDS,
    hidden=Sizes(),
    embedding=Integer(1),
    key=KEY,
    capacity=Integer(1),
    forward_coef=NON_NEGATIVE,
    inverse_coef=NON_NEGATIVE,
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
)
def ride(
    spec: Spec,
    *,
    encoder: str = "inverse",
    hidden: Sequence[int] = (128,),
    embedding: int = 128,
    key: str = "auto",
    capacity: int = 1024,
    forward_coef: float = 10.0,
    inverse_coef: float = 0.1,
    learning_rate: float = 1e-3,
    minibatches: int = 4,
    epochs: int = 1,
) -> Bonus:
    """Impact of a step, over the root of the episode's visits.

    Args:
      encoder: "inverse" learns the features from both losses; "random" leaves them alone.
      hidden: widths of the dense layers of encoder, inverse model and forward model.
      embedding: number of features.
      key: what a state is to the counts, as for ``counts``.
      capacity: places of each lane's table, a power of two; an episode should visit fewer than 70 % as many states.
      forward_coef, inverse_coef: weights of the two losses.
      learning_rate, minibatches, epochs: Adam over every batch, for encoder="inverse".
    """
    model, learns = dynamics(spec, encoder, hidden, embedding, joint=True, name="ride"), encoder == "inverse"
    fingerprint, needs = fingerprint_function(spec, key, "ride")

    def init(key):
        params = model.init(key)
        return RIDEState(episodic_table(spec.lanes, capacity), params, ADAM.init(params) if learns else ())

    def observe(state, key, transition):
        table, visits = visit(state.counts, fingerprint(transition))
        return state._replace(counts=table), {"episodic": worth("inverse_root", visits)}

    def moved(state, transition):
        return impact(*(model.encode(state.params, obs) for obs in (transition.obs, transition.next_obs)))

    def score(state, transition):
        return jax.lax.stop_gradient(moved(state, transition) * transition.annotations["episodic"])

    def loss(params, data, key):
        found = model.losses(params, *data)
        return forward_coef * found["forward_loss"] + inverse_coef * found["inverse_loss"], found

    def update(state, key, inputs):
        batch, _ = inputs
        metrics = {"impact": jnp.mean(moved(state, batch)), **table_metrics(state.counts)}
        if not learns:
            return state, metrics
        data = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))
        params, optimizer, losses = fit(
            key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs
        )
        return state._replace(params=params, optimizer=optimizer), {**losses, **metrics}

    return bonus(
        init=init,
        observe=observe,
        score=score,
        update=update,
        reset=lambda state, mask: state._replace(counts=clear(state.counts, mask, spec.axis)),
        info=BonusInfo(
            needs=("obs", "next_obs"),
            learns_from=tuple(dict.fromkeys((*needs, *(("action",) if learns else ())))),
            stores=("episodic",),
            episodic=True,
            scored="batch",
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------


def _three_four_five() -> str:
    distance = impact(jnp.asarray([1.0, 1.0]), jnp.asarray([4.0, 5.0]))
    return expect(distance * worth("inverse_root", jnp.asarray([1, 4, 25])), [5.0, 2.5, 1.0], rtol=1e-6)


def _there_and_back_wears_off() -> str:
    steps = arrivals([[1], [2], [1], [2], [1], [2]])
    steps = steps._replace(obs=arrivals([[2], [1], [2], [1], [2], [1]]).next_obs)
    made = ride(line(), hidden=(), embedding=4, encoder="random", capacity=8)
    state, paid = play(made, steps)
    _, again = play(made, steps, made.reset(state, jnp.asarray([True])))
    first = paid[0, 0]
    expect(again, paid, rtol=1e-6)
    return expect(paid[:, 0], first / jnp.sqrt(jnp.asarray([1, 1, 2, 2, 3, 3])), rtol=1e-5)


def _standing_still_pays_nothing() -> str:
    _, paid = play(ride(line(), hidden=(8,), embedding=4, capacity=8), arrivals([[1], [1], [4]]))  # obs and next_obs are the same here
    require(not paid.any(), f"it pays {paid.ravel().tolist()}")
    return "0, 0, 0"


KNOWN_ANSWERS = (
    ("features that move by (3, 4), with N_ep = 1, 4, 25: 5, 2.5, 1", _three_four_five),
    ("to and fro between two states pays b, b, b/sqrt(2), b/sqrt(2), b/sqrt(3), b/sqrt(3), and the same after a reset", _there_and_back_wears_off),
    ("a step that changes no observation pays nothing", _standing_still_pays_nothing),
)
