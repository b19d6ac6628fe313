"""SERENE: novelty search explores, emitters exploit what it found (Paolo et al., arXiv 2102.03140, GECCO 2021, their code).

The budget goes in chunks of K evaluations, one to exploring, one to exploiting, as long as there is something to exploit; with ``schedule=bandit`` whose turn
it is, where both are possible, is for ``exploration/budget.py``.

*Explore.* Generations of novelty search (``exploration/novelty_search.py``); rewarding policies count as seen too. Whoever has a return above 0 and
has not been marked yet enters the rewarding archive R and becomes a candidate, with step size sigma_0 = (distance to the nearest other genome of
population and children) / 3, or 0.05 where that is 0.

*Exploit.* 1. While more than a third of the chunk is left, the candidate whose behaviour was the most novel with respect to R when the chunk began gets
an emitter on probation: its first population and five more. Its improvement I = max(0, mean of the last three - mean of the first three populations'
returns) decides: above 0 it lives, else the candidate is dropped for good. 2. Then one of the first Pareto front of (novelty of the ancestor with respect
to R, I), drawn at random, runs until it stops or the chunk ends: as long as it has stored nothing its best member enters R once its return is above 0,
later every member that beats the best it has stored; members more novel than any of its own before are noted, and when it stops ``added`` of them, drawn
at random, enter the novelty archive.

An emitter stops when its returns stagnate (``exploration/emitters.py``), or by its own rule (cma_es). Where no return is above 0 this is novelty search,
step for step.

Departures from the published code: members noted enter the novelty archive when their emitter stops, not at the end of the chunk; the ancestor of a
stopped emitter is not stored in R a second time; with one element in R novelty with respect to R is 0, not NaN; every CMA-ES has random numbers of its
own, and its first population is drawn around its ancestor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import PyTree, Spec, any_member
from envs.builder import FLAG, NON_NEGATIVE, Anything, Choice, Integer, Refusal, options
from exploration import genomes as made
from exploration.base import Elites, Evaluation, Population
from exploration.budget import EXPLOIT, EXPLORE, Bandit, bandit, paid, preferred
from exploration.descriptors import ground_truth, learnt, of_path
from exploration.emitters import EMITTERS, Record, fresh_record, improvement, recorded, stagnant, stagnation_window
from exploration.novelty import novelty
from exploration.novelty_search import Individuals, NoveltyState, generations, stored
from exploration.pareto import fronts
from exploration.rewarding import Rewarding, added_to, nobody_pays, with_candidates, with_twice_the_room

IDLE, PROBATION, RUNNING = 0, 1, 2
PROBATION_POPULATIONS = 6  # the first one and five more


class Live(NamedTuple):
    """One emitter."""

    state: PyTree
    record: Record
    ancestor: Individuals  # []
    worth: jax.Array  # f32[]; I
    best_stored: jax.Array  # f32[]; best return that it has put into R, -inf before
    farthest: jax.Array  # f32[]; novelty of its most novel member
    rarest: Individuals  # []; that member
    noted: Individuals  # [added]; a random sample of the members that were more novel than all before
    number_noted: jax.Array  # i32[]


class SereneState(NamedTuple):
    search: NoveltyState
    rewarding: Rewarding
    emitters: Live  # [slots]
    alive: jax.Array  # bool[slots]
    active: Live  # the one that is at work
    mode: jax.Array  # i32[]; IDLE, PROBATION or RUNNING
    at: jax.Array  # i32[]; the row of R, or the slot, that it came from
    phase: jax.Array  # i32[]; EXPLORE or EXPLOIT
    spent: jax.Array  # i32[]; evaluations of the present chunk
    born: jax.Array  # i32[]; emitters that passed their probation
    explored: jax.Array  # i32[]; chunks of exploring that are over
    trained: jax.Array  # i32[]; trainings of the descriptor
    bandit: Bandit | tuple  # () without one


@options(
    emitter=Choice(tuple(EMITTERS)),
    chunk=Integer(1, 2**24),
    schedule=Choice(("alternating", "bandit")),
    emitter_population=Integer(2, 1024),
    population=Integer(2, 2**16),
    offspring=Integer(1, 64),
    sigma=NON_NEGATIVE,
    neighbours=Integer(1, 1024),
    added=Integer(1, 2**16),
    objectives=Anything("a list of novelty, fitness, competition, surprise"),
    initial=Choice(tuple(made.INITIAL)),
    capacity=Integer(1, 2**26),
    emitters=Integer(1, 2**16),
    exploit=FLAG,
    descriptor=Choice(("truth", "autoencoder", "signature")),
    select=Choice(("pareto", "random")),
    frames=Integer(1, 64),
    pixels=Integer(16, 64),
    latent=Integer(1, 1024),
    learning_rate=NON_NEGATIVE,
    epochs=Integer(1, 10_000),
    train=FLAG,
    frozen=FLAG,
    order=Integer(1, 8),
    time=FLAG,
)
def serene(
    spec: Spec,
    *,
    emitter: str = "elitist",
    chunk: int = 1000,
    schedule: str = "alternating",
    emitter_population: int = 6,
    population: int = 100,
    offspring: int = 2,
    sigma: float | jax.Array = 0.05,
    neighbours: int = 15,
    added: int = 5,
    objectives: Sequence[str] = ("novelty",),
    initial: str = "normal",
    capacity: int = 4096,
    emitters: int = 32,
    exploit: bool = True,
    descriptor: str = "truth",
    select: str = "pareto",
    frames: int = 1,
    pixels: int = 64,
    latent: int = 10,
    learning_rate: float | jax.Array = 1e-3,
    epochs: int = 100,
    train: bool = True,
    frozen: bool = False,
    order: int = 2,
    time: bool = False,
) -> Population:
    """The search.

    Args:
      emitter: elitist (as published) or cma_es.
      chunk: K, evaluations given to exploring or exploiting at a time.
      schedule: alternating or bandit; see above.
      emitter_population: m of an emitter.
      population, offspring, sigma, neighbours, added, objectives, initial, capacity: of novelty search.
      emitters: slots for living emitters at first; doubles when needed, as R does.
      exploit: false: no emitters and no R: novelty search in chunks.
      descriptor: truth (the world's own), autoencoder (the code of pictures, ``exploration/autoencoder.py``), or signature (of the path of
        observations, ``exploration/watching.py``).
      select: how several objectives decide: by Pareto fronts, or one of them at random, drawn for each generation.
      frames, pixels: pictures of an episode, the last one at its end; their side.
      latent, learning_rate, epochs: of the autoencoder: numbers per picture, Adam's rate, epochs of a training at most.
      train: false: the autoencoder stays as it was drawn (the ablation NT).
      order, time: of the signature: its levels; whether time is one more channel.
      frozen: true: the population stays the first one, and twice as many children enter the archive, as in the published NT by mistake.
    """
    describer = {
        "truth": lambda: ground_truth(spec),
        "autoencoder": lambda: learnt(frames, pixels, latent, learning_rate, epochs, train),
        "signature": lambda: of_path(spec, order, time),
    }[descriptor]()
    if descriptor != "autoencoder" and "surprise" in objectives:
        raise Refusal("exploration.objectives: surprise is the error of an autoencoder; it needs exploration.descriptor=autoencoder")
    generation = generations(
        spec, describer, population, offspring, sigma, neighbours, "random", added, 0.0, objectives, select, initial, capacity, frozen
    )  # fmt: skip
    genes = made.genome_space(spec)
    local = EMITTERS[emitter](genes, emitter_population)
    window = stagnation_window(genes.shape[0], emitter_population)
    most_alive = chunk // (PROBATION_POPULATIONS * emitter_population) + 1
    most_rewarding = (chunk // generation.batch + 2) * (generation.batch + population) + chunk + local.batch

    def nothing() -> Live:
        """An emitter that stands for none."""
        blank = jax.tree.map(lambda x: x[0], generation.nobody(1))
        state = local.begin(blank.genomes, jnp.float32(1))
        zero, low = jnp.float32(0), jnp.float32(-jnp.inf)
        return Live(state, fresh_record(emitter_population, window), blank, zero, low, low, blank, generation.nobody(added), jnp.int32(0))

    def init(key):
        none = nothing()
        slots = jax.tree.map(lambda x: jnp.broadcast_to(x, (max(emitters, most_alive), *jnp.shape(x))), none)
        rewarding = nobody_pays(generation.nobody(max(capacity, most_rewarding)))
        zero = jnp.int32(0)
        alive = jnp.zeros(max(emitters, most_alive), bool)
        return SereneState(
            generation.init(key), rewarding, slots, alive, none, zero, zero, zero, zero, zero, zero, zero, bandit() if schedule == "bandit" else ()
        )

    # --- exploring -----------------------------------------------------------------------------------------------------

    def tell_explore(state, key, genomes, evaluation: Evaluation):
        before, children = state.search.population, generation.born(state.search, genomes, evaluation)
        search, happened = generation.tell(state.search, key, children, state.rewarding.who if exploit else None)
        if not exploit:
            return state._replace(search=search), happened
        everyone = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), before, children)
        pays = everyone.valid & (everyone.fitness > 0) & ~everyone.marked
        rewarding = with_candidates(state.rewarding, everyone, pays)
        survivors = search.population._replace(marked=search.population.valid & (search.population.fitness > 0))  # whoever pays is a candidate by now
        if schedule == "bandit":
            state = state._replace(bandit=state.bandit._replace(found=state.bandit.found + jnp.sum(pays, dtype=jnp.int32)))
        return state._replace(search=search._replace(population=survivors), rewarding=rewarding), happened

    # --- exploiting ----------------------------------------------------------------------------------------------------

    def rarity(codes, rewarding):
        """Novelty with respect to R of ancestors, who are in R themselves."""
        return novelty(codes, rewarding.who.code, rewarding.who.valid, neighbours, True)

    def probation_allowed(state):
        return jnp.any(state.rewarding.waiting) & (chunk - state.spent > chunk / 3)

    def ask_exploit(state, key):
        choose_key, ask_key = jax.random.split(key)

        def from_candidate():
            rewarding = state.rewarding
            at = jnp.argmax(jnp.where(rewarding.waiting, rewarding.rare, -jnp.inf)).astype(jnp.int32)
            ancestor = jax.tree.map(lambda x: x[at], rewarding.who)
            live = nothing()._replace(state=local.begin(ancestor.genomes, rewarding.sigma[at]), ancestor=ancestor)
            taken = rewarding._replace(waiting=rewarding.waiting.at[at].set(False))
            return state._replace(active=live, at=at, mode=jnp.int32(PROBATION), rewarding=taken)

        def from_living():
            objectives = jnp.stack([rarity(state.emitters.ancestor.code, state.rewarding), state.emitters.worth], axis=-1)
            first = state.alive & (fronts(jnp.where(state.alive[:, None], objectives, -jnp.inf)) == 0)
            at = jnp.argmax(jnp.where(first, jax.random.uniform(choose_key, first.shape), -1.0)).astype(jnp.int32)
            return state._replace(active=jax.tree.map(lambda x: x[at], state.emitters), at=at, mode=jnp.int32(RUNNING))

        def another():
            new = jax.lax.cond(probation_allowed(state), from_candidate, from_living)
            return jax.tree.map(lambda a, b: jnp.where(state.mode == IDLE, a, b), new, state)

        chosen = jax.lax.cond(any_member(state.mode == IDLE, spec.axis), another, lambda: state)
        return chosen, *local.ask(chosen.active.state, ask_key)

    def tell_exploit(state, key, genomes, evaluation: Evaluation):
        note_key, keep_key = jax.random.split(key)
        live = state.active
        told = generation.born(state.search, genomes, evaluation)
        emitting = local.tell(live.state, genomes, evaluation.fitness)
        live = live._replace(state=emitting, record=recorded(live.record, local.values(emitting)))
        live = live._replace(worth=improvement(live.record))
        running = state.mode == RUNNING
        live, rewarding = pay(live, state.rewarding, told, running)
        live = note(live, state.search, rewarding, told, note_key, running)
        over = state.spent >= chunk
        stops = running & (stagnant(live.record) | local.exhausted(live.state))
        judged = (state.mode == PROBATION) & (live.record.count >= PROBATION_POPULATIONS)
        survives = judged & (live.worth > 0)
        rests = running & ~stops & over

        free = jnp.argmin(state.alive)
        slot = jnp.where(survives, free, state.at).astype(jnp.int32)
        written = survives | rests
        target = jnp.where(written, slot, state.alive.shape[0])
        slots = jax.tree.map(lambda all_, one: all_.at[target].set(one, mode="drop"), state.emitters, live)
        alive = state.alive.at[target].set(True, mode="drop")
        alive = alive.at[jnp.where(stops, state.at, alive.shape[0])].set(False, mode="drop")
        enters = stops & live.noted.valid
        archive, size = stored(state.search.archive, state.search.size, live.noted, enters)
        mode = jnp.where(judged | stops | rests, IDLE, state.mode).astype(jnp.int32)
        search = state.search._replace(archive=archive, size=size)
        return state._replace(
            search=search, rewarding=rewarding, emitters=slots, alive=alive, active=live, mode=mode, born=state.born + survives.astype(jnp.int32)
        )

    def pay(live, rewarding, told, running):
        """What a running emitter stores in R."""
        at = jnp.argmax(told.fitness)
        first = jnp.isneginf(live.best_stored)
        alone = (jnp.arange(local.batch) == at) & (told.fitness > 0)
        enters = running & told.valid & jnp.where(first, alone, told.fitness > live.best_stored)
        rewarding = added_to(rewarding, told, enters, 0.0, False)
        return live._replace(best_stored=jnp.maximum(live.best_stored, jnp.max(jnp.where(enters, told.fitness, -jnp.inf)))), rewarding

    def note(live, search, rewarding, told, key, running):
        """Members more novel than all before, as a random sample of them all (reservoir sampling, one member after the other)."""
        points, known = generation.reference(search)
        points, known = jnp.concatenate([points, rewarding.who.code]), jnp.concatenate([known, rewarding.who.valid])
        rare = novelty(told.code, points, known, neighbours, False)

        def one(index, live):
            counts = running & told.valid[index] & (rare[index] > live.farthest)
            number = live.number_noted + counts.astype(jnp.int32)
            drawn = jax.random.randint(jax.random.fold_in(key, index), (), 0, jnp.maximum(number, 1))
            place = jnp.where(number <= added, number - 1, drawn)
            place = jnp.where(counts & (place < added), place, added)
            noted = jax.tree.map(lambda all_, x: all_.at[place].set(x[index], mode="drop"), live.noted, told)
            rarest = jax.tree.map(lambda old, new: jnp.where(counts, new[index], old), live.rarest, told)
            return live._replace(noted=noted, number_noted=number, farthest=jnp.where(counts, rare[index], live.farthest), rarest=rarest)

        return jax.lax.fori_loop(0, local.batch, one, live)

    # --- the two together ----------------------------------------------------------------------------------------------

    def ask(state, key, phase):
        if phase == "explore":
            return state, *generation.ask(state.search, key)
        return ask_exploit(state, key)

    def tell(state, key, inputs):
        phase, genomes, evaluation = inputs
        state = state._replace(spent=state.spent + jnp.sum(evaluation.tried, dtype=jnp.int32))
        if phase == "exploit":
            state = tell_exploit(state, key, genomes, evaluation)
        else:
            state, _ = tell_explore(state, key, genomes, evaluation)
        state, begins = next_phase(state)
        if phase == "explore" or schedule == "bandit":  # else exploiting is never followed by exploiting
            looked = jax.lax.cond(any_member(begins, spec.axis), lambda: rarity(state.rewarding.who.code, state.rewarding), lambda: state.rewarding.rare)
            state = state._replace(rewarding=state.rewarding._replace(rare=jnp.where(begins, looked, state.rewarding.rare)))
        happened = {
            "candidates": jnp.sum(state.rewarding.waiting, dtype=jnp.int32),
            "emitters": jnp.sum(state.alive, dtype=jnp.int32),
            "emitters_born": state.born,
            "rewarding": state.rewarding.size,
        }
        return state, happened | describer.told(state.search.model)

    def next_phase(state):
        """(the state where chunks that are over are followed by the next, whether one of exploiting begins)."""
        over = state.spent >= chunk
        idle = (state.mode == IDLE) & ~jnp.any(state.alive) & ~probation_allowed(state)
        something = jnp.any(state.rewarding.waiting) | jnp.any(state.alive)
        ended = jnp.where(state.phase == EXPLORE, over, over & (state.mode == IDLE) | idle)
        wanted = state.phase == EXPLORE
        if schedule == "bandit":
            state = state._replace(bandit=paid(state.bandit, state.phase, ended, jnp.sum(state.alive, dtype=jnp.int32)))
            wanted = preferred(state.bandit) == EXPLOIT
        begins = ended & something & exploit & wanted
        phase = jnp.where(ended, jnp.where(begins, EXPLOIT, EXPLORE), state.phase).astype(jnp.int32)
        explored = state.explored + ((state.phase == EXPLORE) & over).astype(jnp.int32)
        return state._replace(phase=phase, spent=jnp.where(ended, 0, state.spent).astype(jnp.int32), explored=explored), begins

    # --- the descriptor --------------------------------------------------------------------------------------------------

    def due(state):
        """After chunks 1, 3, 6, 10, ... of exploring."""
        return state.explored >= (state.trained + 1) * (state.trained + 2) // 2

    def refresh(state, key):
        search = generation.learnt(state.search, key, state.rewarding.who if exploit else None)
        state = state._replace(search=search, trained=state.trained + 1)
        if not exploit:
            return state
        codes = lambda who: generation.again(search, who)  # noqa: E731
        rewarding = state.rewarding._replace(who=codes(state.rewarding.who))
        rewarding = rewarding._replace(rare=rarity(rewarding.who.code, rewarding))
        every = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), state.emitters, state.active)  # the one at work is one more
        noted = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), every.noted)
        noted = jax.tree.map(lambda x: x.reshape(-1, added, *x.shape[1:]), codes(noted))
        every = every._replace(ancestor=codes(every.ancestor), rarest=codes(every.rarest), noted=noted)
        points, known = generation.reference(search)
        points, known = jnp.concatenate([points, rewarding.who.code]), jnp.concatenate([known, rewarding.who.valid])
        farthest = novelty(every.rarest.code, points, known, neighbours, False)
        every = every._replace(farthest=jnp.where(every.number_noted > 0, farthest, every.farthest))
        slots, active = jax.tree.map(lambda x: x[:-1], every), jax.tree.map(lambda x: x[-1], every)
        return state._replace(rewarding=rewarding, emitters=slots, active=active)

    def elites(state):
        parts = [state.search.archive, state.search.population, state.rewarding.who]
        everyone = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        code = None if descriptor == "truth" else everyone.code
        return Elites(everyone.genomes, everyone.fitness, everyone.descriptor, everyone.valid, code)

    def full(state):
        return {
            "archive": generation.full(state.search, chunk // generation.batch + 2 + most_alive),
            "rewarding": state.rewarding.size + most_rewarding > state.rewarding.sigma.shape[0],
            "emitters": jnp.sum(~state.alive, dtype=jnp.int32) < most_alive,
        }

    def grow(state, what):
        if what == "archive":
            return state._replace(search=generation.grow(state.search))
        if what == "rewarding":
            return state._replace(rewarding=with_twice_the_room(state.rewarding))
        more = jax.tree.map(lambda x: jnp.broadcast_to(x, (state.alive.shape[0], *jnp.shape(x))), nothing())
        slots = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state.emitters, more)
        return state._replace(emitters=slots, alive=jnp.concatenate([state.alive, jnp.zeros_like(state.alive)]))

    changing = {"due": due, "refresh": refresh} if describer.train else {}
    phases = {"explore": generation.batch, "exploit": local.batch}
    return Population(phases, chunk, init, ask, tell, elites, lambda s: s.phase, **changing, watch=describer.watch, full=full, grow=grow)
