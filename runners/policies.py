"""Policies on disk: what acts, and nothing else, for each member: ``policies/<member>-best.msgpack`` and ``<member>-last.msgpack``.

A file holds the states of agent and bonus (flax's msgpack), as they were at an evaluation: the last one, and the one with the highest
mean return so far.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import flax.serialization
import jax

from envs.base import Key, PyTree, Spec
from envs.builder import Refusal
from runners.base import Acting, HostExplorer, HostRunner, HostSearch, Runner
from runners.batching import AXIS
from runners.experiment import Member, experiment, make_runner, replaced
from runners.rundir import read_config

WHICH = ("best", "last")


class Policy(NamedTuple):
    """A trained policy, for any number of lanes N. ``mode`` is "greedy" or "explore"."""

    spec: Spec  # of the world, as the agent sees it
    start: Callable[[int], PyTree]  # N -> memory
    act: Callable[..., tuple[PyTree, jax.Array]]  # (memory, key, obs [N, ...], first bool[N], mode="greedy") -> (memory, actions [N])
    state: PyTree  # of the agent: its parameters, and statistics of observations


class Played(NamedTuple):
    """A member of a run, with what acts."""

    member: Member
    runner: Runner | HostRunner
    acting: Acting


def save(folder: Path, states: Sequence[dict[str, PyTree]], best: Sequence[bool]) -> None:
    """Write the policy of every member as its last one, and as its best one where ``best`` says so."""
    folder.mkdir(exist_ok=True)
    for member, (state, is_best) in enumerate(zip(states, best, strict=True)):
        data = flax.serialization.to_bytes(Acting(**state))
        for which in ("last", "best")[: 1 + is_best]:
            draft = folder / f".{member}-{which}.draft"
            draft.write_bytes(data)
            os.replace(draft, folder / f"{member}-{which}.msgpack")


def load(run: Path, member: int = 0, which: str = "best") -> Policy:
    """The policy of a run's member. Raises Refusal where there is none, and where it needs more than observations to act."""
    played = read(run, member, which)
    if played.runner.augments:
        raise Refusal(f"{run}: this agent also sees statistics that its bonus gathers in the world, so it is no function of observations; use play")
    agent, state = played.runner.agent, played.acting.agent
    acts = {mode: jax.jit(lambda memory, key, obs, first, mode=mode: agent.act(state, key, (memory, obs, first, mode))[:2]) for mode in ("greedy", "explore")}

    def act(memory: PyTree, key: Key, obs: PyTree, first: jax.Array, mode: str = "greedy") -> tuple[PyTree, jax.Array]:
        return acts[mode](memory, key, obs, first)

    return Policy(played.runner.spec, lambda lanes: agent.start(state, lanes), act, state)


def read(run: Path, member: int, which: str, changed: Callable[[dict], dict] | None = None) -> Played:
    """The runner of a member of ``run``, and its policy from disk. ``changed`` may give another configuration for the runner, whose policy has the same
    arrays. Raises Refusal when there is none, or when it does not fit."""
    made = experiment(read_config(run))
    if not 0 <= member < len(made.members):
        raise Refusal(f"member={member}: {run} has the members 0 to {len(made.members) - 1}")
    if which not in WHICH:
        raise Refusal(f"policy={which} is not legal: best or last")
    file = run / "policies" / f"{member}-{which}.msgpack"
    if not file.exists():
        raise Refusal(f"{run} has no policy yet: one is written at every evaluation (evaluations=1 has one, at the end)")
    hyper = made.members[member].hyper
    runner = made.make_runner(hyper) if changed is None else make_runner(changed(replaced(made.config, hyper)))
    template = jax.eval_shape(jax.vmap(lambda key, *obs: acting(runner, runner.init(key, *obs)), axis_name=AXIS), *inputs(runner))
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), template)
    try:
        found = flax.serialization.from_state_dict(template, {"guide": {}} | flax.serialization.msgpack_restore(file.read_bytes()))  # older files have none
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(f"{file} is damaged, or was written by another version: {str(error).splitlines()[0]}") from None
    shapes = [(a.shape, b.shape) for a, b in zip(jax.tree.leaves(template), jax.tree.leaves(found), strict=True)]
    if any(a != b for a, b in shapes):
        raise Refusal(f"{file} was written by another version: an array of it has another shape")
    return Played(made.members[member], runner, jax.tree.map(jax.numpy.asarray, found))


def acting(runner: Runner | HostRunner, state: PyTree) -> Acting:
    return Acting(state.agent, state.bonus, state.guide if isinstance(runner, Runner) and runner.guided else ())


def inputs(runner: Runner | HostRunner) -> tuple[PyTree, ...]:
    """Shapes of what ``init`` takes, with a leading member axis."""
    key = jax.ShapeDtypeStruct((1, 2), jax.numpy.uint32)
    if isinstance(runner, (Runner, HostExplorer, HostSearch)):
        return (key,)
    worlds = runner.env.open(1)
    try:
        obs = worlds.reset([0])
    finally:
        worlds.close()
    return key, jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, runner.spec.lanes, *x.shape[1:]), x.dtype), obs)
