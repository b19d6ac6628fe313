"""E3B (arXiv 2210.05805): an episodic elliptical bonus in the feature space of an inverse-dynamics model.

In every lane, from the start of its episode, with features phi of the states reached:

    C_t = ridge I + sum_i phi_i phi_i^T,    b_t = phi_t^T C_{t-1}^{-1} phi_t
    u = C^{-1} phi,    C^{-1} <- C^{-1} - u u^T / (1 + b)                       (Sherman-Morrison)

phi = phi(next_obs) comes from an encoder trained to tell the action from two successive observations (``encoder="inverse"``), or
left as it was initialised (``"random"``). The bonus is computed when the step is made, with the encoder of that moment.

Departures. The first step of an episode pays nothing (``skip_first``), as published, and its successor enters C; the observation
that the episode started from does not, which saves a second pass of the encoder per step. In float32 a repeated direction of very
large features can make phi^T C^{-1} phi negative by rounding; then b = 0 and C^{-1} stays, so it cannot run away (rounding is about
1e-7 |phi|^2 / ridge). Networks are those of ``exploration/learning.py``, dense layers but for pixels: integer codes (MiniGrid) and pixels
enter divided by their largest value.

``features`` (SOFE, arXiv 2310.18144) are ridge C^{-1}, the identity when an episode starts: its upper triangle, which with the
encoder determines every bonus, or its diagonal, which does not but is k numbers instead of k(k+1)/2. They are sufficient for a
fixed encoder only; the inverse encoder goes on learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec
from envs.builder import FLAG, POSITIVE, Choice, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.encoders import KINDS
from exploration.encoders import encoder as make_encoder
from exploration.laws.play import arrivals, expect, line, play
from exploration.learning import ADAM, fit, flatten_lead
from exploration.normalizers import lead_ndim


class E3BState(NamedTuple):
    inverse: jax.Array  # f32[N, k, k]; C^{-1} of each lane's episode
    params: PyTree  # {"encoder": ..., "head": ...}; the head only with encoder="inverse"
    optimizer: PyTree  # Adam moments of params; () with encoder="random"


def elliptical(inverse: jax.Array, phi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(C^{-1} f32[..., k, k], phi f32[..., k]) -> (b = phi^T C^{-1} phi f32[...], inverse of C + phi phi^T)."""
    u = jnp.einsum("...ij,...j->...i", inverse, phi)
    b = jnp.einsum("...i,...i->...", phi, u)
    gain = jnp.where(b > 0.0, 1.0 / (1.0 + jnp.maximum(b, 0.0)), 0.0)
    outer = u[..., :, None] * u[..., None, :]  # before scaling, so that the inverse stays symmetric to the last bit
    return jnp.maximum(b, 0.0), inverse - gain[..., None, None] * outer


def episode(features: jax.Array, ridge: float = 0.1) -> tuple[jax.Array, jax.Array]:
    """Features f32[T, k] of the steps of one episode -> (what each is paid f32[T], C^{-1} f32[k, k] at the end)."""
    start = jnp.eye(features.shape[-1], dtype=jnp.float32) / ridge
    inverse, paid = jax.lax.scan(lambda inverse, phi: elliptical(inverse, phi)[::-1], start, features)
    return paid, inverse


@options(
    ridge=POSITIVE,
    embedding=Integer(1),
    hidden=Sizes(),
    encoder=KINDS,
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
    skip_first=FLAG,
    encoding=Choice(("triangle", "diagonal")),
)
def e3b(
    spec: Spec,
    *,
    ridge: float = 0.1,
    embedding: int = 32,
    hidden: Sequence[int] = (128,),
    encoder: str = "inverse",
    learning_rate: float = 1e-3,
    minibatches: int = 4,
    epochs: int = 1,
    skip_first: bool = True,
    encoding: str = "triangle",
) -> Bonus:
    """Episodic elliptical bonus.

    Args:
      ridge: C starts as ridge times the identity; a first unit feature pays 1/ridge.
      embedding: number k of features; each lane holds k x k numbers.
      hidden: widths of the encoder's dense layers, and of the inverse model's.
      encoder: "inverse" trains it to predict the action; "random" leaves it alone.
      learning_rate, minibatches, epochs: Adam over every batch, for encoder="inverse".
      skip_first: no bonus on the first step of an episode.
      encoding: what SOFE shows the agent: the upper "triangle" of C^{-1}, or its "diagonal".
    """
    made = make_encoder(spec, encoder, hidden, embedding, "e3b")
    rows, columns = np.triu_indices(embedding) if encoding == "triangle" else np.diag_indices(embedding)

    def fresh():
        return jnp.eye(embedding, dtype=jnp.float32) / ridge

    def init(key):
        params = made.init(key)
        inverse = jnp.broadcast_to(fresh(), (spec.lanes, embedding, embedding))
        return E3BState(inverse, params, ADAM.init(params) if made.loss else ())

    def observe(state, key, transition):
        b, inverse = elliptical(state.inverse, made.encode(state.params, transition.next_obs))
        b = jnp.where(transition.first, 0.0, b) if skip_first else b
        return state._replace(inverse=inverse), {"elliptical": b}

    def loss(params, data, key):
        error = made.loss(params, *data)
        return error, {"inverse_loss": error}

    def update(state, key, inputs):
        batch, _ = inputs
        data = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))
        params, optimizer, metrics = fit(
            key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs
        )
        return state._replace(params=params, optimizer=optimizer), metrics

    def reset(state, mask):
        return state._replace(inverse=jnp.where(mask[:, None, None], fresh(), state.inverse))

    def features(state, obs):
        return ridge * state.inverse[:, rows, columns]

    learns_from = ("next_obs",) + (("first",) if skip_first else ()) + (("obs", "action") if made.loss else ())
    return bonus(
        init=init,
        observe=observe,
        score=lambda state, transition: transition.annotations["elliptical"],
        update=update if made.loss else None,
        reset=reset,
        features=features,
        info=BonusInfo(
            needs=(),
            learns_from=learns_from,
            stores=("elliptical",),
            episodic=True,
            scored="step",
            features=spaces.Box(-1.0, 1.0, (len(rows),), np.float32),
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------


def _one_unit_feature_again_and_again() -> str:
    wanted = [10, 0.9091, 0.4762, 0.3226, 0.2439, 0.1961]
    for feature in ([0.6, 0.8], [1.0, 0.0]):
        shown = expect(episode(jnp.asarray([feature] * 6, jnp.float32))[0], wanted, rtol=2e-4)
    return shown


def _other_directions() -> str:
    features = jnp.asarray([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], jnp.float32)
    return expect(episode(features)[0], [10, 10, 0.90909, 0.75325], rtol=1e-5)


def _one_state_again_and_again() -> str:
    _, paid = play(e3b(line(), embedding=4, hidden=(), encoder="random", skip_first=False), arrivals([[3]] * 5))
    first = paid[0, 0]
    return expect(paid[:, 0], first / (1 + first * np.arange(5)), rtol=1e-3)


KNOWN_ANSWERS = (
    ("ridge 0.1, one unit feature again and again: 10, .9091, .4762, .3226, .2439, .1961", _one_unit_feature_again_and_again),
    ("ridge 0.1, features (1,0), (0,1), (1,0), (.6,.8): 10, 10, .90909, .75325", _other_directions),
    ("one state again and again pays b, b/(1+b), b/(1+2b), ...", _one_state_again_and_again),
)
