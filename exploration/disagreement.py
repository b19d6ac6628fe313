"""Disagreement (Pathak et al. 2019, arXiv 1906.04161): the variance of an ensemble of forward models.

    b(s, a) = mean over features of Var over members m of f_m(phi(s), a)

The variance is that of the population: the mean square distance from the ensemble's mean, not divided by members - 1. Each member is
initialised apart and learns from its own share of the samples, drawn once per batch. Members that have learnt enough agree, on what
is random too: they all predict its mean, so a noisy TV wears off where a forward error does not.

phi is random (``encoder="random"``), or trained by an inverse model (``"inverse"``); the forward losses never train it. The bonus needs no
s': it belongs to what is about to be tried.

Departures. Shares: the authors drop a fifth of the samples of each member at random, as here (``share``). Dense layers but for pixels,
ReLU, where they have four residual blocks; observations are not normalised (codes and pixels enter divided by their largest value).
The reward is differentiable in the action, which the authors use; here it is a reward only (``exploration/information_gain.py`` has gradients).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import PyTree, Spec, Transition
from envs.builder import FRACTION, POSITIVE, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.dynamics import forward_model
from exploration.encoders import KINDS
from exploration.encoders import encoder as make_encoder
from exploration.ensembles import ensemble, own_losses, shares, spread
from exploration.laws.data import require
from exploration.laws.play import expect
from exploration.learning import ADAM, fit, flatten_lead
from exploration.normalizers import lead_ndim


class DisagreementState(NamedTuple):
    params: PyTree  # {"features": ..., "members": ... [members, ...]}
    optimizer: PyTree  # Adam moments of params


@options(
    members=Integer(2),
    encoder=KINDS,
    hidden=Sizes(),
    embedding=Integer(1),
    share=FRACTION,
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
)
def disagreement(
    spec: Spec,
    *,
    members: int = 5,
    encoder: str = "random",
    hidden: Sequence[int] = (128,),
    embedding: int = 64,
    share: float = 0.8,
    learning_rate: float = 1e-3,
    minibatches: int = 4,
    epochs: int = 1,
) -> Bonus:
    """Variance of an ensemble of forward models.

    Args:
      members: size of the ensemble.
      encoder: "random" features, or "inverse" ones, trained to predict the action.
      hidden: widths of the dense layers of encoder, inverse model and each member.
      embedding: number of features.
      share: of the samples of a batch that each member learns from, drawn for each member apart.
      learning_rate, minibatches, epochs: Adam over every batch.
    """
    features = make_encoder(spec, encoder, hidden, embedding, "disagreement")
    forward = forward_model(spec, hidden, embedding, "disagreement")
    models = ensemble(forward.init, forward.predict, members)

    def init(key):
        features_key, forward_key = jax.random.split(key)
        params = {"features": features.init(features_key), "members": models.init(forward_key)}
        return DisagreementState(params, ADAM.init(params))

    def score(state, transition):
        phi = features.encode(state.params["features"], transition.obs)
        return jax.lax.stop_gradient(jnp.mean(spread(models.predict(state.params["members"], phi, transition.action)), axis=-1))

    def loss(params, data, key):
        obs, next_obs, action, kept = data
        phi, wanted = (jax.lax.stop_gradient(features.encode(params["features"], x)) for x in (obs, next_obs))
        each = own_losses(jnp.mean(jnp.square(models.predict(params["members"], phi, action) - wanted), axis=-1), kept)
        found, total = {"forward_loss": jnp.mean(each)}, jnp.sum(each)
        if features.loss is not None:
            found["inverse_loss"] = features.loss(params["features"], obs, next_obs, action)
            total = total + found["inverse_loss"]
        return total, found

    def update(state, key, inputs):
        batch, _ = inputs
        obs, next_obs, action = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))
        fit_key, share_key = jax.random.split(key)
        data = (obs, next_obs, action, shares(share_key, action.shape[0], members, share))
        fitted = fit(fit_key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs)
        return DisagreementState(*fitted[:2]), fitted[2]

    info = BonusInfo(needs=("obs", "action"), learns_from=("next_obs",), scored="batch")
    return bonus(init=init, score=score, update=update, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------


def _population_variance() -> str:
    return expect(jnp.mean(spread(jnp.asarray([[[0.0, 1.0]], [[2.0, 1.0]], [[4.0, 1.0]]])), axis=-1), [4 / 3], rtol=1e-6)


def _noise_known() -> tuple[float, float, float]:
    """(disagreement at first, and after 3000 updates; half the squared error then) on one state whose successor is noise of variance 1."""
    world = Spec(spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Discrete(2), "television")
    made = disagreement(world, encoder="random", hidden=(), embedding=1, minibatches=1)

    def steps(key):
        no, still = jnp.zeros((256,), bool), jnp.zeros((256, 1), jnp.float32)
        noise = jax.random.normal(key, (256, 1)) * 0.5**0.5  # the one weight of a random encoder is sqrt(2) or -sqrt(2)
        return Transition(still, no.astype(jnp.int32), no.astype(jnp.float32), noise, no, no, no, {})

    @jax.jit
    def run(key):
        def learn(state, key):
            state, metrics = made.update(state, key, (steps(key), {}))
            return state, metrics["forward_loss"]

        first = made.init(key)
        after, losses = jax.lax.scan(learn, first, jax.random.split(key, 3000))
        return jnp.mean(made.score(first, steps(key))), jnp.mean(made.score(after, steps(key))), jnp.mean(losses[-500:]) / 2

    return tuple(float(x) for x in run(jax.random.PRNGKey(0)))


def _a_noisy_tv_wears_off() -> str:
    first, last, error = _noise_known()
    told = f"disagreement {first:.3g} at first, {last:.3g} at last; half the squared error {error:.3g}"
    require(first > 0.1 and last < 0.01 and abs(error - 0.5) < 0.02, told)
    return told


KNOWN_ANSWERS = (
    ("predictions (0,1), (2,1), (4,1) of three members: population variance 2.6667 and 0, mean 1.3333", _population_variance),
    ("a successor that is noise of variance 1: disagreement falls below 0.01, half the squared forward error stays at 0.5", _a_noisy_tv_wears_off),
)
