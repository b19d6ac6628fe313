"""SimHash counts (Tang et al. 2017, arXiv 1611.04717): states that look alike share a count.

    code(s) = sign(A g(s)), A ~ N(0, 1)^{bits x D} fixed,    b(s') = 1 / sqrt(N(code(s')))

g is the observation as flat floats. Two observations at an angle theta agree in each bit with probability 1 - theta / pi, so ``bits`` sets how
finely states are told apart: the expected number of different bits is bits * theta / pi. N counts every visit of every lane, this step's
included: the n-th visit of one lane pays 1/sqrt(n).

Where codes are counted is the ``table``:

===========  ==============================================================================================================
``primes``   as published: six arrays, whose sizes are the largest primes below ``capacity`` (999931 to 999983); the code is a number whose
             remainder is the place, and N is the least of the six counts, too large only where codes share places in all six
``exact``    a hash table of at least ``capacity`` places (``exploration/hash_table.py``); codes that find no place are worth 0
===========  ==============================================================================================================

Departures: no learnt code of pixels (the paper's autoencoder), so on pictures g is the pixels. Only the direction of g counts: where
observations differ in length alone, they share a code.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Spec
from envs.builder import LARGEST_WHOLE, Choice, Integer, Refusal, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.counts import inverse_root
from exploration.hash_table import HashTable, hash_observation, hash_table, insert, lookup
from exploration.laws.data import require
from exploration.laws.play import arrivals, expect, line, play
from exploration.learning import float_space, to_floats
from exploration.normalizers import lead_ndim

TABLES = 6


class SimHashState(NamedTuple):
    directions: jax.Array  # f32[D, bits]; never changes
    table: HashTable | tuple[()]  # () with table="primes"
    visits: jax.Array  # uint32[6, largest prime], or uint32[places] beside a table


def code(directions: jax.Array, flat: jax.Array) -> jax.Array:
    """Floats f32[..., D] -> their code bool[..., bits]."""
    return flat @ directions > 0


def primes_below(limit: int) -> tuple[int, ...]:
    """The six largest primes below ``limit``, which is at least 14."""
    candidates = (n for n in range(limit - 1, 1, -1) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))
    return tuple(sorted(itertools.islice(candidates, TABLES)))


def remainders(code: jax.Array, primes: tuple[int, ...]) -> jax.Array:
    """The code as a binary number, lowest bit first, modulo each prime: bool[..., bits] -> i32[..., primes]."""
    powers = np.array([[pow(2, bit, prime) for prime in primes] for bit in range(code.shape[-1])], np.int32)
    return (code.astype(jnp.int32) @ jnp.asarray(powers)) % jnp.asarray(primes, jnp.int32)


@options(bits=Integer(1), table=Choice(("primes", "exact")), capacity=Integer(14, 2**30), scored=Choice(("step", "batch")))
def simhash(spec: Spec, *, bits: int = 128, table: str = "primes", capacity: int = 10**6, scored: str = "step") -> Bonus:
    """1/sqrt of the visits of a state's code.

    Args:
      bits: number k of random projections; more bits, finer states.
      table: where codes are counted; see the module docstring.
      capacity: places of each array, or of the exact table. Six arrays of a million take 24 MB for every member of a run.
      scored: "step" pays what the state was worth when it was visited; "batch" what it is worth when the batch is scored.
    """
    if bits * capacity > LARGEST_WHOLE:
        raise Refusal(f"simhash.bits={bits} times simhash.capacity={capacity} must stay below 2^31, where sums of remainders end")
    primes, places = primes_below(capacity), 1 << (capacity - 1).bit_length()
    inner = float_space(spec.observation)
    size = sum(math.prod(space.shape) for space in (inner.spaces.values() if isinstance(inner, spaces.Dict) else [inner]))

    def codes(state, next_obs):
        lead = lead_ndim(spec.observation, next_obs)
        floats = jax.tree.leaves(to_floats(spec.observation, next_obs))
        return code(state.directions, jnp.concatenate([x.reshape(*x.shape[:lead], -1) for x in floats], axis=-1))

    def by_primes(state, found):
        return jnp.arange(TABLES), remainders(found, primes)

    def look_by_primes(state, found):
        visits = jnp.min(state.visits[by_primes(state, found)], axis=-1)
        return jnp.minimum(visits, jnp.uint32(2**31 - 1)).astype(jnp.int32)

    def visit_by_primes(state, found):
        return state._replace(visits=state.visits.at[by_primes(state, found)].add(jnp.uint32(1)))

    def look_exactly(state, found):
        slots = lookup(state.table, hash_observation(found, found.ndim - 1))
        absent = jnp.where(state.table.dropped > 0, -1, 0)  # never visited, unless codes were dropped: then nobody knows
        return jnp.where(slots < 0, absent, jnp.minimum(state.visits[slots], jnp.uint32(2**31 - 1)).astype(jnp.int32))

    def visit_exactly(state, found):
        grown, slots, _ = insert(state.table, hash_observation(found, found.ndim - 1), spec.axis)
        visits = state.visits.at[jnp.where(slots < 0, places, slots)].add(jnp.uint32(1), mode="drop")
        return state._replace(table=grown, visits=visits)

    exact = table == "exact"
    look, visit = (look_exactly, visit_exactly) if exact else (look_by_primes, visit_by_primes)

    def init(key):
        counted = (hash_table(places), jnp.zeros((places,), jnp.uint32)) if exact else ((), jnp.zeros((TABLES, primes[-1]), jnp.uint32))
        return SimHashState(jax.random.normal(key, (size, bits)), *counted)

    def observe(state, key, transition):
        found = codes(state, transition.next_obs)
        state = visit(state, found)
        return state, {"simhash_bonus": inverse_root(look(state, found))} if scored == "step" else {}

    def score(state, transition):
        if scored == "step":
            return transition.annotations["simhash_bonus"]
        return inverse_root(look(state, codes(state, transition.next_obs)))

    def update(state, key, inputs):
        if exact:
            return state, {"distinct_codes": state.table.size.astype(jnp.float32), "dropped": state.table.dropped.astype(jnp.float32)}
        return state, {"distinct_codes": jnp.max(jnp.sum(state.visits > 0, axis=1, dtype=jnp.int32)).astype(jnp.float32)}

    step = scored == "step"
    return bonus(
        init=init,
        observe=observe,
        score=score,
        update=update,
        info=BonusInfo(
            needs=() if step else ("next_obs",),
            learns_from=("next_obs",) if step else (),
            stores=("simhash_bonus",) if step else (),
            scored=scored,
        ),
    )


# --- known answers -----------------------------------------------------------------------------------------------------


def _visits_pay_one_over_root_n() -> str:
    paid = [play(simhash(line(), table=table), arrivals([[3]] * 5))[1][:, 0] for table in ("primes", "exact")]
    return [expect(found, 1 / np.sqrt(np.arange(1, 6)), rtol=1e-6) for found in paid][0]


def _bits_agree_by_the_angle() -> str:
    directions, found = jax.random.normal(jax.random.PRNGKey(0), (3, 2**17)), []
    for degrees in (0, 30, 60, 90, 180):
        angle = np.radians(degrees)
        other = jnp.asarray([np.cos(angle), np.sin(angle), 0.0], jnp.float32)
        found.append(float(jnp.mean(code(directions, jnp.asarray([1.0, 0.0, 0.0])) == code(directions, other))))
    wanted = [1, 5 / 6, 2 / 3, 1 / 2, 0]
    told = ", ".join(f"{x:.4f}" for x in found)
    require(np.allclose(found, wanted, atol=0.006), f"agreement is {told}, and should be {wanted}")
    return told


def _remainders_are_those_of_the_number() -> str:
    bits = np.random.default_rng(0).integers(2, size=128).astype(bool)
    number = sum(1 << n for n in range(128) if bits[n])
    primes = primes_below(10**6)
    require(primes == (999931, 999953, 999959, 999961, 999979, 999983), f"the six largest primes below a million are not {primes}")
    return expect(remainders(jnp.asarray(bits), primes), [number % prime for prime in primes], rtol=0.0)


KNOWN_ANSWERS = (
    ("the first five visits of a state pay 1/sqrt(n), in both tables", _visits_pay_one_over_root_n),
    ("bits agree with probability 1 - theta/pi: 1, .8333, .6667, .5, 0 at 0, 30, 60, 90, 180 degrees", _bits_agree_by_the_angle),
    ("the places of a 128-bit code are its remainders by six primes", _remainders_are_those_of_the_number),
)
