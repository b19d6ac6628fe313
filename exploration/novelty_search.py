"""Novelty search and its relatives: survivors are those whose behaviour is far from everything seen (Lehman and Stanley 2011), as in SERENE's and STAX's code.

1. P genomes ~ N(0, 1) are tried. 2. Every generation each of the P has ``offspring`` children, x + N(0, sigma^2), which are tried. 3. The reference set is
population, children and archive; novelty is the mean distance to the k nearest others in it (``exploration/novelty.py``). 4. Some children enter the archive,
which only grows: ``add=random`` (``added`` of them), ``best`` (the ``added`` highest of the first objective), ``threshold`` (all whose novelty with respect to
the archive alone exceeds ``threshold``). 5. The P best of population and children survive, by ``objectives``:

    [novelty]              novelty search
    [novelty, fitness]     by non-dominated fronts and crowding: NSGA-II, as SERENE's baseline
    [novelty, competition] novelty search with local competition (Lehman and Stanley, GECCO 2011)

After g generations P + g P offspring policies have been tried, and with ``random`` the archive holds added * g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Key, Spec
from envs.builder import NON_NEGATIVE, Anything, Choice, Integer, Refusal, options
from exploration import genomes as made
from exploration.base import Elites, Population
from exploration.grid_archive import descriptor_box
from exploration.novelty import local_competition, novelty
from exploration.pareto import best

OBJECTIVES = ("novelty", "fitness", "competition")


class Individuals(NamedTuple):
    genomes: jax.Array  # f32[P, G]
    fitness: jax.Array  # f32[P]
    descriptor: jax.Array  # f32[P, d]
    valid: jax.Array  # bool[P]; False: there is nobody, or it could not be tried
    marked: jax.Array  # bool[P]; by whoever uses the search: children begin without, survivors keep it


class NoveltyState(NamedTuple):
    population: Individuals
    archive: Individuals  # with room for more; valid is False where it is empty
    size: jax.Array  # i32[]; of the archive
    started: jax.Array  # bool[]; the first population is in


class Generation(NamedTuple):
    """What a generation is made of; ``novelty_search`` is nothing else, SERENE does more."""

    batch: int
    nobody: Callable[[int], Individuals]
    init: Callable[[], NoveltyState]
    ask: Callable  # (state, key) -> (genomes f32[batch, G], wanted bool[batch])
    tell: Callable  # (state, key, genomes, Evaluation, other Individuals that count as seen, or None) -> (state, what happened)
    reference: Callable  # state -> (descriptors f32[P + archive, d], known bool[P + archive])
    full: Callable
    grow: Callable


def stored(individuals: Individuals, size: jax.Array, new: Individuals, enters: jax.Array) -> tuple[Individuals, jax.Array]:
    """(an archive with those of ``new`` that enter it, bool[Q], in their order; its size). Who finds no room is lost: grow it before."""
    room = individuals.fitness.shape[0]
    place = jnp.where(enters, size + jnp.cumsum(enters, dtype=jnp.int32) - 1, room)
    return jax.tree.map(lambda old, more: old.at[place].set(more, mode="drop"), individuals, new), size + jnp.sum(enters, dtype=jnp.int32)


def doubled(individuals: Individuals) -> Individuals:
    """With room for twice as many."""

    def more(x):
        return jnp.concatenate([x, jnp.full_like(x, -jnp.inf) if x.ndim == 1 and x.dtype == jnp.float32 else jnp.zeros_like(x)])

    return jax.tree.map(more, individuals)


@options(
    population=Integer(2, 2**16),
    offspring=Integer(1, 64),
    sigma=NON_NEGATIVE,
    neighbours=Integer(1, 1024),
    add=Choice(("random", "best", "threshold")),
    added=Integer(1, 2**16),
    threshold=NON_NEGATIVE,
    objectives=Anything(f"a list of {', '.join(OBJECTIVES)}"),
    initial=Choice(tuple(made.INITIAL)),
    capacity=Integer(1, 2**26),
)
def novelty_search(
    spec: Spec,
    *,
    population: int = 100,
    offspring: int = 2,
    sigma: float | jax.Array = 0.05,
    neighbours: int = 15,
    add: str = "random",
    added: int = 5,
    threshold: float | jax.Array = 0.01,
    objectives: Sequence[str] = ("novelty",),
    initial: str = "normal",
    capacity: int = 4096,
) -> Population:
    """The search.

    Args:
      population, offspring: P, and children of each.
      sigma: of the noise on every gene.
      neighbours: k.
      add, added, threshold: what enters the archive; see above.
      objectives: what survivors are chosen by; see above.
      initial: normal (N(0, 1), clipped to the genes' box) or uniform.
      capacity: individuals that the archive has room for at first; doubles when needed.
    """
    generation = generations(spec, population, offspring, sigma, neighbours, add, added, threshold, objectives, initial, capacity)

    def ask(state, key, phase):
        return state, *generation.ask(state, key)

    def tell(state, key, inputs):
        _, genomes, evaluation = inputs
        return generation.tell(state, key, genomes, evaluation, None)

    def elites(state):
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.archive, state.population)
        return Elites(both.genomes, both.fitness, both.descriptor, both.valid)

    def full(state):
        return {"archive": generation.full(state, 1)}

    def grow(state, what):
        return generation.grow(state)

    batch = generation.batch
    return Population({"offspring": batch}, batch, lambda key: generation.init(), ask, tell, elites, full=full, grow=grow)


def generations(
    spec: Spec,
    population: int,
    offspring: int,
    sigma: float | jax.Array,
    neighbours: int,
    add: str,
    added: int,
    threshold: float | jax.Array,
    objectives: Sequence[str],
    initial: str,
    capacity: int,
) -> Generation:
    """The parts of a generation; arguments are those of ``novelty_search``."""
    check(objectives, add, added, population * offspring)
    genes, box = made.genome_space(spec), descriptor_box(spec)
    batch = population * offspring
    most = batch if add == "threshold" else added

    def nobody(count):
        zeros, no = jnp.zeros((count, genes.shape[0]), jnp.float32), jnp.zeros(count, bool)
        return Individuals(zeros, jnp.full(count, -jnp.inf), jnp.zeros((count, box.shape[0]), jnp.float32), no, no)

    def init():
        return NoveltyState(nobody(population), nobody(max(capacity, most)), jnp.int32(0), jnp.bool_(False))

    def ask(state, key):
        fresh = made.INITIAL[initial](key, batch, genes)
        children = made.gaussian(key, jnp.repeat(state.population.genomes, offspring, axis=0), sigma, genes)
        return jnp.where(state.started, children, fresh), state.started | (jnp.arange(batch) < population)

    def scores(everyone: Individuals, points: jax.Array, known: jax.Array, fitness: jax.Array) -> jax.Array:
        """f32[everyone, objectives]; -inf for those that are not valid."""
        score = {
            "novelty": lambda: novelty(everyone.descriptor, points, known, neighbours, True),
            "fitness": lambda: everyone.fitness,
            "competition": lambda: local_competition(everyone.descriptor, everyone.fitness, points, fitness, known, neighbours).astype(jnp.float32),
        }
        return jnp.where(everyone.valid[:, None], jnp.stack([score[name]() for name in objectives], axis=-1), -jnp.inf)

    def entering(state, key: Key, children: Individuals, first: jax.Array) -> jax.Array:
        """bool[batch]: the children that enter the archive. ``first`` f32[batch]: their first objective."""
        if add == "threshold":
            alone = novelty(children.descriptor, state.archive.descriptor, state.archive.valid, neighbours, False)
            return children.valid & ((alone > threshold) | (state.size == 0))
        order = jax.random.uniform(key, (batch,)) if add == "random" else first
        chosen = jax.lax.top_k(jnp.where(children.valid, order, -jnp.inf), added)[1]
        return jnp.zeros(batch, bool).at[chosen].set(True) & children.valid

    def tell(state, key, genomes, evaluation, others):
        children = Individuals(genomes, evaluation.fitness, evaluation.descriptor, evaluation.valid, jnp.zeros(batch, bool))
        everyone = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.population, children)
        seen = [everyone, state.archive] if others is None else [everyone, state.archive, others]
        points, known, fitness = (jnp.concatenate([getattr(part, name) for part in seen]) for name in ("descriptor", "valid", "fitness"))
        judged = scores(everyone, points, known, fitness)
        archive, size = stored(state.archive, state.size, children, entering(state, key, children, judged[population:, 0]) & state.started)
        survivors = jax.tree.map(lambda x: x[best(judged, population)], everyone)
        valid = everyone.valid[:, None]
        means = jnp.sum(jnp.where(valid, judged, 0.0), axis=0) / jnp.maximum(jnp.sum(valid), 1)
        return NoveltyState(survivors, archive, size, state.started | jnp.any(children.valid)), dict(zip(objectives, means, strict=True))

    def reference(state):
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.population, state.archive)
        return both.descriptor, both.valid

    def full(state, times):
        """Whether ``times`` generations might find no room."""
        return state.size + times * most > state.archive.fitness.shape[0]

    def grow(state):
        return state._replace(archive=doubled(state.archive))

    return Generation(batch, nobody, init, ask, tell, reference, full, grow)


def check(objectives: Sequence[str], add: str, added: int, batch: int) -> None:
    """Raises Refusal for objectives that are not known, and more additions than there are children."""
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown or not objectives or isinstance(objectives, str):
        raise Refusal(f"exploration.objectives={objectives} must be a list of {', '.join(OBJECTIVES)}; try exploration.objectives=[novelty]")
    if add != "threshold" and added > batch:
        raise Refusal(f"exploration.added={added} is more than the {batch} children of a generation (population times offspring); give at most {batch}")
