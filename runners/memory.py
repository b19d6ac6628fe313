"""How much memory a program will need, estimated from its jaxpr before anything is compiled.

Walks the equations in order and adds up what is alive at each: an upper estimate, since the compiler fuses and reuses.
Sub-programs (scan, while, cond, vmapped calls) count with their own peak while they run.
"""

from __future__ import annotations

import math
from collections import Counter

import jax
import psutil
from jax.extend import core

from envs.builder import Refusal
from runners.progress import readable


def bytes_of(aval) -> int:
    shape, dtype = getattr(aval, "shape", None), getattr(aval, "dtype", None)
    if shape is None or dtype is None:
        return 0
    return math.prod(shape) * getattr(dtype, "itemsize", 4)


def tree_bytes(shapes) -> int:
    """Bytes of a pytree of arrays or ShapeDtypeStructs."""
    return sum(bytes_of(leaf) for leaf in jax.tree.leaves(shapes))


def peak_bytes(jaxpr: core.Jaxpr) -> int:
    """Largest number of bytes alive at once while ``jaxpr`` runs. A value whose last use has come gives its place to a result of
    the same size, inputs included (the loop donates them)."""
    last_use = {}
    for i, eqn in enumerate(jaxpr.eqns):
        last_use |= {var: i for var in eqn.invars if isinstance(var, core.Var)}
    last_use |= {var: len(jaxpr.eqns) for var in jaxpr.outvars if isinstance(var, core.Var)}
    alive = peak = sum(bytes_of(v.aval) for v in (*jaxpr.invars, *jaxpr.constvars))
    for i, eqn in enumerate(jaxpr.eqns):
        made = Counter(bytes_of(v.aval) for v in eqn.outvars)
        freed = Counter(bytes_of(v.aval) for v in {v for v in eqn.invars if isinstance(v, core.Var)} if last_use[v] == i)
        beyond = max((copies * (peak_bytes(sub) - sum(bytes_of(v.aval) for v in sub.invars)) for sub, copies in inner_jaxprs(eqn)), default=0)
        peak = max(peak, alive + max(total(made - freed), beyond))
        alive += total(made) - total(freed) - sum(bytes_of(v.aval) for v in eqn.outvars if v not in last_use)
    return peak


def total(sizes: Counter) -> int:
    return sum(size * count for size, count in sizes.items())


def inner_jaxprs(eqn):
    """(sub-program, how many run at the same time) of an equation."""
    copies = eqn.params["mesh"].size if eqn.primitive.name == "shard_map" else 1
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr, copies
            elif isinstance(item, core.Jaxpr):
                yield item, copies


def available_bytes() -> int:
    """Memory that the default device can still give: the accelerator's, or this machine's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def refuse_if_too_large(peak: int, members: int) -> None:
    """Refuse a run whose estimate exceeds what is free."""
    free = available_bytes()
    if peak > free:
        advice = "lower seeds, or runner.lanes, or runner.rollout" if members > 1 else "lower runner.lanes or runner.rollout"
        raise Refusal(f"this run needs about {readable(peak)}, and {readable(free)} is free: {advice}, or set batching=map")
