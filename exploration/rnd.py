"""Random network distillation (arXiv 1810.12894): the error of a network that learns to imitate a fixed random one.

    b(s') = mean_j (predictor_j(x) - target_j(x))^2,      x = clip((s' - mean) / std, -5, 5)

The target never changes; the predictor is trained on the states visited, so the error is small where the agent has been. Mean
and std are of every element of the observation; they serve the two bonus networks only and learn from every step, after
``warmup`` random steps per lane that come before training. The bonus belongs to the true successor, never to a reset observation.

===================  =============================================  =======================================================
observation          target                                         predictor
===================  =============================================  =======================================================
at least 36 x 36 px  convolutions (leaky ReLU), linear              convolutions (leaky ReLU), ``hidden`` (ReLU), linear
anything else        flat floats, ``hidden`` (ReLU), linear         the same, seeded apart
===================  =============================================  =======================================================

Departures: statistics are updated at every step, not once per rollout; small observations use dense layers, and a target as large as
the predictor; integer codes (MiniGrid) are numbers like any other, divided by their largest value and normalised; Discrete
observations are one-hot. The networks see the whole observation where the paper gives them the last frame of a stack: with frame
stacking, RND needs a world that shows one frame, or is a different method. The defaults suit small worlds; the paper's for Atari are
hidden=[512,512], embedding=512, epochs=4, warmup=6400, and update_proportion=0.25 with 128 lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.networks import dummy, encoder_kind
from envs.base import PyTree, Spec
from envs.builder import FRACTION, POSITIVE, Integer, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.laws.data import assert_equal, require
from exploration.laws.play import reaching
from exploration.learning import ADAM, Embedder, fit, flatten_lead, float_space, to_floats
from exploration.normalizers import moments, standardize, update_moments


class RNDState(NamedTuple):
    target: PyTree  # parameters, never trained
    predictor: PyTree  # parameters
    optimizer: PyTree  # Adam moments of the predictor
    moments: PyTree  # Moments of every element of next_obs


@options(
    hidden=Sizes(),
    embedding=Integer(1),
    learning_rate=POSITIVE,
    update_proportion=FRACTION,
    minibatches=Integer(1),
    epochs=Integer(1),
    obs_clip=POSITIVE,
    warmup=Integer(0),
)
def rnd(
    spec: Spec,
    *,
    hidden: Sequence[int] = (128, 128),
    embedding: int = 128,
    learning_rate: float = 1e-4,
    update_proportion: float = 1.0,
    minibatches: int = 4,
    epochs: int = 1,
    obs_clip: float = 5.0,
    warmup: int = 512,
) -> Bonus:
    """Random network distillation.

    Args:
      hidden: widths of the dense layers; for pixels the predictor's only.
      embedding: width of the random features.
      learning_rate: Adam's, for the predictor.
      update_proportion: share of the samples, drawn anew each time, that the predictor is trained on; with more lanes use less.
      minibatches, epochs: passes over each batch. Samples that do not fill a minibatch are left out of that pass, at random.
      obs_clip: bound of the normalised observation.
      warmup: random steps per lane from which the first statistics come.
    """
    space = float_space(spec.observation)
    pixels = encoder_kind(space) == "cnn"
    target_net = Embedder(space, () if pixels else tuple(hidden), embedding)
    predictor_net = Embedder(space, tuple(hidden), embedding)

    def normalized(state, next_obs):
        return standardize(state.moments, to_floats(spec.observation, next_obs), obs_clip)

    def init(key):
        target_key, predictor_key = jax.random.split(key)
        example = dummy(space)
        predictor = predictor_net.init(predictor_key, example)
        elements = moments(dummy(space, lead=()))
        return RNDState(target_net.init(target_key, example), predictor, ADAM.init(predictor), elements)

    def observe(state, key, transition):
        floats = to_floats(spec.observation, transition.next_obs)
        return state._replace(moments=update_moments(state.moments, floats)), {}

    def score(state, transition):
        x = normalized(state, transition.next_obs)
        error = predictor_net.apply(state.predictor, x) - target_net.apply(state.target, x)
        return jax.lax.stop_gradient(jnp.mean(jnp.square(error), axis=-1))

    def loss(predictor, data, key):
        x, wanted = data
        error = jnp.mean(jnp.square(predictor_net.apply(predictor, x) - wanted), axis=-1)
        kept = jax.random.uniform(key, error.shape) < update_proportion
        mean = jnp.sum(jnp.where(kept, error, 0.0)) / jnp.maximum(jnp.sum(kept, dtype=jnp.float32), 1.0)
        return mean, {"predictor_loss": mean}

    def update(state, key, inputs):
        batch, _ = inputs
        x = normalized(state, batch.next_obs)  # before flattening: the compiler shares this, and the targets, with ``score``
        wanted = target_net.apply(state.target, x)
        data = flatten_lead((x, wanted), wanted.ndim - 1)
        predictor, optimizer, metrics = fit(
            key, state.predictor, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs
        )
        return state._replace(predictor=predictor, optimizer=optimizer), metrics

    info = BonusInfo(needs=("next_obs",), scored="batch", warmup=warmup)
    return bonus(init=init, observe=observe, score=score, update=update, info=info)


# --- known answers -----------------------------------------------------------------------------------------------------


def _rooms() -> tuple[jax.Array, jax.Array]:
    """Two sides of a cube's corners, f32[32, 6] each: states to train on, and others."""
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 6), axis=-1).reshape(-1, 6).astype(np.float32)
    return jnp.asarray(corners[corners[:, 0] < 0]), jnp.asarray(corners[corners[:, 0] > 0])


def _trained(updates: int) -> tuple[Bonus, RNDState, RNDState]:
    """(bonus, its state at first, its state after ``updates`` on one room)."""
    room = Spec(spaces.Box(-np.inf, np.inf, (6,), np.float32), spaces.Discrete(2), "room", lanes=32)
    made, seen = rnd(room, hidden=(32,), embedding=16, minibatches=2, learning_rate=1e-3), reaching(_rooms()[0])
    first = made.init(jax.random.PRNGKey(0))
    learn = jax.jit(lambda state: jax.lax.fori_loop(0, updates, lambda n, s: made.update(s, jax.random.PRNGKey(n), (seen, {}))[0], state))
    return made, first, learn(first)


def _the_target_stays() -> str:
    _, first, after = _trained(3)
    assert_equal(after.target, first.target, "the target network was trained: ")
    moved = [bool(jnp.all(a == b)) for a, b in zip(*map(jax.tree.leaves, (first.predictor, after.predictor)), strict=True)]
    require(not any(moved), "updates leave the predictor as it was")
    return "bit for bit, while the predictor moves"


def _known_states_pay_less_than_others() -> str:
    made, first, after = _trained(400)
    seen, unseen = (reaching(x) for x in _rooms())
    before, learnt, others = (float(jnp.mean(made.score(s, x))) for s, x in ((first, seen), (after, seen), (after, unseen)))
    told = f"{before:.3g} at first, then {learnt:.3g}; states never seen {others:.3g}"
    require(learnt < 0.01 * before and others > 20 * learnt, told)
    return told


KNOWN_ANSWERS = (
    ("updates leave the target network untouched", _the_target_stays),
    ("the error of a batch trained on 400 times falls below 1 % of what it was, and 1/20 of that of other states", _known_states_pay_less_than_others),
)
