"""Policies on disk: what acts, and nothing else, for each member: ``policies/<member>-best.msgpack`` and ``<member>-last.msgpack``.

A file holds the states of agent and bonus (flax's msgpack), as they were at an evaluation: the last one, and the one with the highest
mean return. ``load`` builds the run's agent again and gives back a function from observations to actions.

    from runners.policies import load
    policy = load("runs/...", member=0, which="best")
    memory = policy.start(4)
    memory, action = policy.act(memory, key, obs, first)     # obs [4, ...], first bool[4]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax

from envs.base import Key, PyTree, Spec
from envs.builder import Refusal

WHICH = ("best", "last")


def save(folder: Path, states: Sequence[PyTree], best: Sequence[bool]) -> None:
    """Write the policy of every member as its last one, and as its best one where ``best`` says so."""
    folder.mkdir(exist_ok=True)
    for member, (state, is_best) in enumerate(zip(states, best, strict=True)):
        data = flax.serialization.to_bytes(state)
        for which in ("last", "best")[: 1 + is_best]:
            draft = folder / f".{member}-{which}.draft"
            draft.write_bytes(data)
            os.replace(draft, folder / f"{member}-{which}.msgpack")


class Policy(NamedTuple):
    """A trained policy. Recurrent memories, and statistics that a bonus shows the agent, are kept per lane in ``memory``."""

    spec: Spec  # of the world, as the agent sees it
    start: Callable[[], PyTree]  # -> memory of ``spec.lanes`` lanes
    act: Callable[[PyTree, Key, PyTree, jax.Array], tuple[PyTree, jax.Array]]  # (memory, key, obs [N], first [N]) -> (memory, actions [N])
    state: Any  # fields agent and bonus


def read(folder: Path, member: int, which: str, template: PyTree) -> PyTree:
    """The states of agent and bonus in ``template``'s structure. Raises Refusal when the file is not there or does not fit."""
    if which not in WHICH:
        raise Refusal(f"policy {which!r} is not legal: best or last")
    file = folder / f"{member}-{which}.msgpack"
    if not file.exists():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.msgpack"))) or "none: evaluations=0, or no evaluation yet"
        raise Refusal(f"{file} is not there; policies of this run: {there}")
    try:
        return flax.serialization.from_bytes(template, file.read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(f"{file} does not fit this version's {which} policy: {str(error).splitlines()[0]}") from None
