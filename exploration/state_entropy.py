"""State entropy: pay what is unlikely under the density of the states seen, so that the agent spreads over all of them.

``density="gaussian"``: surprise under a running normal density with independent dimensions, as in SMiRL (arXiv 1912.05510), which pays
its negative, and in SOFE's "S-Max" (arXiv 2310.18144). With the floats x of next_obs, and v_j = var_j + floor:

    b = -log p(x; mean_t, var_t) = 1/2 sum_j [(x_j - mean_j)^2 / v_j + log v_j + log 2 pi]       from the statistics before x is counted
    n <- n + 1,   mean <- mean + (x - mean) / n,   var <- population variance, likewise           (Welford)

per lane and episode (``per_episode``), or of all lanes over the whole run. At the start the statistics are those of ``prior`` samples with
mean 0 and variance 1. ``features`` (SOFE) are mean, log v and log(1 + n): with x they determine the bonus, and with each other their next
values. The bonus has both signs. The floor is added, not a maximum, so that log v tells var.

``density="knn"``: particles. In an encoder's space, with the k nearest *other* features among those of the last ``memory`` steps:

    b = log(1 + mean of the k distances)

which grows with the distances whose logarithms make up the entropy estimate of Kozachenko and Leonenko (``particle_entropy``). The particles
are no statistic that an agent could be shown: no features.

Departures. The observation that an episode starts from is not counted, only successors are. With ``encoder="inverse"`` the memory holds
features as they were encoded when seen: with ``memory`` no longer than the rollout all are from the encoder that scores them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jax.scipy.special import digamma, gammaln

from agents.normalizers import Moments, moments_update
from envs.base import PyTree, Spec
from envs.builder import FLAG, NON_NEGATIVE, POSITIVE, Choice, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.encoders import KINDS
from exploration.encoders import encoder as make_encoder
from exploration.laws.play import arrivals, expect, line, play
from exploration.learning import ADAM, fit, flat_floats, flat_width, flatten_lead
from exploration.neighbours import Ring, mean_of_valid, nearest, push, ring
from exploration.normalizers import lead_ndim


class ParticleState(NamedTuple):
    params: PyTree  # of the encoder, {"encoder": ..., "head": ...}; the head only with encoder="inverse"
    optimizer: PyTree  # Adam moments of params; () with encoder="random"
    memory: Ring  # of features


def surprise(x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
    """-log of a normal density with independent dimensions: f32[..., D] each -> f32[...]."""
    return 0.5 * jnp.sum(jnp.square(x - mean) / variance + jnp.log(variance) + math.log(2 * math.pi), axis=-1)


def particle_entropy(points: jax.Array, k: int) -> jax.Array:
    """Kozachenko and Leonenko's estimate of the entropy, in nats f32[], of what the distinct points f32[n, D] were drawn from.

    psi(n) - psi(k) + log V_D + D/n sum_i log eps_i, with eps_i the distance to the k-th other point and V_D the volume of the unit ball.
    """
    number, width = points.shape
    distances = nearest(Ring(points[:, None], jnp.int32(number)), points, k + 1)[0][:, -1]
    ball = 0.5 * width * math.log(math.pi) - gammaln(0.5 * width + 1)
    return digamma(float(number)) - digamma(float(k)) + ball + width * jnp.mean(jnp.log(distances))


@options(
    density=Choice(("gaussian", "knn")),
    per_episode=FLAG,
    floor=POSITIVE,
    prior=NON_NEGATIVE,
    k=Integer(1),
    memory=Integer(1),
    encoder=KINDS,
    hidden=Sizes(),
    embedding=Integer(1),
    learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
)
def state_entropy(
    spec: Spec,
    *,
    density: str = "gaussian",
    per_episode: bool = True,
    floor: float = 0.01,
    prior: float = 1.0,
    k: int = 5,
    memory: int = 128,
    encoder: str = "inverse",
    hidden: Sequence[int] = (128,),
    embedding: int = 32,
    learning_rate: float = 1e-3,
    minibatches: int = 4,
    epochs: int = 1,
) -> Bonus:
    """Surprise under the density of the states seen.

    Args:
      density: "gaussian", a running normal density of the observation; "knn", particles in the space of an encoder.
      per_episode: the normal density is that of the lane's episode; false: of all lanes over the whole run.
      floor: added to the variances of the normal density.
      prior: how many samples with mean 0 and variance 1 the normal density starts from.
      k, memory: nearest particles, sought among those of the last ``memory`` steps of all lanes.
      encoder, hidden, embedding: the particles' space: "inverse" learns to predict the action, "random" stays as initialised.
      learning_rate, minibatches, epochs: Adam over every batch, for encoder="inverse".
    """
    if density == "gaussian":
        return _gaussian(spec, per_episode, floor, prior)
    made = make_encoder(spec, encoder, hidden, embedding, "state_entropy")
    return _particles(spec, made, k, memory, embedding, {"learning_rate": learning_rate, "minibatches": minibatches, "epochs": epochs})


def _gaussian(spec: Spec, per_episode: bool, floor, prior) -> Bonus:
    width = flat_width(spec.observation)
    lead = (spec.lanes,) if per_episode else ()

    def fresh():
        count = jnp.zeros(lead, jnp.float32) + prior
        return Moments(count, jnp.zeros((*lead, width), jnp.float32), jnp.ones((*lead, width), jnp.float32))

    def observe(state, key, transition):
        x = flat_floats(spec.observation, transition.next_obs)
        counted = jax.vmap(moments_update)(state, x) if per_episode else moments_update(state, x)
        return counted, {"surprise": surprise(x, state.mean, state.var + floor)}

    def reset(state, mask):
        return jax.tree.map(lambda new, old: jnp.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh(), state)

    def features(state, obs):
        shown = jnp.concatenate([state.mean, jnp.log(state.var + floor), jnp.log1p(state.count)[..., None]], axis=-1)
        return jnp.broadcast_to(shown, (spec.lanes, 2 * width + 1))

    return bonus(
        init=lambda key: fresh(),
        observe=observe,
        score=lambda state, transition: transition.annotations["surprise"],
        reset=reset if per_episode else None,
        features=features,
        info=BonusInfo(
            needs=(),
            learns_from=("next_obs",),
            stores=("surprise",),
            episodic=per_episode,
            scored="step",
            features=spaces.Box(-np.inf, np.inf, (2 * width + 1,), np.float32),
            non_negative=False,
            fades=False,
        ),
    )


def _particles(spec: Spec, made, k: int, memory: int, embedding: int, fitting: dict) -> Bonus:
    def init(key):
        params = made.init(key)
        return ParticleState(params, ADAM.init(params) if made.loss else (), ring(memory, spec.lanes, embedding))

    def observe(state, key, transition):
        return state._replace(memory=push(state.memory, made.encode(state.params, transition.next_obs))), {}

    def score(state, transition):
        features = jax.lax.stop_gradient(made.encode(state.params, transition.next_obs))
        distances, valid = nearest(state.memory, features, k + 1)  # the first is the step itself
        return jnp.log1p(mean_of_valid(distances[..., 1:], valid[1:]))

    def loss(params, data, key):
        error = made.loss(params, *data)
        return error, {"inverse_loss": error}

    def update(state, key, inputs):
        batch, _ = inputs
        data = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))
        params, optimizer, metrics = fit(key, state.params, state.optimizer, data, loss, **fitting)
        return state._replace(params=params, optimizer=optimizer), metrics

    info = BonusInfo(needs=("next_obs",), learns_from=made.learns_from, scored="batch", fades=False)
    return bonus(init=init, observe=observe, score=score, update=update if made.loss else None, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------


def _surprises_of_an_episode() -> str:
    """By hand, floor 1, prior 1, the two numbers (s/2, -s/2) of states 2, 2, 0: the statistics of (0), (0, 1), (0, 1, 1) come before."""
    settings = {"floor": 1.0, "prior": 1.0}
    _, paid = play(state_entropy(line(), **settings), arrivals([[2], [2], [0]]))
    # the prior sample has mean 0 and variance 1; after a first x = 1: mean 1/2, variance (1 + 0) / 2 + 1/4; after a second: 2/3, 1/3 + 2/9
    wanted = [np.log(2 * np.pi * v) + d**2 / v for d, v in ((1, 2), (1 / 2, 7 / 4), (2 / 3, 14 / 9))]
    return expect(paid[:, 0], wanted, rtol=1e-5)


def _entropy_of_a_square_and_of_a_normal() -> str:
    rng = np.random.default_rng(0)
    square, normal = rng.uniform(0, 2, (4000, 2)), rng.normal(size=(4000, 2))
    found = [float(particle_entropy(jnp.asarray(points, jnp.float32), 3)) for points in (square, normal)]
    wanted = [math.log(4), math.log(2 * math.pi * math.e)]
    if np.max(np.abs(np.subtract(found, wanted))) > 0.06:
        raise AssertionError(f"it gives {found}, and should give {wanted}")
    return ", ".join(f"{x:.3f}" for x in found)


def _a_crowded_state_pays_less() -> str:
    _, paid = play(state_entropy(line(), density="knn", encoder="random", k=2, memory=8), arrivals([[3]] * 4 + [[0]]))
    crowd, alone = paid[0, 0], paid[4, 0]
    if not (abs(crowd) < 1e-4 < 0.01 < alone):
        raise AssertionError(f"a state met four times pays {crowd:.4g}, one met once {alone:.4g}")
    return f"{crowd:.3g} and {alone:.3g}"


KNOWN_ANSWERS = (
    ("gaussian, floor 1, prior 1: (1, -1), (1, -1), (0, 0) pay log(2 pi v) + d^2/v with d, v = 1, 2; 1/2, 7/4; 2/3, 14/9", _surprises_of_an_episode),
    ("knn, k = 2: a state met four times pays 0, one met once more than 0", _a_crowded_state_pays_less),
    ("the particle entropies of a square of side 2 and of a normal in two dimensions are 1.386 and 2.838", _entropy_of_a_square_and_of_a_normal),
)
