"""The records that the loop drives, whatever the experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from agents.base import Agent
from envs.base import Environment, HostEnvironment, Key, PyTree, Spec, Transition
from exploration.base import Archive, Elites


class Clock(NamedTuple):
    """Where the run stands. Reaches ``step`` unbatched, so ``lax.cond`` on it stays a branch under vmap."""

    iteration: jax.Array  # i32[]; iterations done before this one
    progress: jax.Array  # f32[]; share of the run's iterations done, in [0, 1)


class Acting(NamedTuple):
    """The part of a state that acts: what ``start`` and ``watch`` read."""

    agent: PyTree
    bonus: PyTree
    guide: PyTree = ()  # where the runner is ``guided``


class Runner(NamedTuple):
    """One iteration of an experiment, for one member.

    Keys inside ``step`` are derived from the member's own key and the clock, never threaded: resuming and reordering change
    nothing. Metrics are the kinds of ``runners/metrics.py``. A state has the fields of ``Acting``, which
    are the policy.
    """

    init: Callable[[Key], PyTree]  # key -> state
    step: Callable[[PyTree, Clock], tuple[PyTree, dict[str, Any]]]  # (state, clock) -> (state, metrics)
    evaluate: Callable[[PyTree, Key], dict[str, Any]] | None  # (state, key) -> metrics, in worlds of its own
    spec: Spec
    steps_per_iteration: int  # environment steps of one iteration, all lanes
    env: Environment | None = None
    start: Callable[[PyTree, Key], PyTree] | None = None  # (Acting, key) -> carry: worlds of their own, to be watched; carry[0] is Lanes
    watch: Callable[[PyTree, PyTree, Key], tuple[PyTree, Transition]] | None = None  # (Acting, carry, key) -> (carry, transition)
    parts: Callable[[], dict[str, Callable]] | None = None  # growing parts of ``step``: name -> (state, clock) -> anything
    agent: Agent | None = None
    augments: bool = False  # the agent sees statistics that a bonus gathers as it goes
    full: Callable[[PyTree], dict[str, jax.Array]] | None = None  # state -> what may have no room for another iteration: name -> bool[]
    grow: Callable[[PyTree, str], PyTree] | None = None  # (state, name) -> state with room for twice as much; changes no result
    elites: Callable[[PyTree], Elites] | None = None  # state -> what a search over policies keeps
    guided: bool = False  # what acts also reads ``state.guide``


class Arrived(NamedTuple):
    """What one step of the host's worlds brought."""

    obs: PyTree  # [N, ...]; the true successors, as they arrive
    reward: jax.Array  # f32[N]
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]
    following: PyTree  # [N, ...]; to act on next, after restarts
    note: PyTree = ()  # [N, ...]; what lanes are noted with then


class Steps(NamedTuple):
    """What the host's worlds gave in an iteration, in numpy, [T, N, ...]; gathered while they step, handed over at once."""

    obs: PyTree  # acted on, as they arrived
    next_obs: PyTree  # the true successors, as they arrived
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    first: jax.Array
    info: dict[str, jax.Array]  # with episode_return and episode_length


class HostExplorer(NamedTuple):
    """One iteration of an experiment whose workers make whole rollouts in worlds on the host, for one member: ``choose`` -> [rollouts] -> ``merge``."""

    init: Callable[[Key], PyTree]
    choose: Callable  # (state, clock) -> (archive, Chosen)
    merge: Callable  # (state, archive, Explored, depth i32[L], clock) -> (state, metrics)
    full: Callable[[PyTree], dict[str, jax.Array]]
    grow: Callable[[PyTree, str], PyTree]
    cell: Callable  # (look, *representation) -> fingerprint of 8 bytes
    workers: int | None
    cluster: str | None  # of Ray, where the workers are; None: processes of this machine
    explore_steps: int
    spec: Spec
    steps_per_iteration: int
    env: HostEnvironment
    agent: Agent
    archive: Archive
    augments: bool = False


class HostSearch(NamedTuple):
    """One iteration of a search over policies that are tried in worlds on the host, for one member: [``ask`` -> episodes -> ``tell``] until its evaluations are
    made (``runners/host_population.py``)."""

    init: Callable[[Key], PyTree]
    phase: Callable[[PyTree], jax.Array]  # state -> i32[]; place in ``phases`` of what is asked for next
    ask: Callable  # (state, clock, number of the batch in the iteration, phase: str) -> (state.search, genomes f32[P, G], wanted bool[P])
    tell: Callable  # (state, search, genomes, wanted, Attempts [P], clock, number, phase: str) -> (state, metrics)
    full: Callable[[PyTree], dict[str, jax.Array]]
    grow: Callable[[PyTree, str], PyTree] | None
    elites: Callable[[PyTree], Any]
    phases: tuple[str, ...]
    single_batch: bool  # an iteration is one batch, as large as it may be
    chunk: int  # evaluations of an iteration
    trial: Any  # ``runners/trials.py``: what workers are made of
    workers: int | None
    spec: Spec
    steps_per_iteration: int
    env: HostEnvironment
    agent: Agent
    augments: bool = False


class Keep(NamedTuple):
    """A replay that stays in the host's memory, where an accelerator's does not hold it: programs for the host's own processor. States that
    are on the accelerator have () in its place."""

    draw: Callable  # (replay, state.key, clock) -> the batches of an iteration, in place of the replay in ``state.waiting``
    store: Callable  # (replay, rows) -> replay; rows are the third that ``finish`` gives


class HostRunner(NamedTuple):
    """One iteration of an experiment whose worlds live on the host, for one member, in pieces between which the worlds step.

    ``begin`` -> [worlds step -> ``advance``] ``steps`` - 1 times -> worlds step -> ``finish``. With ``learn``, that is called before
    ``begin`` and runs while the worlds step; what it gives goes to ``finish``. Pure, as everywhere; keys come from the clock.
    """

    init: Callable[[Key, PyTree], PyTree]  # (key, obs [N] as they arrive) -> state
    warm: Callable | None  # (state, key, Lanes, random actions [N], Arrived) -> state
    warmup: int  # random steps per lane before training, for ``warm``
    learn: Callable | None  # (state.agent, state.waiting, state.key, clock) -> what was learnt from the rollout that waited
    begin: Callable[[PyTree, Clock], tuple[PyTree, jax.Array]]  # (state, clock) -> (play, actions [N])
    advance: Callable  # (state.agent, play, t, Lanes, actions [N], Arrived) -> (play, actions [N]); Lanes as they were before the step
    finish: Callable  # (state, play, Lanes, actions [N], Arrived, Steps [T, N], last Lanes, learnt or None, clock) -> (state, metrics), with ``keep`` also rows
    start: Callable[[PyTree, Key, PyTree], tuple[PyTree, jax.Array]]  # (Acting, key, obs [N]) -> (carry, actions [N]): to be watched
    watch: Callable  # (Acting, carry, key, Lanes, actions [N], Arrived) -> (carry, actions [N])
    steps: int  # world steps per iteration; 0: it learns without any, ``finish`` takes (state, clock), and ``begin`` and ``advance`` are None
    spec: Spec
    steps_per_iteration: int
    env: HostEnvironment
    agent: Agent
    augments: bool
    stored: Callable | None = None  # (state, obs [N] to act on first) -> state.replay, which ``init`` leaves empty
    keep: Keep | None = None
    steering: Any = None  # ``HostSteering``, of worlds whose episodes start and end as a curriculum in ``state.guide`` has it
