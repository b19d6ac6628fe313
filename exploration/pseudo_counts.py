"""Pseudo-counts (Bellemare et al. 2016, arXiv 1606.01868): visits that a density model stands for, from how much one visit raises the density.

With rho the density of x without this visit and rho' with it,

    N = rho (1 - rho') / (rho' - rho),      b(s') = 1 / sqrt(N + offset)

which is the exact number of visits before this one where rho is their share (rho = n/t, rho' = (n+1)/(t+1) give N = n). Offset 1 counts this visit
in, so that what is unlike all seen pays 1. The other form, of the papers with PixelCNN, reads the same quantity off the prediction gain:

    N = 1 / (exp(c t^{-1/2} max(log rho' - log rho, 0)) - 1),       t visits so far

The density is modest: a picture of symbols, read in raster order, where each symbol is predicted at its own position from the
``neighbours`` read before it: the channels of its cell, then left, above, above left. Counts of depth d see the first d of them, and fall back on
depth d - 1 as a Dirichlet prior of weight ``smoothing``; below depth 0 all symbols are alike:

    p_d(x | context) = (n_d(context, x) + smoothing p_{d-1}(x)) / (n_d(context) + smoothing),      rho = product over positions of p_{neighbours}

so the density of what is visited always rises. It is a simple relative of CTS, without its mixing over depths: the deepest is always used.
Contexts are hashed into ``rows`` rows of counts; two that meet share one, which blurs the density but leaves it one. Every visit is counted
exactly once, when it is observed; lanes that arrive at once are all counted, and each is paid as if its own visit were the last.

====================  =============================================================================================
observation           symbols
====================  =============================================================================================
at least 36 x 36 px   grey (of other than three channels the last one: the newest of a stack), ``size`` x ``size``, ``levels``
whole numbers         themselves, or ``levels`` equal ranges where they have more values
floats                ``levels`` equal ranges between their bounds, or of x / (1 + |x|) where there are none
Discrete              themselves
====================  =============================================================================================

What is not a picture is a row of symbols. For one Discrete symbol N is the visits before + smoothing / values. Departures from the papers: a
modest density in place of CTS or PixelCNN, smaller pictures, and an offset of 1. The exact form takes a density that learns fast: where little is
predictable (noise), the gains of many symbols multiply, and N stays near 0 for many visits; form="gain" dampens that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.networks import encoder_kind
from envs.base import Spec
from envs.builder import POSITIVE, Choice, Integer, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.hash_table import check_capacity, hash_observation
from exploration.laws.play import expect, play, reaching
from exploration.learning import to_floats


class PseudoCountState(NamedTuple):
    own: jax.Array  # i32[positions, symbols]; counts of depth 0
    rows: jax.Array  # i32[rows, symbols]; counts of all other depths, by hashed context
    visits: jax.Array  # i32[]; so far


class Rise(NamedTuple):
    """A visit's density: log rho' and log rho' - log rho, f32[...]."""

    log_after: jax.Array
    gain: jax.Array


def exact_form(rise: Rise, visits: jax.Array) -> jax.Array:
    """rho (1 - rho') / (rho' - rho); ``visits`` where the density rose by less than float32 can tell."""
    growth = jnp.expm1(rise.gain)
    told = growth > 1e-30
    return jnp.where(told, -jnp.expm1(rise.log_after) / jnp.where(told, growth, 1.0), visits)


def gain_form(rise: Rise, visits: jax.Array, gain_scale: jax.Array | float) -> jax.Array:
    """1 / (exp(c t^{-1/2} max(log rho' - log rho, 0)) - 1)."""
    growth = jnp.expm1(gain_scale * jnp.maximum(rise.gain, 0.0) / jnp.sqrt(jnp.maximum(visits, 1.0)))
    told = growth > 1e-30
    return jnp.where(told, 1.0 / jnp.where(told, growth, 1.0), visits)


# --- symbols -----------------------------------------------------------------------------------------------------------


def parts(space: spaces.Space) -> dict[str, spaces.Space]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def num_symbols(space: spaces.Space, levels: int) -> int:
    """How many values one symbol of an inner space has."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if np.issubdtype(space.dtype, np.integer) and encoder_kind(space) != "cnn":
        return min(levels, int(np.max(space.high.astype(np.int64) - space.low.astype(np.int64))) + 1)
    return levels


def picture_shape(space: spaces.Space, size: int) -> tuple[int, int, int]:
    """(height, width, channels) of the symbols of an inner space; what is not a picture is a row."""
    shape = space.shape or ()
    if len(shape) != 3:
        return 1, math.prod(shape), 1
    return (min(size, shape[0]), min(size, shape[1]), 1) if encoder_kind(space) == "cnn" else shape


def symbols(space: spaces.Space, obs: jax.Array, size: int, levels: int) -> jax.Array:
    """Observations of an inner space, of any leading shape, as i32[..., positions] in raster order."""
    if isinstance(space, spaces.Discrete):
        return (obs - int(space.start)).astype(jnp.int32)[..., None]
    lead = obs.shape[: obs.ndim - len(space.shape)]
    low, high = (x.astype(np.float64) for x in (space.low, space.high))
    if encoder_kind(space) == "cnn":
        grey = to_floats(space, obs)
        grey = jnp.mean(grey, axis=-1) if space.shape[-1] == 3 else grey[..., -1]
        part = jax.image.resize(grey, (*lead, *picture_shape(space, size)[:2]), "linear")  # with antialiasing: local means
    elif np.issubdtype(space.dtype, np.integer):
        if num_symbols(space, levels) == np.max(high - low) + 1:
            return (obs.astype(jnp.int32) - jnp.asarray(low, jnp.int32)).reshape(*lead, -1)
        part = (obs.astype(jnp.float32) - jnp.asarray(low, jnp.float32)) / jnp.asarray(np.maximum(high - low, 1.0), jnp.float32)
    else:
        bounded = (high - low < 1e6) & (high > low)  # wider bounds say nothing: CartPole's velocities lie within 3.4e38
        offset, width = (jnp.asarray(np.where(bounded, x, y), jnp.float32) for x, y in ((low, 0.0), (high - low, 1.0)))
        part = jnp.where(jnp.asarray(bounded), (obs - offset) / width, 0.5 + 0.5 * obs / (1.0 + jnp.abs(obs)))
    return jnp.clip((part * levels).astype(jnp.int32), 0, levels - 1).reshape(*lead, -1)


def neighbourhood(shape: tuple[int, int, int], neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """For every position of a picture, what is read before it: (positions i32[positions, neighbours], whether there is one)."""
    height, width, channels = shape
    steps = [(0, 0, -n) for n in range(1, channels)] + [(0, -1, 0), (-1, 0, 0), (-1, -1, 0)]
    places, there = np.zeros((2, height * width * channels, neighbours), np.int32)
    for n, (y, x, c) in enumerate(np.ndindex(shape)):
        near = [(y + dy, x + dx, c + dc) for dy, dx, dc in steps]
        inside = [(row * width + column) * channels + channel for row, column, channel in near if min(row, column, channel) >= 0]
        places[n, : len(inside)] = inside[:neighbours]
        there[n, : len(inside)] = 1
    return places, there.astype(bool)


# --- the density -------------------------------------------------------------------------------------------------------


def rise(found: jax.Array, seen: jax.Array, there: np.ndarray, smoothing: jax.Array | float, values: int) -> Rise:
    """The density of a visit that is counted already, and of all but it.

    found, seen: i32[..., positions, 1 + neighbours]; how often the symbol, and anything, was found in the contexts of depth 0, 1, ...
    there: bool[positions, neighbours]; a depth that is not there is passed over.
    """
    first = (found == 0).astype(jnp.int32)  # what was never visited counts as having its first
    others, seen, found = (x.astype(jnp.float32) for x in (seen - found, seen + first, found + first))
    p, rest = jnp.full(found.shape[:-1], 1.0 / values), jnp.full(found.shape[:-1], 1.0 - 1.0 / values)  # without the visit: p, and 1 - p
    rest_after, rises = rest, jnp.zeros_like(p)  # with it: 1 - p', and p' - p; none is made by subtraction, so they stay exact when small
    for depth in range(found.shape[-1]):
        n, other, before, after = found[..., depth], others[..., depth], seen[..., depth] - 1.0 + smoothing, seen[..., depth] + smoothing
        deeper = (n - 1.0 + smoothing * p) / before, (other + smoothing * rest) / before, (other + smoothing * rest_after) / after
        deeper += ((deeper[1] + smoothing * rises) / after,)
        used = True if depth == 0 else jnp.asarray(there[:, depth - 1])
        p, rest, rest_after, rises = (jnp.where(used, x, y) for x, y in zip(deeper, (p, rest, rest_after, rises), strict=True))
    return Rise(jnp.sum(jnp.log1p(-rest_after), axis=-1), jnp.sum(jnp.log1p(rises / p), axis=-1))


@options(
    size=Integer(1),
    levels=Integer(2),
    neighbours=Integer(0, 16),
    rows=Integer(1),
    smoothing=POSITIVE,
    form=Choice(("exact", "gain")),
    gain_scale=POSITIVE,
    offset=POSITIVE,
    scored=Choice(("step", "batch")),
)
def pseudo_counts(
    spec: Spec,
    *,
    size: int = 21,
    levels: int = 16,
    neighbours: int = 3,
    rows: int = 2**16,
    smoothing: float = 0.1,
    form: str = "exact",
    gain_scale: float = 0.1,
    offset: float = 1.0,
    scored: str = "step",
) -> Bonus:
    """1/sqrt of the visits that a density model stands for.

    Args:
      size: pixels are reduced to pictures of this height and width.
      levels: values of a symbol made of pixels, floats, or whole numbers with more values.
      neighbours: symbols read before that each is predicted from; 0: every position by itself.
      rows: rows of counts for all contexts, a power of two.
      smoothing: weight of the shallower contexts in each prediction.
      form: "exact", or "gain": the form of the papers with PixelCNN, with c = gain_scale.
      offset: added to N; at 1 the bonus of something new is 1.
      scored: "step" pays what the state was worth when it was visited; "batch" what it is worth when the batch is scored.
    """
    check_capacity(rows)
    inner = parts(spec.observation)
    values = max(2, *(num_symbols(space, levels) for space in inner.values()))
    shapes = [picture_shape(space, size) for space in inner.values()]
    starts = np.cumsum([0, *map(math.prod, shapes)])
    near = [neighbourhood(shape, neighbours) for shape in shapes]
    places = np.concatenate([found + start for (found, _), start in zip(near, starts, strict=False)])
    there = np.concatenate([found for _, found in near])
    positions, shown = np.arange(starts[-1]), np.tril(np.ones((neighbours, neighbours), bool))

    def read(next_obs):
        """(symbols i32[..., positions], rows of their contexts i32[..., positions, neighbours])."""
        picture = [symbols(space, next_obs[name] if name else next_obs, size, levels) for name, space in inner.items()]
        picture = jnp.concatenate(picture, axis=-1)
        if not neighbours:
            return picture, jnp.zeros((*picture.shape, 0), jnp.int32)
        context = jnp.where(jnp.asarray(shown), picture[..., places][..., None, :], -1)  # depth d sees the first d
        position = jnp.broadcast_to(jnp.asarray(positions, jnp.int32)[:, None, None], (*context.shape[:-1], 1))
        hashed = hash_observation(jnp.concatenate([position, context], axis=-1), context.ndim - 1)[..., 0]
        return picture, (hashed & jnp.uint32(rows - 1)).astype(jnp.int32)

    def paid(state, picture, context):
        own = state.own[positions, picture][..., None]
        of_rows = state.rows[context]
        found = jnp.concatenate([own, jnp.take_along_axis(of_rows, picture[..., None, None], axis=-1)[..., 0]], axis=-1)
        seen = jnp.concatenate([jnp.broadcast_to(state.visits, own.shape), jnp.sum(of_rows, axis=-1, dtype=jnp.int32)], axis=-1)
        visits = jnp.maximum(state.visits, 1).astype(jnp.float32)
        up = rise(found, seen, there, smoothing, values)
        count = exact_form(up, visits) if form == "exact" else gain_form(up, visits, gain_scale)
        return jax.lax.stop_gradient(1.0 / jnp.sqrt(count + offset))

    def init(key):
        return PseudoCountState(jnp.zeros((len(positions), values), jnp.int32), jnp.zeros((rows, values), jnp.int32), jnp.zeros((), jnp.int32))

    def observe(state, key, transition):
        picture, context = read(transition.next_obs)
        used = jnp.where(jnp.asarray(there), context, rows)
        state = PseudoCountState(
            state.own.at[positions, picture].add(1), state.rows.at[used, picture[..., None]].add(1, mode="drop"), state.visits + spec.lanes
        )
        return state, {"pseudo_count_bonus": paid(state, picture, context)} if step else {}

    def score(state, transition):
        return transition.annotations["pseudo_count_bonus"] if step else paid(state, *read(transition.next_obs))

    def update(state, key, inputs):
        return state, {"rows_in_use": jnp.sum(jnp.any(state.rows > 0, axis=-1), dtype=jnp.int32) / rows}

    step = scored == "step"
    return bonus(
        init=init,
        observe=observe,
        score=score,
        update=update,
        info=BonusInfo(
            needs=() if step else ("next_obs",),
            learns_from=("next_obs",) if step else (),
            stores=("pseudo_count_bonus",) if step else (),
            scored=scored,
            fades=form == "gain" or len(positions) == 1,  # of a picture that little predicts, the exact N stays near 0 for many visits
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------


def _shares_give_their_counts() -> str:
    n, t = jnp.asarray([1.0, 2.0, 10.0, 500.0]), 1000.0
    after = jnp.log((n + 1) / (t + 1))
    return expect(exact_form(Rise(after, after - jnp.log(n / t)), t), n, rtol=1e-3)


def _a_gain_of_log_two_is_one_visit() -> str:
    visits = jnp.asarray([1.0, 4.0, 100.0])
    gain = jnp.log(2.0) * jnp.sqrt(visits) / 0.1
    return expect(gain_form(Rise(-gain, gain), visits, 0.1), [1.0, 1.0, 1.0], rtol=1e-4)


def _one_symbol_is_counted_exactly() -> str:
    states = jnp.asarray([[3], [3], [0], [3], [0], [3]])
    world = Spec(spaces.Discrete(4), spaces.Discrete(2), "symbol")
    steps = jax.tree.map(lambda x: x[:, None], reaching(states[:, 0]))
    _, paid = play(pseudo_counts(world, smoothing=0.4, rows=16), steps)
    return expect(1 / np.square(paid[:, 0]) - 1, np.array([0, 1, 0, 2, 1, 3]) + 0.4 / 4, rtol=1e-3)


KNOWN_ANSWERS = (
    ("densities n/t and (n+1)/(t+1) stand for n visits: 1, 2, 10, 500", _shares_give_their_counts),
    ("an exponent of log 2 in the form of PixelCNN is one visit", _a_gain_of_log_two_is_one_visit),
    ("one symbol of four, smoothing .4: N is the number of visits before, plus .1", _one_symbol_is_counted_exactly),
)
