"""The records of exploration: bonuses, archives, goals and populations.

Order everywhere: ``(state, key, inputs) -> (state, outputs)``.

A bonus turns steps into rewards in three moves, each a pure function, so that a rollout, a replay batch and a test use the
same code:

1. ``score(state, transition) -> raw``: the bonus itself, on any leading shape. ``raw`` is an array, or for combinators a
   tuple of them: only the bonus that made it reads it.
2. ``calibrate(state, raw) -> state``: running statistics of normalisers learn from fresh ``raw`` [T, N], in time order. Every
   runner calls it with the steps just made, a replay runner with T = 1, and never with a batch drawn from a replay.
3. ``value(state, raw) -> reward``: raw turned into the reward the learner sees. Never changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import HostEnvironment, Key, Lanes, PyTree, Spec, Transition
from envs.builder import Refusal, closest


class BonusInfo(NamedTuple):
    """What a bonus declares. Composition is checked against it before anything compiles."""

    needs: tuple[str, ...] = ("next_obs",)  # transition fields that ``score`` reads beside annotations; "info.X" for a key of info
    learns_from: tuple[str, ...] = ()  # transition fields that ``observe`` and ``update`` read beyond those
    stores: tuple[str, ...] = ()  # annotations that ``observe`` returns
    episodic: bool = False  # keeps per-episode state in each lane, cleared by ``reset``
    differentiable: bool = False  # ``score`` has gradients with respect to obs and action
    scored: str = "batch"  # "step": scored once, from its annotation; "batch": scored from state whenever a batch is drawn
    warmup: int = 0  # random steps per lane that ``observe`` should see before training
    features: spaces.Space | None = None  # space of ``features``, un-batched
    augments: bool = False  # the agent is given ``features`` beside its observation (SOFE)
    intrinsic: bool = True  # False: no reward stream at all (exploration=none)
    non_negative: bool = True  # raw >= 0 always
    fades: bool = True  # raw is smaller when the same steps are seen again, as novelty is


class Bonus(NamedTuple):
    """An exploration bonus over N lanes; see the module docstring. Made with ``bonus(...)``, which fills in the defaults."""

    init: Callable[[Key], PyTree]
    observe: Callable[[PyTree, Key, Transition], tuple[PyTree, dict]]  # transition [N], each step -> annotations [N]
    score: Callable[[PyTree, Transition], PyTree]  # any leading shape -> raw
    update: Callable[[PyTree, Key, tuple], tuple[PyTree, dict]]  # (state, key, (batch, Learnt.payload)) -> (state, metrics); batch [T, N] or [B]
    reset: Callable[[PyTree, jax.Array], PyTree]  # mask bool[N]: lanes whose episode ended
    calibrate: Callable[[PyTree, PyTree], PyTree]  # raw [T, N], in time order -> state
    value: Callable[[PyTree, PyTree], jax.Array]  # raw -> reward of the same leading shape
    features: Callable[[PyTree, PyTree], jax.Array] | None  # (state, obs [N]) -> [N, ...]: sufficient statistics, encoded
    info: BonusInfo


def bonus(
    *,
    score: Callable,
    info: BonusInfo,
    init: Callable | None = None,
    observe: Callable | None = None,
    update: Callable | None = None,
    reset: Callable | None = None,
    calibrate: Callable | None = None,
    value: Callable | None = None,
    features: Callable | None = None,
) -> Bonus:
    """A ``Bonus`` whose left-out functions do nothing."""
    return Bonus(
        init=init or (lambda key: ()),
        observe=observe or (lambda state, key, transition: (state, {})),
        score=score,
        update=update or (lambda state, key, inputs: (state, {})),
        reset=reset or (lambda state, mask: state),
        calibrate=calibrate or (lambda state, raw: state),
        value=value or (lambda state, raw: raw),
        features=features,
        info=info,
    )


def none(spec: Spec) -> Bonus:
    """No bonus: the agent sees the world's reward only."""
    return bonus(score=lambda state, t: jnp.zeros_like(t.reward), info=BonusInfo(needs=(), intrinsic=False, fades=False))


def check_needs(made: Bonus, spec: Spec, name: str) -> None:
    """Refuse a bonus that needs what the world does not give."""
    for field in (*made.info.needs, *made.info.learns_from):
        if field.startswith("info.") and field[5:] not in spec.info:
            raise Refusal(f"exploration={name} needs {field}, which the world {spec.name!r} does not give{closest(field[5:], spec.info)}")


class Starts(NamedTuple):
    """Where an archive wants N rollouts to begin."""

    cells: jax.Array  # i32[N]
    lanes: Lanes  # [N, ...]; noted with the Trail that leads there
    fresh: jax.Array  # bool[N]; at the world's own start, whatever ``lanes`` has there


class Explored(NamedTuple):
    """A batch of L rollouts of at most T steps, in the order in which their cells were chosen."""

    chosen: jax.Array  # i32[L]; the cells that they began in
    parents: PyTree  # Trail [L]; what leads to where they began
    reached: Lanes  # [T, L, ...]; after each step
    steps: Transition  # [T, L, ...]
    valid: jax.Array  # bool[T, L]; False after the end of an episode
    cells: jax.Array | None = None  # u32[T, L, 2]; fingerprints of the cells that they reached, where the host has made them


class Archive(NamedTuple):
    """States worth returning to. Its size doubles between calls of the program, when ``full`` says so; that changes no result."""

    init: Callable[[Key, tuple], PyTree]  # (key, (fresh starts Lanes [L], actions of a rollout [T, ...])) -> state
    select: Callable[[PyTree, Key, int], tuple[PyTree, Starts]]  # (state, key, N) -> (state, starts [N])
    insert: Callable[[PyTree, Key, Explored], tuple[PyTree, dict]]  # -> (state, what happened)
    full: Callable[[PyTree, int, int], dict[str, jax.Array]]  # (state, L, T) -> what might find no room in the next insert: name -> bool[]
    grow: Callable[[PyTree, str], PyTree]  # (state, name) -> state with room for twice as many
    best: Callable[[PyTree, int], tuple[jax.Array, jax.Array]]  # (state, longest) -> (actions [longest, ...] to the best score, how many)
    report: Callable[[PyTree], dict]  # state -> scalar metrics (cells, best score)
    weights: Callable[[PyTree], jax.Array]  # state -> f32[C]; in proportion to which cells are chosen
    on_host: Callable[[HostEnvironment], Callable] | None = None  # -> function (look of a HostWorld, *representation) -> the cell's fingerprint, 8 bytes
    search: PyTree = None  # when and how hard representations are searched for (exploration/representation.py); None: cells stay what they are


class Goals(NamedTuple):
    """Where the agent should try to go, and what it is paid for trying."""

    init: Callable[[Key], PyTree]
    propose: Callable[[PyTree, Key, PyTree], tuple[PyTree, PyTree]]  # (state, key, obs [N]) -> (state, goals [N])
    reward: Callable[[PyTree, PyTree], jax.Array]  # (state, (transition, goals)) -> reward
    tell: Callable[[PyTree, Key, PyTree], PyTree]  # (state, key, batch) -> state: what was reached
    relabel: Callable[[PyTree, Key, PyTree], PyTree]  # (state, key, batch) -> batch with goals and rewards replaced


class Evaluation(NamedTuple):
    """What trying P genomes gave."""

    fitness: jax.Array  # f32[P]; the return of an episode; -inf where it is not valid
    descriptor: jax.Array  # f32[P, d]; inside the box of ``spec.info["descriptor"]``
    tried: jax.Array  # bool[P]; an evaluation was spent on it
    valid: jax.Array  # bool[P]; False: not tried, or a number was NaN; such a genome is never kept
    area: jax.Array  # i32[P]; the reward area that was met, 0 for none
    outcome: PyTree = None  # [P, ...]; what descriptors are learnt from: pictures, trajectories


class Elites(NamedTuple):
    """What a search keeps, with room for C."""

    genomes: jax.Array  # f32[C, G]
    fitness: jax.Array  # f32[C]
    descriptor: jax.Array  # f32[C, d]
    filled: jax.Array  # bool[C]
    code: jax.Array | None = None  # f32[C, c]; what novelty is measured in, where it is not the descriptor


class Population(NamedTuple):
    """Methods that search over whole policies, a batch of genomes at a time.

    ``phases`` are the batches that a method may ask for, name -> number of genomes; ``turn`` says which one is next. ``refresh`` is where descriptors
    are learnt anew, and everything stored is described again; it happens between iterations, when it is ``due``.
    """

    phases: Mapping[str, int]
    chunk: int  # evaluations of an iteration: whole batches until at least as many are made
    init: Callable[[Key], PyTree]
    ask: Callable[[PyTree, Key, str], tuple[PyTree, jax.Array, jax.Array]]  # (state, key, phase) -> (state, genomes f32[P, G], wanted bool[P])
    tell: Callable[[PyTree, Key, tuple], tuple[PyTree, dict]]  # (state, key, (phase, genomes, Evaluation)) -> (state, what happened)
    elites: Callable[[PyTree], Elites]
    turn: Callable[[PyTree], jax.Array] | None = None  # state -> i32[]; None where there is one phase
    due: Callable[[PyTree], jax.Array] | None = None  # state -> bool[]; whether ``refresh`` is wanted before the next iteration
    refresh: Callable[[PyTree, Key], PyTree] | None = None  # (state, key) -> state
    watch: Callable | None = None  # (Environment, longest episode) -> exploration.watching.Watcher: what ``outcome`` is
    full: Callable[[PyTree], dict[str, jax.Array]] | None = None  # state -> what might find no room in the next iteration: name -> bool[]
    grow: Callable[[PyTree, str], PyTree] | None = None  # (state, name) -> state with room for twice as many; changes no result


__all__ = [
    "Archive", "Bonus", "BonusInfo", "Elites", "Evaluation", "Explored", "Goals", "Key", "Population", "PyTree", "Spec", "Starts", "Transition", "bonus",
    "check_needs", "none",
]  # fmt: skip
