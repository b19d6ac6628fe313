"""Never give up (Badia et al. 2020, arXiv 2002.06038): how far a state is from what this episode has seen, times how new it is in life.

    K_i = eps / (max(d_i^2 / d_m^2 - xi, 0) + eps)              d_i: distance of phi(s') to its i-th nearest neighbour in the episode's memory
    r_ep = 1 / (sqrt(sum of the k K_i) + c),   0 where sqrt(.) + c > s_max        d_m^2: running mean of all d_i^2
    b = r_ep clip(1 + (err - mean) / std, 1, L)                 err: RND's error of s', with running mean and deviation

phi comes from an encoder trained to tell the action from two successive observations (``encoder="inverse"``), or stays as it was
initialised (``"random"``). Every lane remembers the last ``memory`` features of its episode. A step is compared with the memory before it
is put there; as long as that holds m < k features their sum of K_i is taken k/m times, and the first step of an episode pays nothing. The
mean and the deviation take in a step before it is measured with them; they are shared by the lanes and outlive episodes.

With k = 10 the largest similarity is sqrt(10) + c = 3.163: s_max = 8 never cuts anything off. It is kept as an option for larger k.

This is NGU's bonus alone: not its family of policies with a weight and a discount each, nor its recurrent replay agent. Departures: the
observation that an episode starts from is not put into the memory, which is shorter than the published one (30,000); how fewer than k
neighbours are dealt with is ours; what the parts were worth is decided when the step is made, and kept with it; observations are
normalised for RND (``exploration/rnd.py``), not for phi; dense layers but for pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import PyTree, Spec, any_member
from envs.builder import NON_NEGATIVE, POSITIVE, Integer, Real, Refusal, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.encoders import KINDS
from exploration.encoders import encoder as make_encoder
from exploration.laws.data import require
from exploration.laws.play import arrivals, expect, line, play
from exploration.learning import ADAM, fit, flatten_lead
from exploration.neighbours import smallest
from exploration.normalizers import deviation, lead_ndim, moments, update_moments
from exploration.rnd import RNDState, rnd


class Mean(NamedTuple):
    """A running mean; without data it is 0. As a float32 the count stops growing at some 2^24 k N, and the mean then forgets slowly."""

    count: jax.Array  # f32[]
    mean: jax.Array  # f32[]


class NGUState(NamedTuple):
    memory: jax.Array  # f32[N, memory, k]; features of each lane's episode, the oldest overwritten first
    written: jax.Array  # i32[N]; features put there in the episode; from 2 memory back to memory
    distance: Mean  # of squared distances to the neighbours
    error: PyTree  # Moments of RND's error
    rnd: RNDState
    params: PyTree  # {"encoder": ..., "head": ...}; the head only with encoder="inverse"
    optimizer: PyTree  # Adam moments of params; () with encoder="random"


def nearest(memory: jax.Array, written: jax.Array, features: jax.Array, neighbours: int) -> jax.Array:
    """Squared distances from features f32[N, k] to the nearest in memory f32[N, M, k] -> f32[N, neighbours], ascending; infinite beyond what it holds."""
    squares = jnp.sum(jnp.square(memory - features[:, None]), axis=-1)
    held = jnp.arange(memory.shape[1]) < written[:, None]
    return jax.vmap(lambda x: smallest(x, neighbours)[0])(jnp.where(held, squares, jnp.inf))


def episodic_reward(ratios: jax.Array, epsilon: jax.Array | float, xi: jax.Array | float, c: jax.Array | float, s_max: jax.Array | float) -> jax.Array:
    """d_i^2 / d_m^2 of the neighbours f32[..., k], infinite where there is none -> r_ep f32[...]; 0 without any neighbour."""
    there = jnp.isfinite(ratios)
    kernel = jnp.where(there, epsilon / (jnp.maximum(ratios - xi, 0.0) + epsilon), 0.0)
    held = jnp.sum(there, axis=-1, dtype=jnp.float32)
    similarity = jnp.sqrt(jnp.sum(kernel, axis=-1) * ratios.shape[-1] / jnp.maximum(held, 1.0)) + c
    return jnp.where((held == 0) | (similarity > s_max), 0.0, 1.0 / similarity)


def modulator(z: jax.Array, limit: jax.Array | float) -> jax.Array:
    """Standardised errors f32[...] -> clip(1 + z, 1, L)."""
    return jnp.clip(1.0 + z, 1.0, limit)


def take_in(state: Mean, values: jax.Array) -> Mean:
    """``state`` after the values f32[...] that are finite."""
    there = jnp.isfinite(values)
    count = state.count + jnp.sum(there, dtype=jnp.float32)
    gap = jnp.sum(jnp.where(there, values - state.mean, 0.0))
    return Mean(count, state.mean + gap / jnp.maximum(count, 1.0))


@options(
    neighbours=Integer(1),
    memory=Integer(1),
    encoder=KINDS,
    hidden=Sizes(),
    embedding=Integer(1),
    epsilon=POSITIVE,
    xi=NON_NEGATIVE,
    c=POSITIVE,
    s_max=POSITIVE,
    limit=Real(1.0),
    learning_rate=POSITIVE,
    rnd_hidden=Sizes(),
    rnd_embedding=Integer(1),
    rnd_learning_rate=POSITIVE,
    minibatches=Integer(1),
    epochs=Integer(1),
    warmup=Integer(0),
)
def ngu(
    spec: Spec,
    *,
    neighbours: int = 10,
    memory: int = 512,
    encoder: str = "inverse",
    hidden: Sequence[int] = (128,),
    embedding: int = 32,
    epsilon: float = 1e-4,
    xi: float = 0.008,
    c: float = 0.001,
    s_max: float = 8.0,
    limit: float = 5.0,
    learning_rate: float = 5e-4,
    rnd_hidden: Sequence[int] = (128, 128),
    rnd_embedding: int = 128,
    rnd_learning_rate: float = 5e-4,
    minibatches: int = 4,
    epochs: int = 1,
    warmup: int = 512,
) -> Bonus:
    """Episodic novelty times life-long novelty.

    Args:
      neighbours: k, to how many a state is compared.
      memory: features that each lane keeps of its episode.
      encoder: "inverse" trains the features to predict the action; "random" leaves them alone.
      hidden, embedding: widths of the encoder's dense layers, and of the inverse model's; number of features.
      epsilon, xi, c: of the kernel; see the module docstring.
      s_max: a state more similar than this to the memory pays nothing.
      limit: L, the most that life-long novelty multiplies by; 1 leaves it out.
      learning_rate: of the encoder.
      rnd_hidden, rnd_embedding, rnd_learning_rate: of the two networks of RND.
      minibatches, epochs: passes over every batch, for encoder and RND.
      warmup: random steps per lane from which the first statistics come.
    """
    if memory < neighbours:
        raise Refusal(f"ngu with memory={memory} never holds neighbours={neighbours} features; give memory={neighbours} or more")
    features = make_encoder(spec, encoder, hidden, embedding, "ngu")
    lifelong = rnd(spec, hidden=rnd_hidden, embedding=rnd_embedding, learning_rate=rnd_learning_rate, minibatches=minibatches, epochs=epochs, warmup=warmup)
    zero = jnp.zeros((), jnp.float32)

    def init(key):
        features_key, rnd_key = jax.random.split(key)
        params = features.init(features_key)
        return NGUState(
            memory=jnp.zeros((spec.lanes, memory, embedding), jnp.float32),
            written=jnp.zeros((spec.lanes,), jnp.int32),
            distance=Mean(zero, zero),
            error=moments(zero),
            rnd=lifelong.init(rnd_key),
            params=params,
            optimizer=ADAM.init(params) if features.loss else (),
        )

    def observe(state, key, transition):
        phi = features.encode(state.params, transition.next_obs)
        squares = nearest(state.memory, state.written, phi, neighbours)
        distance = take_in(state.distance, squares)
        reward = episodic_reward(squares / jnp.where(distance.mean > 0.0, distance.mean, 1.0), epsilon, xi, c, s_max)

        learnt, _ = lifelong.observe(state.rnd, key, transition)
        error = lifelong.score(learnt, transition)
        seen = update_moments(state.error, error)
        factor = modulator((error - seen.mean) / deviation(seen), limit)

        written = state.written + 1
        state = state._replace(
            memory=state.memory.at[jnp.arange(spec.lanes), state.written % memory].set(phi),
            written=jnp.where(written < 2 * memory, written, memory),  # the same place in the ring, and no overflow
            distance=distance,
            error=seen,
            rnd=learnt,
        )
        return state, {"episodic": reward, "lifelong": factor}

    def loss(params, data, key):
        error = features.loss(params, *data)
        return error, {"inverse_loss": error}

    def update(state, key, inputs):
        batch, _ = inputs
        rnd_key, fit_key = jax.random.split(key)
        learnt, metrics = lifelong.update(state.rnd, rnd_key, inputs)
        metrics |= {name: jnp.mean(batch.annotations[name]) for name in ("episodic", "lifelong")}
        metrics |= {"squared_distance": state.distance.mean}
        state = state._replace(rnd=learnt)
        if features.loss is None:
            return state, metrics
        data = flatten_lead((batch.obs, batch.next_obs, batch.action), lead_ndim(spec.observation, batch.next_obs))
        params, optimizer, losses = fit(fit_key, state.params, state.optimizer, data, loss, learning_rate=learning_rate, minibatches=minibatches, epochs=epochs)
        return state._replace(params=params, optimizer=optimizer), {**metrics, **losses}

    def reset(state, mask):
        def emptied(rows):
            return jnp.where(mask[:, None, None], 0.0, rows)

        rows = jax.lax.cond(any_member(mask, spec.axis), emptied, lambda rows: rows, state.memory)
        return state._replace(memory=rows, written=jnp.where(mask, 0, state.written))

    return bonus(
        init=init,
        observe=observe,
        score=lambda state, transition: transition.annotations["episodic"] * transition.annotations["lifelong"],
        update=update,
        reset=reset,
        info=BonusInfo(
            needs=(),
            learns_from=("next_obs", *(("obs", "action") if features.loss else ())),
            stores=("episodic", "lifelong"),
            episodic=True,
            scored="step",
            warmup=warmup,
            fades=False,  # a new episode is worth as much as the one before; that is the method's name
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------

PAPER = {"epsilon": 1e-4, "xi": 0.008, "c": 0.001, "s_max": 8.0}


def _ten_neighbours() -> str:
    ratios = jnp.asarray([[0.0] * 10, [1.0] * 10, [0.0] + [1.0] * 9, [4.0] * 10])
    return expect(episodic_reward(ratios, **PAPER), [0.31613, 30.536, 0.99855, 59.428], rtol=2e-5)


def _the_clamp_never_fires() -> str:
    same = jnp.zeros((1, 10))
    kept, cut = episodic_reward(same, **PAPER), episodic_reward(jnp.zeros((1, 64)), **PAPER)
    require(float(cut[0]) == 0.0, "64 identical neighbours are more similar than s_max, and are paid")
    return expect(1.0 / kept, [10**0.5 + 0.001], rtol=1e-5)


def _life_long_novelty() -> str:
    return expect(modulator(jnp.asarray([-2.0, 0.0, 1.0, 4.0, 9.0]), 5.0), [1.0, 1.0, 2.0, 5.0, 5.0])


def _fewer_neighbours_stand_for_all() -> str:
    nobody = jnp.inf
    ratios = jnp.asarray([[1.0] + [nobody] * 9, [1.0] * 10, [nobody] * 10])
    return expect(episodic_reward(ratios, **PAPER), [30.536, 30.536, 0.0], rtol=2e-5)


def _each_episode_begins_anew() -> str:
    small = {"neighbours": 2, "memory": 4, "hidden": (), "embedding": 4, "rnd_hidden": (), "rnd_embedding": 4, "limit": 1.0, "warmup": 0}
    made, steps = ngu(line(), encoder="random", **small), arrivals([[0], [5], [3], [3], [3]])
    state, paid = play(made, steps)
    _, again = play(made, steps, made.reset(state, jnp.asarray([True])))
    for found in (paid, again):
        require(not found[0].any() and (found[1:] > 0).all(), f"it pays {found.ravel().tolist()}")
        expect(found[4], [1 / (np.sqrt(2) + 0.001)], rtol=1e-5)  # both neighbours are the same state: similarity sqrt(2) + c
    return f"{paid[1, 0]:.4g} for a new state, {paid[4, 0]:.4g} the third time"


KNOWN_ANSWERS = (
    ("ten neighbours, all identical, all at the mean distance, one identical, all at 4 times the mean: .31613, 30.536, .99855, 59.428", _ten_neighbours),
    ("s_max = 8 never fires for k = 10: the largest similarity is sqrt(10) + .001 = 3.163; for k = 64 it does", _the_clamp_never_fires),
    ("life-long novelty of -2, 0, 1, 4, 9 deviations multiplies by 1, 1, 2, 5, 5", _life_long_novelty),
    ("one neighbour at the mean distance counts as ten do, 30.536; none pays nothing", _fewer_neighbours_stand_for_all),
    ("with k = 2 the third visit of a state pays 1/(sqrt(2) + .001), in every episode anew, and the first step nothing", _each_episode_begins_anew),
)
