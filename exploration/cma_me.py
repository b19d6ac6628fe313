"""CMA-ME: an archive of elites filled by several CMA-ES, each following what enters it (Fontaine et al., arXiv 1912.02400).

Every emitter samples ``samples`` genomes of its own CMA-ES; all are tried, compete for the cells of the grid (``exploration/grid_archive.py``), and are ranked:

    optimizing        those that entered the archive first, by fitness; then the others, by fitness
    improvement       those in new cells first, then those that replaced an elite, then the others; each by fitness less that of the cell's elite before
    random_direction  those that entered first, by how far they went in a direction of the descriptor space, drawn at every restart; then the others

An emitter of whose samples none entered, or whose distribution has shrunk to a point, begins anew at a random elite. ``schedule=all``: every emitter
samples in each batch (pyribs); ``fewest``: only the one that has stored the fewest so far (SERENE's code); ``bandit``: only the one with the highest upper
confidence bound on the share s / n of its samples that entered, s / n + sqrt(2 log N / n) with n its samples and N those of all (UCB1, Auer et al. 2002, over
emitters as Cully, arXiv 2007.05352); each one first samples once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Spec
from envs.builder import FLAG, POSITIVE, Choice, Integer, Sizes, options
from exploration import cma_es, grid_archive
from exploration import genomes as made
from exploration.base import Evaluation, Population
from exploration.tessellation import ARCHIVES, tessellation

RANKINGS = ("optimizing", "improvement", "random_direction")


class CMAMEState(NamedTuple):
    grid: grid_archive.Grid
    searches: cma_es.CMAState  # [emitters]
    direction: jax.Array  # f32[emitters, d]; unit vectors in shares of the descriptor's box
    stored: jax.Array  # i32[emitters]; solutions that entered
    asked: jax.Array  # i32[emitters]; batches that it was asked for
    restarts: jax.Array  # i32[]
    turn: jax.Array  # i32[]; the emitter that was asked last, where it is one at a time


@options(
    archive=Choice(ARCHIVES),
    cells=Sizes(),
    centroids=Integer(1, 2**24),
    ranking=Choice(RANKINGS),
    emitters=Integer(1, 2**12),
    samples=Integer(2, 2**12),
    sigma=POSITIVE,
    schedule=Choice(("all", "fewest", "bandit")),
    initial=Choice(tuple(made.INITIAL)),
    ties=FLAG,
)
def cma_me(
    spec: Spec,
    *,
    archive: str = "grid",
    cells: Sequence[int] = (50, 50),
    centroids: int = 1024,
    ranking: str = "improvement",
    emitters: int = 5,
    samples: int = 36,
    sigma: float | jax.Array = 0.5,
    schedule: str = "all",
    initial: str = "normal",
    ties: bool = False,
) -> Population:
    """The search.

    Args:
      archive: grid or cvt (``exploration/tessellation.py``).
      cells: of the grid, a number per dimension of the descriptor.
      centroids: cells of the cvt.
      ranking: what the emitters follow; see above.
      emitters, samples: how many CMA-ES, and genomes of each.
      sigma: the step size they begin with.
      schedule: all, fewest or bandit; see above.
      initial: where they begin: normal (N(0, 1), clipped to the genes' box) or uniform.
      ties: an equal fitness replaces the elite too.
    """
    genes, box = made.genome_space(spec), grid_archive.descriptor_box(spec)
    cut = tessellation(archive, box, cells, centroids)
    constants = cma_es.constants(genes.shape[0], samples)
    number = emitters if schedule == "all" else 1

    def directions(key, count):
        drawn = jax.random.normal(key, (count, box.shape[0]))
        return drawn / jnp.sqrt(jnp.sum(jnp.square(drawn), axis=-1, keepdims=True))

    def init(key):
        mean_key, direction_key = jax.random.split(key)
        searches = jax.vmap(lambda mean: cma_es.begin(mean, sigma))(made.INITIAL[initial](mean_key, emitters, genes))
        zero, zeros = jnp.int32(0), jnp.zeros(emitters, jnp.int32)
        return CMAMEState(grid_archive.empty(cut.number, genes.shape[0], box.shape[0]), searches, directions(direction_key, emitters), zeros, zeros, zero, zero)

    def rows(state):
        """i32[number]: the emitters whose turn it is."""
        return jnp.arange(emitters) if schedule == "all" else state.turn[None]

    def next_turn(state):
        if schedule != "bandit":
            return jnp.argmin(state.stored)
        made = samples * state.asked.astype(jnp.float32)
        bound = state.stored / jnp.maximum(made, 1.0) + jnp.sqrt(2.0 * jnp.log(jnp.maximum(jnp.sum(made), 1.0)) / jnp.maximum(made, 1.0))
        return jnp.argmax(jnp.where(state.asked == 0, jnp.inf, bound))

    def ask(state, key, phase):
        state = state._replace(turn=next_turn(state).astype(jnp.int32))
        now = jax.tree.map(lambda x: x[rows(state)], state.searches)
        drawn = jax.vmap(lambda search, k: cma_es.sample(search, k, samples))(now, jax.random.split(key, number))
        return state, made.clipped(drawn.reshape(number * samples, -1), genes), jnp.ones(number * samples, bool)

    def order(evaluation: Evaluation, added: grid_archive.Added, direction) -> jax.Array:
        """i32[number, samples]: places of each emitter's samples, the best first."""
        fitness, entered = evaluation.fitness, added.new | added.improved
        if ranking == "random_direction":
            share = (evaluation.descriptor - box.low) / (box.high - box.low)
            towards = jnp.sum(share.reshape(number, samples, -1) * direction[:, None], axis=-1).reshape(-1)
            stage, value = entered.astype(jnp.int32), jnp.where(evaluation.valid, towards, -jnp.inf)
        elif ranking == "optimizing":
            stage, value = entered.astype(jnp.int32), fitness
        else:
            stage, value = 2 * added.new + added.improved.astype(jnp.int32), added.value
        stage, value = stage.reshape(number, samples), value.reshape(number, samples)
        return jax.vmap(lambda s, v: jnp.lexsort((-v, -s)))(stage, value)

    def tell(state, key, inputs):
        _, genomes, evaluation = inputs
        elite_key, direction_key = jax.random.split(key)
        grid, added = grid_archive.insert(state.grid, cut.cell_of(evaluation.descriptor), genomes, evaluation, ties)
        at = rows(state)
        now, direction = jax.tree.map(lambda x: x[at], state.searches), state.direction[at]
        ranked = order(evaluation, added, direction)
        moved = jax.vmap(lambda search, x, o: cma_es.told(search, x, o, constants))(now, genomes.reshape(number, samples, -1), ranked)
        entered = jnp.sum((added.new | added.improved).reshape(number, samples), axis=-1, dtype=jnp.int32)
        again = (entered == 0) | jax.vmap(cma_es.exhausted)(moved)
        anew = jax.vmap(lambda mean: cma_es.begin(mean, sigma))(grid.genomes[grid_archive.choose(grid, elite_key, number)])
        moved = jax.tree.map(lambda a, b: jnp.where(again.reshape(-1, *[1] * (a.ndim - 1)), a, b), anew, moved)
        new = CMAMEState(
            grid,
            jax.tree.map(lambda all_, some: all_.at[at].set(some), state.searches, moved),
            state.direction.at[at].set(jnp.where(again[:, None], directions(direction_key, number), direction)),
            state.stored.at[at].add(entered),
            state.asked.at[at].add(1),
            state.restarts + jnp.sum(again, dtype=jnp.int32),
            state.turn,
        )
        happened = {"new": jnp.sum(added.new, dtype=jnp.int32), "improved": jnp.sum(added.improved, dtype=jnp.int32), "restarts": new.restarts}
        return new, happened

    batch = number * samples
    return Population({"offspring": batch}, batch * (emitters // number), init, ask, tell, lambda state: grid_archive.elites(state.grid))
