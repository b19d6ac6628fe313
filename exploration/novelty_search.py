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

from envs.base import Key, PyTree, Spec
from envs.builder import NON_NEGATIVE, Anything, Choice, Integer, Refusal, options
from exploration import genomes as made
from exploration.base import Elites, Population
from exploration.descriptors import Describer, ground_truth
from exploration.grid_archive import descriptor_box
from exploration.novelty import local_competition, novelty
from exploration.pareto import best

OBJECTIVES = ("novelty", "fitness", "competition", "surprise")


class Individuals(NamedTuple):
    genomes: jax.Array  # f32[P, G]
    fitness: jax.Array  # f32[P]
    descriptor: jax.Array  # f32[P, d]; the world's own, for results
    valid: jax.Array  # bool[P]; False: there is nobody, or it could not be tried
    code: jax.Array  # f32[P, c]; what novelty is measured in: the descriptor, or what a model makes of the outcome
    surprise: jax.Array  # f32[P]; error of that model, 0 without one
    outcome: PyTree  # [P, ...]; what the model saw, kept to be described again; None without one
    marked: jax.Array  # bool[P]; by whoever uses the search: children begin without, survivors keep it


class NoveltyState(NamedTuple):
    population: Individuals
    archive: Individuals  # with room for more; valid is False where it is empty
    size: jax.Array  # i32[]; of the archive
    started: jax.Array  # bool[]; the first population is in
    model: PyTree  # of the descriptor


class Generation(NamedTuple):
    """What a generation is made of; ``novelty_search`` is nothing else, SERENE does more."""

    batch: int
    nobody: Callable[[int], Individuals]
    init: Callable[[Key], NoveltyState]
    ask: Callable  # (state, key) -> (genomes f32[batch, G], wanted bool[batch])
    born: Callable  # (state, genomes, Evaluation) -> Individuals, described
    tell: Callable  # (state, key, children, other Individuals that count as seen, or None) -> (state, what happened)
    reference: Callable  # state -> (codes f32[P + archive, c], known bool[P + archive])
    learnt: Callable  # (state, key, other Individuals or None) -> state whose model has learnt from all, with everything described again
    again: Callable  # (state, Individuals) -> Individuals as the present model describes them
    full: Callable
    grow: Callable


def stored(individuals: Individuals, size: jax.Array, new: Individuals, enters: jax.Array) -> tuple[Individuals, jax.Array]:
    """(an archive with those of ``new`` that enter it, bool[Q], in their order; its size). Who finds no room is lost: grow it before."""
    room = individuals.fitness.shape[0]
    place = jnp.where(enters, size + jnp.cumsum(enters, dtype=jnp.int32) - 1, room)
    return jax.tree.map(lambda old, more: old.at[place].set(more, mode="drop"), individuals, new), size + jnp.sum(enters, dtype=jnp.int32)


def doubled(individuals: Individuals) -> Individuals:
    """With room for twice as many."""

    twice = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), individuals)
    fitness = individuals.fitness
    return twice._replace(fitness=jnp.concatenate([fitness, jnp.full_like(fitness, -jnp.inf)]))


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
    generation = generations(
        spec, ground_truth(spec), population, offspring, sigma, neighbours, add, added, threshold, objectives, "pareto", initial, capacity
    )  # fmt: skip

    def ask(state, key, phase):
        return state, *generation.ask(state, key)

    def tell(state, key, inputs):
        _, genomes, evaluation = inputs
        return generation.tell(state, key, generation.born(state, genomes, evaluation), None)

    def elites(state):
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.archive, state.population)
        return Elites(both.genomes, both.fitness, both.descriptor, both.valid)

    def full(state):
        return {"archive": generation.full(state, 1)}

    def grow(state, what):
        return generation.grow(state)

    batch = generation.batch
    return Population({"offspring": batch}, batch, generation.init, ask, tell, elites, full=full, grow=grow)


def generations(
    spec: Spec,
    describer: Describer,
    population: int,
    offspring: int,
    sigma: float | jax.Array,
    neighbours: int,
    add: str,
    added: int,
    threshold: float | jax.Array,
    objectives: Sequence[str],
    select: str,
    initial: str,
    capacity: int,
    frozen: bool = False,
) -> Generation:
    """The parts of a generation; arguments are those of ``novelty_search`` and of ``serene``."""
    check(objectives, add, added, population * offspring)
    genes, box = made.genome_space(spec), descriptor_box(spec)
    batch = population * offspring
    most = batch if add == "threshold" else added * (1 + frozen)

    def nobody(count):
        def zeros(*shape):
            return jnp.zeros((count, *shape), jnp.float32)

        wanted, no = describer.outcome, jnp.zeros(count, bool)
        outcome = jnp.zeros((count, *wanted.shape), wanted.dtype) if wanted else None
        return Individuals(zeros(genes.shape[0]), jnp.full(count, -jnp.inf), zeros(box.shape[0]), no, zeros(describer.width), zeros(), outcome, no)

    def init(key):
        return NoveltyState(nobody(population), nobody(max(capacity, most)), jnp.int32(0), jnp.bool_(False), describer.init(key))

    def born(state, genomes, evaluation):
        code, surprise = describer.describe(state.model, evaluation.descriptor, evaluation.outcome)
        unmarked = jnp.zeros(genomes.shape[0], bool)
        return Individuals(genomes, evaluation.fitness, evaluation.descriptor, evaluation.valid, code, surprise, evaluation.outcome, unmarked)

    def again(state, individuals):
        code, surprise = describer.describe(state.model, individuals.descriptor, individuals.outcome)
        return individuals._replace(code=code, surprise=surprise)

    def learnt(state, key, others):
        seen = [state.population, state.archive] if others is None else [state.population, state.archive, others]
        outcome, known = jax.tree.map(lambda *x: jnp.concatenate(x), *((part.outcome, part.valid) for part in seen))
        state = state._replace(model=describer.train(state.model, key, outcome, known))
        return state._replace(population=again(state, state.population), archive=again(state, state.archive))

    def ask(state, key):
        fresh = made.INITIAL[initial](key, batch, genes)
        children = made.gaussian(key, jnp.repeat(state.population.genomes, offspring, axis=0), sigma, genes)
        return jnp.where(state.started, children, fresh), state.started | (jnp.arange(batch) < population)

    def scores(everyone: Individuals, points: jax.Array, known: jax.Array, fitness: jax.Array) -> jax.Array:
        """f32[everyone, objectives]; -inf for those that are not valid."""
        score = {
            "novelty": lambda: novelty(everyone.code, points, known, neighbours, True),
            "fitness": lambda: everyone.fitness,
            "surprise": lambda: everyone.surprise,
            "competition": lambda: local_competition(everyone.code, everyone.fitness, points, fitness, known, neighbours).astype(jnp.float32),
        }
        return jnp.where(everyone.valid[:, None], jnp.stack([score[name]() for name in objectives], axis=-1), -jnp.inf)

    def entering(state, key: Key, children: Individuals, first: jax.Array) -> jax.Array:
        """bool[batch]: the children that enter the archive. ``first`` f32[batch]: their first objective."""
        if add == "threshold":
            alone = novelty(children.code, state.archive.code, state.archive.valid, neighbours, False)
            return children.valid & ((alone > threshold) | (state.size == 0))
        order = jax.random.uniform(key, (batch,)) if add == "random" else first
        chosen = jax.lax.top_k(jnp.where(children.valid, order, -jnp.inf), added)[1]
        return jnp.zeros(batch, bool).at[chosen].set(True) & children.valid

    def tell(state, key, children, others):
        everyone = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.population, children)
        seen = [everyone, state.archive] if others is None else [everyone, state.archive, others]
        points, known, fitness = (jnp.concatenate([getattr(part, name) for part in seen]) for name in ("code", "valid", "fitness"))
        judged = scores(everyone, points, known, fitness)
        enter_key, draw_key, more_key = (key, jax.random.fold_in(key, 1), jax.random.fold_in(key, 2))
        if select == "random":  # one criterion for the whole generation
            criterion = jnp.take(judged, jax.random.randint(draw_key, (), 0, len(objectives)), axis=1)[:, None]
        else:
            criterion = judged
        enters = entering(state, enter_key, children, criterion[population:, 0])
        if frozen:
            enters |= entering(state, more_key, children, criterion[population:, 0])
        archive, size = stored(state.archive, state.size, children, enters & state.started)
        survivors = jax.tree.map(lambda x: x[best(criterion, population)], everyone)
        if frozen:
            survivors = jax.tree.map(lambda old, new: jnp.where(state.started, old, new), state.population, survivors)
        valid = everyone.valid[:, None]
        means = jnp.sum(jnp.where(valid, judged, 0.0), axis=0) / jnp.maximum(jnp.sum(valid), 1)
        new = NoveltyState(survivors, archive, size, state.started | jnp.any(children.valid), state.model)
        return new, dict(zip(objectives, means, strict=True)) | describer.told(state.model)

    def reference(state):
        return jnp.concatenate([state.population.code, state.archive.code]), jnp.concatenate([state.population.valid, state.archive.valid])

    def full(state, times):
        """Whether ``times`` generations might find no room."""
        return state.size + times * most > state.archive.fitness.shape[0]

    def grow(state):
        return state._replace(archive=doubled(state.archive))

    return Generation(batch, nobody, init, ask, born, tell, reference, learnt, again, full, grow)


def check(objectives: Sequence[str], add: str, added: int, batch: int) -> None:
    """Raises Refusal for objectives that are not known, and more additions than there are children."""
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown or not objectives or isinstance(objectives, str):
        raise Refusal(f"exploration.objectives={objectives} must be a list of {', '.join(OBJECTIVES)}; try exploration.objectives=[novelty]")
    if add != "threshold" and added > batch:
        raise Refusal(f"exploration.added={added} is more than the {batch} children of a generation (population times offspring); give at most {batch}")
