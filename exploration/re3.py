"""RE3 (Seo et al. 2021): state entropy by nearest neighbours in the space of a random encoder that is never trained.

    y = encoder(s'),     b(s') = log(1 + d(y))

    variant="mean_of_k"    d: the mean of the k smallest distances from y, its own 0 included (the authors' A2C: k = 5)
    variant="kth"          d: the distance to the k-th nearest other feature (the authors' RAD: k = 3)

The two are published under one name and are not interchangeable: on the points 0, 1, 3, 7, 15, 31 they order states differently.

Neighbours are sought among the features of the last ``memory`` steps of all lanes, this rollout's included: with ``memory`` equal to
``runner.rollout`` that is exactly k-NN inside the rollout, and a longer one also remembers. Scoring a batch drawn from a replay does
not change what it is compared with.

Departures: the encoder is that of ``exploration/encoders.py``, dense layers but for pixels, and observations are not normalised (codes and
pixels enter divided by their largest value), as published. In a replay batch a step may no longer be in the memory; then "its own 0" is
missing, and ``kth`` is one neighbour further than it says. Until the memory holds enough features the mean is over those there are,
and ``kth`` is the farthest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import PyTree, Spec
from envs.builder import Choice, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.encoders import encoder as make_encoder
from exploration.laws.play import arrivals, expect, line, play
from exploration.neighbours import Ring, mean_of_valid, nearest, push, ring

VARIANTS = ("mean_of_k", "kth")


class RE3State(NamedTuple):
    params: PyTree  # of the encoder, never trained
    memory: Ring  # of features


def neighbour_bonus(memory: Ring, features: jax.Array, variant: str, k: int) -> jax.Array:
    """log(1 + d) f32[...] of features f32[..., width] that are in the memory."""
    distances, valid = nearest(memory, features, k if variant == "mean_of_k" else k + 1)  # the nearest is the feature itself
    d = mean_of_valid(distances, valid) if variant == "mean_of_k" else jnp.max(distances, axis=-1)
    return jnp.log1p(d)


@options(variant=Choice(VARIANTS), k=Integer(1), memory=Integer(1), hidden=Sizes(), embedding=Integer(1))
def re3(spec: Spec, *, variant: str = "mean_of_k", k: int = 5, memory: int = 128, hidden: Sequence[int] = (128,), embedding: int = 64) -> Bonus:
    """Random encoders for efficient exploration.

    Args:
      variant: "mean_of_k" or "kth"; see the module docstring.
      k: number of neighbours.
      memory: steps of all lanes among which neighbours are sought; the length of the rollout makes it the rollout's own.
      hidden: widths of the encoder's dense layers.
      embedding: number of features.
    """
    made = make_encoder(spec, "random", hidden, embedding, "re3")

    def init(key):
        return RE3State(made.init(key), ring(memory, spec.lanes, embedding))

    def observe(state, key, transition):
        return state._replace(memory=push(state.memory, made.encode(state.params, transition.next_obs))), {}

    def score(state, transition):
        features = jax.lax.stop_gradient(made.encode(state.params, transition.next_obs))
        return neighbour_bonus(state.memory, features, variant, k)

    info = BonusInfo(needs=("next_obs",), scored="batch", fades=False)  # what a rollout pays depends on what else the memory holds
    return bonus(init=init, observe=observe, score=score, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------

POINTS = np.float32([0, 1, 3, 7, 15, 31])[:, None]


def among(points: np.ndarray) -> Ring:
    """A memory that holds these features f32[n, width], of one lane."""
    return Ring(jnp.asarray(points)[:, None], jnp.int32(len(points)))


def _mean_of_five() -> str:
    return expect(neighbour_bonus(among(POINTS), jnp.asarray(POINTS), "mean_of_k", 5), [1.8245, 1.7228, 1.6487, 1.7918, 2.3795, 3.0253])


def _third_neighbour() -> str:
    return expect(neighbour_bonus(among(POINTS), jnp.asarray(POINTS), "kth", 3), [2.0794, 1.9459, 1.6094, 2.0794, 2.7081, 3.3673])


def _a_crowded_state_pays_less() -> str:
    _, paid = play(re3(line(), k=2), arrivals([[3]] * 4 + [[0]]))
    crowd, alone = paid[0, 0], paid[4, 0]
    if not (abs(crowd) < 1e-4 < 0.01 < alone):
        raise AssertionError(f"a state met four times pays {crowd:.4g}, one met once {alone:.4g}")
    return f"{crowd:.3g} and {alone:.3g}"


KNOWN_ANSWERS = (
    ("points 0, 1, 3, 7, 15, 31, mean of the 5 smallest: 1.8245, 1.7228, 1.6487, 1.7918, 2.3795, 3.0253", _mean_of_five),
    ("the same points, third neighbour: 2.0794, 1.9459, 1.6094, 2.0794, 2.7081, 3.3673", _third_neighbour),
    ("k = 2: a state met four times in the rollout pays 0, one met once more than 0", _a_crowded_state_pays_less),
)
