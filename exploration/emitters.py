"""Emitters: small local optimisers that are born at a rewarding policy (SERENE, arXiv 2102.03140, its code).

``elitist``: a population of m; each member has two children, x + N(0, sigma^2), and the m best of parents and children stay. ``cma_es``: m samples of a CMA-ES.
All share one protocol, so who owns emitters need not know which they are:

    begin(ancestor, sigma) -> state; ask(state, key) -> genomes [batch], wanted [batch]; tell(state, genomes, fitness) -> state;
    values(state) -> fitness [m], of the population that was told last; exhausted(state): it wants to stop by itself
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import Key, PyTree
from exploration import cma_es
from exploration.genomes import clipped, gaussian


class Emitter(NamedTuple):
    batch: int  # genomes that it asks for
    begin: Callable[[jax.Array, jax.Array], PyTree]
    ask: Callable[[PyTree, Key], tuple[jax.Array, jax.Array]]
    tell: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    values: Callable[[PyTree], jax.Array]
    exhausted: Callable[[PyTree], jax.Array]


class ElitistState(NamedTuple):
    ancestor: jax.Array  # f32[G]
    sigma: jax.Array  # f32[]
    genomes: jax.Array  # f32[m, G]
    fitness: jax.Array  # f32[m]
    begun: jax.Array  # bool[]; its first population was tried


def elitist(space: spaces.Box, members: int) -> Emitter:
    """(m + 2 m) elitism."""

    def begin(ancestor, sigma):
        return ElitistState(ancestor, sigma, jnp.broadcast_to(ancestor, (members, *ancestor.shape)), jnp.full(members, -jnp.inf), jnp.bool_(False))

    def ask(state, key):
        children = gaussian(key, jnp.repeat(state.genomes, 2, axis=0), state.sigma, space)
        return children, state.begun | (jnp.arange(2 * members) < members)

    def tell(state, genomes, fitness):
        first = ElitistState(state.ancestor, state.sigma, genomes[:members], fitness[:members], jnp.bool_(True))
        everyone, scores = jnp.concatenate([state.genomes, genomes]), jnp.concatenate([state.fitness, fitness])
        best = jax.lax.top_k(scores, members)[1]
        later = state._replace(genomes=everyone[best], fitness=scores[best])
        return jax.tree.map(lambda a, b: jnp.where(state.begun, a, b), later, first)

    return Emitter(2 * members, begin, ask, tell, lambda state: state.fitness, lambda state: jnp.bool_(False))


class CMAEmitterState(NamedTuple):
    search: cma_es.CMAState
    fitness: jax.Array  # f32[m]


def cma(space: spaces.Box, members: int) -> Emitter:
    """Samples of a CMA-ES, clipped to the box."""
    c = cma_es.constants(space.shape[0], members)

    def begin(ancestor, sigma):
        return CMAEmitterState(cma_es.begin(ancestor, sigma), jnp.full(members, -jnp.inf))

    def ask(state, key):
        return clipped(cma_es.sample(state.search, key, members), space), jnp.ones(members, bool)

    def tell(state, genomes, fitness):
        return CMAEmitterState(cma_es.told(state.search, genomes, jnp.argsort(-fitness), c), fitness)

    return Emitter(members, begin, ask, tell, lambda state: state.fitness, lambda state: cma_es.exhausted(state.search))


EMITTERS = {"elitist": elitist, "cma_es": cma}


class Record(NamedTuple):
    """What an emitter's populations were worth, and whether that still grows."""

    early: jax.Array  # f32[3, m]; of its first three populations
    ring: jax.Array  # f32[window, m]; of the last ones
    count: jax.Array  # i32[]


def fresh_record(members: int, window: int) -> Record:
    return Record(jnp.zeros((3, members), jnp.float32), jnp.zeros((window, members), jnp.float32), jnp.int32(0))


def recorded(record: Record, values: jax.Array) -> Record:
    """With the population f32[m] that was tried last; what could not be tried counts 0."""
    values = jnp.where(jnp.isfinite(values), values, 0.0)
    early = record.early.at[record.count].set(values, mode="drop")
    return Record(early, record.ring.at[record.count % record.ring.shape[0]].set(values), record.count + 1)


def improvement(record: Record) -> jax.Array:
    """max(0, mean of the last three populations - mean of the first three), f32[]; of at least three populations."""
    window = record.ring.shape[0]
    last = record.ring[(record.count - 1 - jnp.arange(3)) % window]
    return jnp.maximum(0.0, jnp.mean(last) - jnp.mean(record.early))


def stagnant(record: Record) -> jax.Array:
    """bool[]: within the last ``window`` populations the first 20 are not beaten by the last 20, in median or in maximum."""
    window = record.ring.shape[0]
    ordered = record.ring[(record.count + jnp.arange(window)) % window]  # the oldest first
    first, last = ordered[:20], ordered[-20:]
    flat = (jnp.median(first) >= jnp.median(last)) | (jnp.max(first) >= jnp.max(last))
    return (record.count > window) & flat


def stagnation_window(genes: int, members: int) -> int:
    """20 G / m + 120, the published length."""
    return int(20 * genes / members + 120)
