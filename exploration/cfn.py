"""Coin flip network (Lobel et al. 2023, arXiv 2306.03186): counting visits by regression.

Every visit of a state is given a fresh vector c of d fair coins in {-1, +1}. Least squares from states to their coins tends to the mean of
n such vectors where a state was visited n times, whose mean square is 1/n in expectation, exactly:

    f(s) = g(s) + (h(s) - mean_h) / sqrt(var_h + 1e-4)          g trained, h the random prior, its moments running
    loss = mean over coins of (f(s) - c)^2,    1/N(s) ~ mean_k f_k(s)^2,    b(s') = sqrt(mean_k f_k(s')^2) ~ 1/sqrt(N(s'))

The estimate of 1/N has a relative standard deviation of sqrt(2 (1 - 1/n) / d). The prior has mean square 1 on states that are unlike
all seen, so they start near a count of one. Visits are kept in a buffer of the bonus's own with one priority each,

    p = a / u + (1 - a) mean_k f_k(s)^2,      u = 1 + how often the visit was drawn,

and are drawn in proportion to it, without importance weights. RMSProp: momentum 0.9, eps 1e-4 inside the root, decay 0.9 (chosen here).

Departures. A visit is an arrival in ``next_obs``: the observation that an episode starts from is not counted (the paper stores every
state acted in, and the last). Visits older than the last ``capacity`` are forgotten, so N is the number of visits among those; the paper's
buffers mostly hold the whole run. The prior's moments start with random steps (``warmup``), which are visits as well, and no reward is
held back until then. A batch of steps brings ``updates_per_batch`` updates, where the paper makes one per one or four steps, so the learning
rate is the largest of the paper's. Draws are stratified. Dense layers are ReLU, [128, 128]; the paper's are leaky ReLU, [400, 300]. The
whole observation is counted, not the last frame of a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces

from agents.networks import dummy, encoder_kind
from agents.priorities import set_priorities
from envs.base import PyTree, Spec, foreign_code
from envs.builder import FLAG, FRACTION, POSITIVE, Choice, Integer, Optional, Refusal, Sizes, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.hash_table import check_capacity
from exploration.laws.data import require
from exploration.laws.play import expect, reaching
from exploration.learning import ADAM, Embedder, float_space, to_floats
from exploration.normalizers import moments, update_moments
from exploration.priority_buffer import PriorityBuffer, add, draw, priority_buffer

# the moving square starts at 1, so that the first steps are small; the learning rate is applied apart
RMSPROP = optax.chain(optax.scale_by_rms(decay=0.9, eps=1e-4, initial_scale=1.0), optax.trace(decay=0.9))
OPTIMIZERS = {"rmsprop": RMSPROP, "adam": ADAM}


class Visit(NamedTuple):
    """What the buffer holds of a visit."""

    obs: PyTree  # as observed, uint8 stays uint8
    coins: jax.Array  # uint32[ceil(coins / 32)]; a bit each


class CFNState(NamedTuple):
    trained: PyTree  # parameters of g
    prior: PyTree  # parameters of h, never trained; () without
    moments: PyTree  # Moments of every output of h; () without
    optimizer: PyTree
    buffer: PriorityBuffer  # of Visit
    draws: jax.Array  # i32[capacity]; 1 + how often each visit was drawn


def flip(key: jax.Array, visits: int, coins: int) -> jax.Array:
    """Fresh coins for each visit, packed: uint32[visits, ceil(coins / 32)]."""
    return jax.random.bits(key, (visits, -(-coins // 32)), jnp.uint32)


def signs(packed: jax.Array, coins: int) -> jax.Array:
    """Packed coins uint32[..., words] -> f32[..., coins] of -1 and 1."""
    bits = (packed[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & jnp.uint32(1)
    return bits.reshape(*packed.shape[:-1], -1)[..., :coins].astype(jnp.float32) * 2.0 - 1.0


def inverse_count(flips: jax.Array) -> jax.Array:
    """Predicted coins f32[..., d] -> the estimate of 1/N f32[...]."""
    return jnp.mean(jnp.square(flips), axis=-1)


def without_last_layer(params: PyTree, hidden: Sequence[int]) -> PyTree:
    """The parameters of an ``Embedder`` with its last layer at zero."""
    dense = params["params"]["MLP_0"]
    last = f"Dense_{len(hidden)}"
    return {"params": {**params["params"], "MLP_0": {**dense, last: jax.tree.map(jnp.zeros_like, dense[last])}}}


@options(
    coins=Integer(1),
    hidden=Optional(Sizes()),
    capacity=Integer(1),
    batch_size=Integer(1),
    updates_per_batch=Integer(1),
    learning_rate=POSITIVE,
    optimizer=Choice(tuple(OPTIMIZERS)),
    prior=FLAG,
    zero_init=FLAG,
    prioritized=FLAG,
    priority_mix=FRACTION,
    scored=Choice(("batch", "step")),
    warmup=Integer(0),
)
def cfn(
    spec: Spec,
    *,
    coins: int = 20,
    hidden: Sequence[int] | None = None,
    capacity: int = 2**16,
    batch_size: int = 256,
    updates_per_batch: int = 32,
    learning_rate: float = 1e-3,
    optimizer: str = "rmsprop",
    prior: bool = True,
    zero_init: bool = False,
    prioritized: bool = True,
    priority_mix: float = 0.5,
    scored: str = "batch",
    warmup: int = 128,
) -> Bonus:
    """Coin flip network.

    Args:
      coins: number d of coins per visit.
      hidden: widths of the dense layers; None: none for pixels, as published, else [128, 128].
      capacity: visits remembered, a power of two.
      batch_size, updates_per_batch: visits per update, and updates for every batch that a runner learns from.
      optimizer: "rmsprop" as published, or "adam"; learning_rate is that of either.
      prior: add the normalised random prior.
      zero_init: start g at zero, so that the first f is the prior alone; the published g starts at random.
      prioritized: draw visits by priority; false: all alike.
      priority_mix: share a of the priority that falls with the number of draws; the rest is the estimate of 1/N.
      scored: "batch" pays what a state is worth when the batch is scored; "step" what it was worth when the step was made.
      warmup: random steps per lane that come before training.
    """
    check_capacity(capacity)
    if spec.lanes > capacity:
        raise Refusal(f"cfn.capacity={capacity} must hold a step of all lanes, of which there are {spec.lanes}")
    space = float_space(spec.observation)
    hidden = tuple((() if encoder_kind(space) == "cnn" else (128, 128)) if hidden is None else hidden)
    net, rule = Embedder(space, hidden, coins), OPTIMIZERS[optimizer]

    def normalized_prior(state, x):
        if not prior:
            return 0.0
        return jax.lax.stop_gradient((net.apply(state.prior, x) - state.moments.mean) / jnp.sqrt(state.moments.var + 1e-4))

    def paid(state, next_obs):
        x = to_floats(spec.observation, next_obs)
        return jax.lax.stop_gradient(jnp.sqrt(inverse_count(net.apply(state.trained, x) + normalized_prior(state, x))))

    def init(key):
        trained_key, prior_key = jax.random.split(key)
        trained, example = net.init(trained_key, dummy(space)), dummy(space)
        trained = without_last_layer(trained, hidden) if zero_init else trained
        buffer = priority_buffer(Visit(dummy(spec.observation, lead=()), flip(key, 1, coins)[0]), capacity)
        fixed = (net.init(prior_key, example), moments(jnp.zeros((coins,)))) if prior else ((), ())
        return CFNState(trained, *fixed, rule.init(trained), buffer, jnp.zeros((capacity,), jnp.int32))

    def observe(state, key, transition):
        if prior:
            seen = net.apply(state.prior, to_floats(spec.observation, transition.next_obs))
            state = state._replace(moments=update_moments(state.moments, seen))
        notes = {"coin_bonus": paid(state, transition.next_obs)} if scored == "step" else {}
        buffer, places = add(state.buffer, Visit(transition.next_obs, flip(key, spec.lanes, coins)))
        return state._replace(buffer=buffer, draws=state.draws.at[places].set(1)), notes

    def score(state, transition):
        return transition.annotations["coin_bonus"] if scored == "step" else paid(state, transition.next_obs)

    def loss(trained, x, fixed, wanted):
        flips = net.apply(trained, x) + fixed
        return jnp.mean(jnp.square(flips - wanted)), inverse_count(flips)

    def update(state, key, inputs):
        """Learns from the buffer; what the runner learns from does not matter."""
        something = state.buffer.size > 0

        def one(carry, key):
            trained, moving, priority, draws = carry
            places = draw(state.buffer._replace(priority=priority), key, batch_size)
            visit = jax.tree.map(lambda items: items[places], state.buffer.items)
            x = to_floats(spec.observation, visit.obs)
            (error, inverse), grads = jax.value_and_grad(loss, has_aux=True)(trained, x, normalized_prior(state, x), signs(visit.coins, coins))
            with foreign_code():
                changes, moving = rule.update(grads, moving)
            rate = jnp.where(something, learning_rate, 0.0)
            trained = jax.tree.map(lambda p, change: p - rate * change, trained, changes)
            if prioritized:
                draws = draws.at[places].add(jnp.where(something, 1, 0))
                new = priority_mix / draws[places].astype(jnp.float32) + (1.0 - priority_mix) * inverse
                priority = set_priorities(priority, places, jnp.where(something, new, 0.0))
            return (trained, moving, priority, draws), (error, jnp.mean(inverse))

        carry = (state.trained, state.optimizer, state.buffer.priority, state.draws)
        (trained, moving, priority, draws), (errors, inverses) = jax.lax.scan(one, carry, jax.random.split(key, updates_per_batch))
        state = state._replace(trained=trained, optimizer=moving, buffer=state.buffer._replace(priority=priority), draws=draws)
        visits = state.buffer.size.astype(jnp.float32)
        return state, {"coin_loss": jnp.mean(errors), "inverse_count": jnp.mean(inverses), "visits_kept": visits}

    step = scored == "step"
    return bonus(
        init=init,
        observe=observe,
        score=score,
        update=update,
        info=BonusInfo(
            needs=() if step else ("next_obs",),
            learns_from=("next_obs",) if step else (),
            stores=("coin_bonus",) if step else (),
            scored=scored,
            warmup=warmup,
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------


def tabular(key: jax.Array, visits: int, coins: int, states: int = 2000) -> np.ndarray:
    """What a perfect regression estimates 1/N as, for ``states`` states of ``visits`` visits each: f32[states]."""
    means = jnp.mean(signs(flip(key, states * visits, coins), coins).reshape(states, visits, coins), axis=1)
    return np.asarray(inverse_count(means))


def _mean_coins_count() -> str:
    visits = (1, 2, 3, 5, 10, 100)
    found = [tabular(jax.random.PRNGKey(n), n, 20).mean() for n in visits]
    return expect(found, [1 / n for n in visits], rtol=0.03)


def _the_deviation_is_that_of_the_theory() -> str:
    found = [tabular(jax.random.PRNGKey(n), n, d).std() * n for n, d in ((2, 20), (10, 20), (10, 100))]
    return expect(found, [np.sqrt(2 * (1 - 1 / n) / d) for n, d in ((2, 20), (10, 20), (10, 100))], rtol=0.05)


def _one_visit_counts_one() -> str:
    once = tabular(jax.random.PRNGKey(0), 1, 20, states=100)
    require((once == 1.0).all(), f"a single visit is estimated as {once.min()} to {once.max()}")
    return "1 exactly, for 100 states"


def _names_of_coins_do_not_matter() -> str:
    means = jnp.mean(signs(flip(jax.random.PRNGKey(0), 3, 20), 20), axis=0)
    turned, shuffled = -means, jax.random.permutation(jax.random.PRNGKey(1), means)
    return expect([inverse_count(x) for x in (turned, shuffled)], [inverse_count(means)] * 2, rtol=1e-6)


def _the_prior_starts_at_one() -> str:
    probes = jax.random.normal(jax.random.PRNGKey(0), (512, 6))
    world = Spec(spaces.Box(-np.inf, np.inf, (6,), np.float32), spaces.Discrete(2), "probes", lanes=512)
    made, steps = cfn(world, hidden=(32,), capacity=512, zero_init=True), reaching(probes)
    state, _ = made.observe(made.init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2), steps)  # exact moments
    return expect(jnp.mean(jnp.square(made.score(state, steps))), 1.0, rtol=1e-3)


KNOWN_ANSWERS = (
    ("mean coins of 1, 2, 3, 5, 10, 100 visits have mean square 1, .5, .333, .2, .1, .01", _mean_coins_count),
    ("n times their deviation is sqrt(2 (1 - 1/n) / d): .224, .3, .134 for (n, d) = (2, 20), (10, 20), (10, 100)", _the_deviation_is_that_of_the_theory),
    ("one visit counts 1, exactly", _one_visit_counts_one),
    ("turning all coins, or another order of them, changes nothing", _names_of_coins_do_not_matter),
    ("with g at zero and exact moments the mean square of the first bonuses is 1", _the_prior_starts_at_one),
)
