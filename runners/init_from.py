"""Runs in two phases: ``init_from=RUN`` lets the members begin with the agents of another run, member i with that of member i, counted round.

What is taken is the agent's state as it was at the last evaluation of that run: parameters, optimiser, statistics of observations. Arrays that the
new agent does not have, or has in another shape (another number of value heads), begin afresh, and that is said. The bonus begins afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from envs.base import PyTree
from envs.builder import Refusal
from runners.checkpoint import flatten
from runners.rundir import read_config


def files(run: str) -> list[Path]:
    """The policies to begin with, by member. Raises Refusal where there is no run, or none was evaluated."""
    read_config(Path(run))
    found = sorted((Path(run) / "policies").glob("*-last.msgpack"), key=lambda file: int(file.name.partition("-")[0]))
    if not found:
        raise Refusal(f"init_from={run} has no policy yet: one is written at every evaluation (evaluations=1 has one, at the end)")
    return found


def taken(fresh: PyTree, run: str, say: Callable[[str], None]) -> PyTree:
    """``fresh`` agents [M, ...] in numpy, with what ``run`` has put in. Raises Refusal where nothing fits."""
    sources = [dict(flatten(read(file))) for file in files(run)]
    members = len(jax.tree.leaves(fresh)[0])
    leaves, new, old = [], [], 0
    for name, leaf in flatten(flax.serialization.to_state_dict(fresh)):
        rows = [sources[i % len(sources)].get(name) for i in range(members)]
        fits = all(row is not None and np.shape(row) == leaf.shape[1:] and np.asarray(row).dtype == leaf.dtype for row in rows)
        leaves.append(np.stack(rows) if fits else leaf)
        old += fits
        if not fits:
            new.append(name)
    if not old:
        raise Refusal(f"init_from={run}: nothing of its agent fits this one; use the same agent, with the same networks, in a world of the same spaces")
    begun = f"{', '.join(new[:3])}{f' and {len(new) - 3} more' if len(new) > 3 else ''}"
    say(f"began with the agents of {run}{f'; afresh: {begun}' if new else ''}")
    structure = jax.tree.structure(flax.serialization.to_state_dict(fresh))
    return flax.serialization.from_state_dict(fresh, jax.tree.unflatten(structure, leaves))


def read(file: Path) -> dict[str, Any]:
    """The agent's state in a policy's file, as nested dictionaries."""
    try:
        return flax.serialization.msgpack_restore(file.read_bytes())["agent"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(f"{file} is damaged: {' '.join(str(error).split())[:100]}") from None
